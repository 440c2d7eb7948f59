-- Takes back the expired holds of products. One row, of nothing.
SELECT inventory_tidy_v1(%s::text[])
