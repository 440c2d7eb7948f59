-- Gives a batch of holds more time. Many rows: one per hold.
SELECT outcome, product_id, order_id, quantity, status, release_reason, expires_us, created_us, updated_us
FROM inventory_extend_v2(%s::uuid[], %s::bigint[], %s::text[], %s::uuid[], %s::bigint)
