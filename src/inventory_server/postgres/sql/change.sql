-- Changes the available quantities of a batch. Many rows: one per change.
SELECT outcome, available, reserved, version, created_us, updated_us
FROM inventory_change_v1(%s::text[], %s::int[], %s::text[], %s::bigint[], %s::text[], %s::bigint[], %s::uuid[],
    %s::bigint)
