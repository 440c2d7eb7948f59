-- Lists balances in the order of the product ids. Many rows: one per product, up to the limit.
SELECT product_id, available_quantity, reserved_quantity, version, inventory_micros_v1(created_at),
    inventory_micros_v1(updated_at)
FROM inventory_list_stock_v1(%s::text, %s::bigint)
