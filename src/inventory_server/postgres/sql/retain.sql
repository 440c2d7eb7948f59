-- Removes what was over long ago. One row, or none where somebody else is at it.
SELECT product_id, last, movements_removed, holds_removed
FROM inventory_retain_v1(%s::text, %s::bigint, %s::int, %s::int)
