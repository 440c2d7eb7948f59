-- Tells for how many seconds the oldest hold has been due that nobody has tidied up, 0 where none is. One row.
SELECT greatest(0, extract(epoch FROM clock_timestamp() - min(tidy_at)))::float8
FROM inventory_reservations WHERE status = 'RESERVED'
