-- Reads holds that may have been read from the cache: for a copy that is still exact only the id comes back, for any
-- other (or none: nulls) the row. A hold past its expiry reads as released, whether or not it was tidied up.
-- Many rows: one per hold that exists.
SELECT r.reservation_id::text, d.*
FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
    AS copy (reservation_id, product_id, order_id, quantity, expires_us, created_us, updated_us)
JOIN inventory_reservations r USING (reservation_id)
CROSS JOIN LATERAL (
    SELECT r.status = 'RESERVED' AND r.expires_at <= clock_timestamp() AS expired,
        inventory_micros_v1(r.expires_at) AS expires_us, inventory_micros_v1(r.created_at) AS created_us,
        inventory_micros_v1(r.updated_at) AS updated_us
) t
LEFT JOIN LATERAL (
    SELECT r.product_id, r.order_id, r.quantity,
        CASE WHEN t.expired THEN 'RELEASED' ELSE r.status END,
        CASE WHEN t.expired THEN 'EXPIRED' ELSE r.release_reason END,
        t.expires_us, t.created_us, CASE WHEN t.expired THEN t.expires_us ELSE t.updated_us END
) d ON r.status <> 'RESERVED' OR t.expired
    OR (r.product_id, r.order_id, r.quantity, t.expires_us, t.created_us, t.updated_us) IS DISTINCT FROM
       (copy.product_id, copy.order_id, copy.quantity, copy.expires_us, copy.created_us, copy.updated_us)
