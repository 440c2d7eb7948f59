-- Sets aside for ten seconds the holds that are due but whose stock row is still locked by whom an earlier look found, of
-- so many oldest ones; that look is this one, told of no products and no lockers. Waits for nobody. Many rows: a product
-- whose row somebody has locked just now, the number of that transaction, and how many of its holds were set aside.
WITH moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), due AS MATERIALIZED (
    SELECT r.reservation_id, r.product_id
    FROM inventory_reservations r
    WHERE r.status = 'RESERVED' AND r.tidy_at <= (SELECT now FROM moment)
    ORDER BY r.tidy_at
    LIMIT %s::int
), there AS MATERIALIZED (
    SELECT s.product_id, s.xmax::text AS locker FROM inventory_stock s
    WHERE s.product_id = ANY (ARRAY(SELECT d.product_id FROM due d)) AND s.xmax <> '0'
), free AS MATERIALIZED (
    SELECT s.product_id FROM inventory_stock s
    WHERE s.product_id = ANY (ARRAY(SELECT d.product_id FROM due d))
    FOR UPDATE SKIP LOCKED
), locked AS MATERIALIZED (
    SELECT * FROM there t WHERE NOT EXISTS (SELECT FROM free f WHERE f.product_id = t.product_id)
), stuck AS MATERIALIZED (
    SELECT r.reservation_id FROM inventory_reservations r
    WHERE r.status = 'RESERVED' AND r.reservation_id = ANY (ARRAY(
        SELECT d.reservation_id FROM due d
        JOIN locked USING (product_id)
        JOIN unnest(%s::text[], %s::text[]) AS before (product_id, locker) USING (product_id, locker)
    ))
    FOR UPDATE SKIP LOCKED
), aside AS (
    UPDATE inventory_reservations r SET tidy_at = (SELECT now FROM moment) + interval '10 seconds'
    FROM stuck
    WHERE r.reservation_id = stuck.reservation_id
    RETURNING r.product_id
)
SELECT l.product_id, l.locker, count(a.product_id) FROM locked l LEFT JOIN aside a USING (product_id)
GROUP BY l.product_id, l.locker
