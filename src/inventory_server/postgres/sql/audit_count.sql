-- Counts the products to audit. One row.
SELECT count(*) FROM inventory_stock
