-- Tells why a product has its balances. One row, or none where there is no record.
SELECT begins_us, available, reserved, version, created_us, updated_us, added, removed, deducted, holds, movements,
    discrepancies
FROM inventory_explain_v1(%s::text, %s::bigint, %s::int)
