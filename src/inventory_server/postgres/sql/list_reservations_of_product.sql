-- Lists the holds of one product by id. Many rows: one per hold, up to the limit. A hold past its expiry reads as
-- released, whatever its row says.
SELECT r.reservation_id::text, r.product_id, r.order_id, r.quantity,
    CASE WHEN t.expired THEN 'RELEASED' ELSE r.status END,
    CASE WHEN t.expired THEN 'EXPIRED' ELSE r.release_reason END,
    inventory_micros_v1(r.expires_at), inventory_micros_v1(r.created_at),
    inventory_micros_v1(CASE WHEN t.expired THEN r.expires_at ELSE r.updated_at END)
FROM inventory_list_product_v1(%s::text, %s::text[], %s::uuid, %s::bigint) r
CROSS JOIN LATERAL (SELECT r.status = 'RESERVED' AND r.expires_at <= clock_timestamp() AS expired) t
