-- Lists balances of the shelves on which products with so many units or fewer stand, in the order of the product ids.
-- Many rows: one per product, up to the limit; those of the highest shelf may have more units than asked for.
SELECT s.product_id, s.available_quantity, s.reserved_quantity, s.version, inventory_micros_v1(s.created_at),
    inventory_micros_v1(s.updated_at)
FROM (VALUES (%s::bigint, %s::text, %s::bigint)) AS asked (available_max, after, rows_max)
CROSS JOIN generate_series(
    0, width_bucket(asked.available_max, '{1,2,3,6,11,21,51,101,201,501,1001,2001,5001,10001}'::bigint[])
) AS low (shelf)
CROSS JOIN LATERAL (
    SELECT * FROM inventory_stock k
    WHERE k.shelf = low.shelf::smallint AND k.product_id > asked.after
    ORDER BY k.product_id
    LIMIT asked.rows_max
) s
ORDER BY s.product_id
LIMIT %s
