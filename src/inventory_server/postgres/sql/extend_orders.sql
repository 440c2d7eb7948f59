-- Gives the holds of a batch of orders more time. Many rows: for each order those that got it, or the one to blame.
SELECT no, outcome, reservation_id::text, product_id, order_id, quantity, status, release_reason, expires_us, created_us,
    updated_us
FROM inventory_extend_orders_v1(%s::text[], %s::bigint[], %s::text[], %s::uuid[], %s::bigint)
