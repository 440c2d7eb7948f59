-- Ends the holds of a batch of orders. Many rows: for each order those ended, or the one to blame, or what it lacks.
SELECT no, outcome, reservation_id::text, product_id, order_id, quantity, status, release_reason, expires_us, created_us,
    updated_us, available
FROM inventory_settle_orders_v2(%s::text[], %s::text[], %s::boolean[], %s::uuid[])
