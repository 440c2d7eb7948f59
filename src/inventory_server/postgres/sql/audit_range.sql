-- Finds the next products to audit. Many rows: one per product, up to the limit.
SELECT product_id, version FROM inventory_stock WHERE product_id > %s::text ORDER BY product_id LIMIT %s
