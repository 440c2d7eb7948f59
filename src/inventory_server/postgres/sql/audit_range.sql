-- Finds the next products to audit, with the number of their movements. Many rows: one per product, up to the limit.
SELECT s.product_id, s.version - coalesce((
        SELECT m.version FROM inventory_movements m WHERE m.product_id = s.product_id ORDER BY m.version LIMIT 1
    ), s.version) + 1
FROM inventory_stock s
WHERE s.product_id > %s::text
ORDER BY s.product_id
LIMIT %s
