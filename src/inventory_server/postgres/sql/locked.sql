-- Finds stock rows that somebody has locked at this moment, and waits for nobody. Asked are products, holds and orders,
-- each with the number of the question it belongs to; of an order the first thousand holds count. Many rows: the number of
-- each question that such rows stand in the way of, each such product, and the number of the transaction that locked it.
WITH asked AS MATERIALIZED (
    SELECT q.no, q.product_id FROM unnest(%s::int[], %s::text[]) AS q (no, product_id)
    UNION ALL
    SELECT q.no, r.product_id FROM unnest(%s::int[], %s::uuid[]) AS q (no, reservation_id)
    CROSS JOIN LATERAL (
        SELECT r.product_id FROM inventory_reservations r WHERE r.reservation_id = q.reservation_id OFFSET 0
    ) r
    UNION ALL
    SELECT q.no, r.product_id FROM unnest(%s::int[], %s::text[]) AS q (no, order_id)
    CROSS JOIN LATERAL (
        SELECT r.product_id FROM inventory_reservations r
        WHERE r.order_id = q.order_id ORDER BY r.reservation_id LIMIT 1000
    ) r
), there AS MATERIALIZED (
    SELECT s.product_id, s.xmax::text AS locker FROM inventory_stock s
    WHERE s.product_id = ANY (ARRAY(SELECT a.product_id FROM asked a)) AND s.xmax <> '0'
), free AS MATERIALIZED (
    SELECT s.product_id FROM inventory_stock s
    WHERE s.product_id = ANY (ARRAY(SELECT a.product_id FROM asked a))
    FOR UPDATE SKIP LOCKED
)
SELECT DISTINCT a.no, a.product_id, t.locker FROM asked a JOIN there t USING (product_id)
WHERE NOT EXISTS (SELECT FROM free f WHERE f.product_id = a.product_id)
