-- Tells why a product has its balances, at a moment or now (null), all in one snapshot: the balances rebuilt from the
-- ledger, what came in and went, the holds made until then by where they stood, and the last movements; and, as of now,
-- whether ledger, record and holds agree: each movement and hold of up to half a million movements, which takes more
-- than a second, and of more than that the totals. `rows_max` bounds the movements told.
--
-- Returns one row, or none where there is no record. `begins_us` is the moment from which on the ledger is complete;
-- the balances of an earlier one are null. What was carried forward counts. Reads the whole ledger of the product.
CREATE OR REPLACE FUNCTION inventory_explain_v1(product text, at_us bigint, rows_max int)
RETURNS TABLE (begins_us bigint, available bigint, reserved bigint, version bigint, created_us bigint,
    updated_us bigint, added bigint, removed bigint, deducted bigint, holds jsonb, movements jsonb,
    discrepancies text[])
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan
SET jit = off
SET max_parallel_workers_per_gather = 0
AS $$
#variable_conflict use_column
DECLARE
    moment timestamptz := least(
        clock_timestamp(), timestamptz 'epoch' + at_us * interval '1 microsecond'
    );
    edge   bigint;  -- the last version until then
BEGIN
    SELECT m.version INTO edge FROM inventory_movements m
    WHERE m.product_id = product AND m.occurred_at <= moment ORDER BY m.version DESC LIMIT 1;

    RETURN QUERY
    WITH past AS NOT MATERIALIZED (
        SELECT * FROM inventory_movements m WHERE m.product_id = product AND m.version <= edge
    ), sums AS (
        SELECT sum(p.available_delta)::bigint AS available, sum(p.reserved_delta)::bigint AS reserved,
            max(p.occurred_at) FILTER (WHERE p.version = edge) AS updated_at,
            sum(CASE WHEN p.kind IN ('INITIALIZE', 'ADD', 'ADJUST') THEN greatest(p.available_delta, 0)
                WHEN p.kind = 'CARRY_FORWARD' THEN (p.carried->>'added')::bigint ELSE 0 END)::bigint AS added,
            sum(CASE WHEN p.kind = 'ADJUST' THEN greatest(-p.available_delta, 0)
                WHEN p.kind = 'CARRY_FORWARD' THEN (p.carried->>'removed')::bigint ELSE 0 END)::bigint AS removed,
            sum(CASE WHEN p.kind IN ('DEDUCT', 'REACQUIRE') THEN -p.available_delta - p.reserved_delta
                WHEN p.kind = 'CARRY_FORWARD' THEN (p.carried->>'deducted')::bigint ELSE 0 END)::bigint AS deducted
        FROM past p
    ), told AS (
        SELECT m.reservation_id,
            bool_or(m.kind IN ('DEDUCT', 'REACQUIRE') AND m.version <= edge) AS sold,
            bool_or(m.kind = 'RELEASE' AND m.version <= edge) AS released,
            bool_or(m.kind = 'EXPIRE' AND m.version <= edge) AS expired,
            max(m.expires_at) FILTER (WHERE m.version <= edge) AS extended_to,
            bool_or(m.kind = 'EXTEND' AND m.version > edge) AS extended_later
        FROM inventory_movements m
        -- As of now the holds say themselves where they stand, ten times as fast.
        WHERE m.product_id = product AND m.reservation_id IS NOT NULL AND at_us IS NOT NULL
        GROUP BY m.reservation_id
    ), stood AS (
        SELECT r.quantity, CASE WHEN at_us IS NULL AND r.status <> 'RESERVED'
                THEN CASE WHEN r.status = 'DEDUCTED' THEN 'sold' WHEN r.release_reason = 'EXPIRED' THEN 'expired'
                    ELSE 'released' END
            WHEN t.sold THEN 'sold' WHEN t.released THEN 'released'
            WHEN t.expired OR CASE WHEN t.extended_later
                THEN coalesce(t.extended_to, r.created_at + r.ttl_us * interval '1 microsecond')
                ELSE r.expires_at END <= moment THEN 'expired'
            ELSE 'open' END AS state
        FROM inventory_reservations r LEFT JOIN told t USING (reservation_id)
        WHERE r.product_id = product AND r.created_at <= moment
    ), counted AS (
        SELECT s.state, count(*) AS holds, sum(s.quantity) AS units FROM stood s GROUP BY s.state
        UNION ALL
        SELECT c.state, (p.carried->>('holds_' || c.state))::bigint, (p.carried->>('units_' || c.state))::bigint
        FROM past p CROSS JOIN unnest(ARRAY['sold', 'released', 'expired']) AS c (state)
        WHERE p.kind = 'CARRY_FORWARD' AND p.carried ? ('holds_' || c.state)
    ), latest AS (
        SELECT * FROM past p ORDER BY p.version DESC LIMIT rows_max
    )
    SELECT (SELECT inventory_micros_v1(m.occurred_at) FROM inventory_movements m
            WHERE m.product_id = product ORDER BY m.version LIMIT 1),
        u.available, u.reserved, edge, inventory_micros_v1(s.created_at), inventory_micros_v1(u.updated_at),
        u.added, u.removed, u.deducted,
        (SELECT jsonb_object_agg(c.state, jsonb_build_array(c.holds, c.units))
         FROM (SELECT state, sum(holds) AS holds, sum(units) AS units FROM counted GROUP BY state) c),
        (SELECT jsonb_agg(jsonb_build_array(l.product_id, l.version, l.kind, l.available_delta, l.reserved_delta,
            l.available_after, l.reserved_after, l.request_id, l.reservation_id, l.order_id, l.reason,
            inventory_micros_v1(l.occurred_at)) ORDER BY l.version DESC) FROM latest l),
        CASE WHEN 500000 > (
                SELECT max(m.version) - min(m.version) FROM inventory_movements m WHERE m.product_id = product
            ) THEN ARRAY(SELECT a.discrepancy FROM inventory_audit_v1(product, product) a)
            ELSE ARRAY(SELECT a.discrepancy FROM inventory_audit_totals_v1(product) a) END
    FROM inventory_stock s CROSS JOIN sums u
    WHERE s.product_id = product;
END
$$;
