-- Reads balances. Many rows: one per product that has a record.
SELECT product_id, available_quantity, reserved_quantity, version, inventory_micros_v1(created_at),
    inventory_micros_v1(updated_at)
FROM inventory_stock
WHERE product_id = ANY (%s::text[])
