-- Sets aside for ten seconds the holds that are due but whose stock row somebody has locked just now, of so many oldest
-- ones. Waits for nobody. Many rows: a product, and how many of its holds were set aside.
WITH moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), due AS MATERIALIZED (
    SELECT r.reservation_id, r.product_id
    FROM inventory_reservations r
    WHERE r.status = 'RESERVED' AND r.tidy_at <= (SELECT now FROM moment)
    ORDER BY r.tidy_at
    LIMIT %s::int
), free AS MATERIALIZED (
    SELECT s.product_id FROM inventory_stock s
    WHERE s.product_id = ANY (ARRAY(SELECT d.product_id FROM due d))
    FOR UPDATE SKIP LOCKED
), stuck AS MATERIALIZED (
    SELECT r.reservation_id FROM inventory_reservations r
    WHERE r.status = 'RESERVED' AND r.reservation_id = ANY (ARRAY(
        SELECT d.reservation_id FROM due d WHERE NOT EXISTS (SELECT FROM free f WHERE f.product_id = d.product_id)
    ))
    FOR UPDATE SKIP LOCKED
), aside AS (
    UPDATE inventory_reservations r SET tidy_at = (SELECT now FROM moment) + interval '10 seconds'
    FROM stuck
    WHERE r.reservation_id = stuck.reservation_id
    RETURNING r.product_id
)
SELECT a.product_id, count(*) FROM aside a GROUP BY a.product_id
