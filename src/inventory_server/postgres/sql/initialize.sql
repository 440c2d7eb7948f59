-- Creates the records of a batch of products. Many rows: one per product.
SELECT outcome, available, reserved, version, created_us, updated_us
FROM inventory_initialize_v1(%s::text[], %s::bigint[], %s::uuid[])
