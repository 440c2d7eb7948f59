-- Tells for how many seconds the oldest hold has been due that nobody has tidied up, 0 where none is. Looks so many seconds
-- back, or at all times. One row.
WITH moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now
)
SELECT coalesce((
    SELECT extract(epoch FROM (SELECT now FROM moment) - r.tidy_at)
    FROM inventory_reservations r
    WHERE r.status = 'RESERVED' AND r.tidy_at <= (SELECT now FROM moment)
        AND r.tidy_at > (SELECT coalesce(now - make_interval(secs => %s::float8), '-infinity') FROM moment)
    ORDER BY r.tidy_at
    LIMIT 1
), 0)::float8
