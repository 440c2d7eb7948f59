-- Ends a batch of holds. Many rows: one per hold.
SELECT outcome, product_id, order_id, quantity, status, release_reason, expires_us, created_us, updated_us, available,
    reserved
FROM inventory_settle_v2(%s::uuid[], %s::text[], %s::uuid[], %s)
