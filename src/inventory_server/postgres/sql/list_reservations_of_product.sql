-- Lists the holds of a product whose rows have one of the statuses, by id: the index has the order within each status.
-- Many rows: one per hold, up to the limit. A hold past its expiry reads as released, whatever its row says.
SELECT r.reservation_id::text, r.product_id, r.order_id, r.quantity,
    CASE WHEN t.expired THEN 'RELEASED' ELSE r.status END,
    CASE WHEN t.expired THEN 'EXPIRED' ELSE r.release_reason END,
    inventory_micros_v1(r.expires_at), inventory_micros_v1(r.created_at),
    inventory_micros_v1(CASE WHEN t.expired THEN r.expires_at ELSE r.updated_at END)
FROM (VALUES (%s::text, %s::text[], %s::uuid, %s::bigint)) AS asked (product_id, statuses, after, rows_max)
CROSS JOIN unnest(asked.statuses) AS kept (status)
CROSS JOIN LATERAL (
    SELECT * FROM inventory_reservations h
    WHERE h.product_id = asked.product_id AND h.status = kept.status
        AND h.reservation_id >= coalesce(asked.after, '00000000-0000-0000-0000-000000000000')
        AND h.reservation_id IS DISTINCT FROM asked.after
    ORDER BY h.reservation_id
    LIMIT asked.rows_max
) r
CROSS JOIN LATERAL (SELECT r.status = 'RESERVED' AND r.expires_at <= clock_timestamp() AS expired) t
ORDER BY r.reservation_id
LIMIT %s
