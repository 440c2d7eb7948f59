-- Forgets what was over `keep_us` ago: for up to `products_max` products after one, in the order of their ids, removes
-- the oldest movements, up to `rows_max` in all, and the holds that ended with them.
--
-- What goes of a product is a prefix of its ledger in which every movement is that old and every hold ended that long
-- ago. The last of these movements becomes a CARRY_FORWARD that tells the balances after it, so that the ledger stays a
-- chain, and what all of them added up to. A hold goes with the movement that ended it; until then it may lack those
-- before. A hold that is RESERVED keeps all of its movements, and those of its product that are younger.
--
-- Waits for nobody: a hold that somebody has locked ends the prefix. Returns the product to go on after, whether it was
-- the last one, and how much went; nothing where somebody else is at it.
CREATE OR REPLACE FUNCTION inventory_retain_v1(after_product text, keep_us bigint, products_max int, rows_max int)
RETURNS TABLE (product_id text, last boolean, movements_removed bigint, holds_removed bigint)
LANGUAGE plpgsql
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    cutoff    timestamptz;
    product   text;
    seen      int    := 0;
    rows_left int    := rows_max;
    removed   bigint := 0;
    holds     bigint := 0;
    gone      bigint;
    stop      bigint;  -- the first version that has to stay
    edge      bigint;  -- the last version that may go
    locked    uuid[];
    sums      jsonb;
BEGIN
    IF NOT pg_try_advisory_xact_lock(9142205142015184) THEN
        RETURN;
    END IF;
    cutoff := clock_timestamp() - keep_us * interval '1 microsecond';

    FOR product IN
        SELECT s.product_id FROM inventory_stock s WHERE s.product_id > after_product
        ORDER BY s.product_id LIMIT products_max
    LOOP
        -- The look-up of each hold is a subquery, so that it ends with the first movement that has to stay.
        SELECT w.version INTO stop
        FROM (
            SELECT m.version, m.occurred_at, m.reservation_id FROM inventory_movements m
            WHERE m.product_id = product ORDER BY m.version LIMIT rows_left
        ) w
        WHERE w.occurred_at >= cutoff OR w.reservation_id IS NOT NULL AND coalesce((
            SELECT r.status = 'RESERVED' OR r.updated_at >= cutoff
            FROM inventory_reservations r WHERE r.reservation_id = w.reservation_id
        ), true)
        ORDER BY w.version LIMIT 1;

        SELECT max(w.version), count(*), array_agg(w.reservation_id) INTO edge, gone, locked
        FROM (
            SELECT m.version, m.reservation_id FROM inventory_movements m
            WHERE m.product_id = product AND m.version < coalesce(stop, 9223372036854775807)
            ORDER BY m.version LIMIT rows_left
        ) w;

        -- One movement that becomes another one would save nothing.
        IF gone > 1 THEN
            SELECT array_agg(h.reservation_id) INTO locked
            FROM (
                SELECT r.reservation_id FROM inventory_reservations r
                WHERE r.reservation_id = ANY (locked) AND r.status <> 'RESERVED' AND r.updated_at < cutoff
                ORDER BY r.reservation_id FOR UPDATE SKIP LOCKED
            ) h;
            SELECT coalesce(min(m.version) - 1, edge) INTO edge
            FROM inventory_movements m
            WHERE m.product_id = product AND m.version <= edge AND m.reservation_id IS NOT NULL
                AND m.reservation_id <> ALL (coalesce(locked, '{}'));
            SELECT count(*) INTO gone
            FROM inventory_movements m WHERE m.product_id = product AND m.version <= edge;
        END IF;

        IF gone > 1 THEN
            WITH prefix AS (
                SELECT m.*, CASE WHEN m.kind = 'RELEASE' THEN 'released'
                    WHEN m.kind = 'EXPIRE' AND r.status = 'RELEASED' THEN 'expired'
                    WHEN m.kind IN ('DEDUCT', 'REACQUIRE') THEN 'sold' END AS ended, r.quantity
                FROM inventory_movements m
                LEFT JOIN inventory_reservations r ON r.reservation_id = m.reservation_id
                WHERE m.product_id = product AND m.version <= edge
            ), summed AS (
                SELECT 'added' AS name, sum(greatest(p.available_delta, 0)) AS units
                FROM prefix p WHERE p.kind IN ('INITIALIZE', 'ADD', 'ADJUST')
                UNION ALL
                SELECT 'removed', sum(greatest(-p.available_delta, 0)) FROM prefix p WHERE p.kind = 'ADJUST'
                UNION ALL
                SELECT 'deducted', sum(-p.available_delta - p.reserved_delta)
                FROM prefix p WHERE p.kind IN ('DEDUCT', 'REACQUIRE')
                UNION ALL
                SELECT 'units_' || p.ended, sum(p.quantity) FROM prefix p WHERE p.ended IS NOT NULL GROUP BY p.ended
                UNION ALL
                SELECT 'holds_' || p.ended, count(*) FROM prefix p WHERE p.ended IS NOT NULL GROUP BY p.ended
                UNION ALL
                SELECT c.key, c.value::numeric FROM prefix p CROSS JOIN jsonb_each_text(p.carried) c
            ), ended AS (
                DELETE FROM inventory_reservations r USING prefix p
                WHERE p.ended IS NOT NULL AND r.reservation_id = p.reservation_id
                RETURNING r.reservation_id
            ), deleted AS (
                DELETE FROM inventory_movements m WHERE m.product_id = product AND m.version < edge
            )
            SELECT (SELECT jsonb_object_agg(t.name, t.units)
                    FROM (SELECT s.name, coalesce(sum(s.units), 0) AS units FROM summed s GROUP BY s.name) t),
                   holds + (SELECT count(*) FROM ended)
            INTO sums, holds;
            UPDATE inventory_movements m
            SET kind = 'CARRY_FORWARD', available_delta = m.available_after, reserved_delta = m.reserved_after,
                request_id = NULL, line = 0, reservation_id = NULL, order_id = NULL, reason = NULL, expires_at = NULL,
                carried = sums
            WHERE m.product_id = product AND m.version = edge;
            rows_left := rows_left - gone;
            removed := removed + gone - 1;
        END IF;

        EXIT WHEN rows_left < 2;
        after_product := product;
        seen := seen + 1;
    END LOOP;

    RETURN QUERY SELECT after_product, seen < products_max AND rows_left >= 2, removed, holds;
END
$$;
