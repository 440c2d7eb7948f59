-- Makes the holds of a batch of orders. Many rows: one per line.
SELECT outcome, available, locked, created_us, ttl_us
FROM inventory_reserve_v2(%s::text[], %s::int[], %s::int[], %s::text[], %s::bigint[], %s::bigint[], %s::boolean[],
    %s::uuid[], %s::uuid[], %s::int[], %s)
