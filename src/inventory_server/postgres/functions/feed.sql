-- Reads the ledger of all products after a position, as far as no transaction that is still open can add to it: up to
-- the oldest of them, the horizon. `products` are those wanted, or null for all; `again` begins with the movement at the
-- position itself.
-- Returns a row per movement that is wanted, in order, and the last that was looked at whether or not it is wanted,
-- since the next page starts there; one of nulls where there is none. `number` counts those looked at, up to `rows_max`.
-- `known` tells whether the ledger has the movement at the position, or had it until retention removed it: one that a
-- crash or a failover took back is not known, nor is one of another database. Version 0 stands for no movement.
CREATE OR REPLACE FUNCTION inventory_feed_v2(
    after_transaction xid8, after_product text, after_version bigint, again boolean, products text[], rows_max int
)
RETURNS TABLE (known boolean, number bigint, transaction_id xid8, product_id text, version bigint, kind text,
    available_delta bigint, reserved_delta bigint, available_after bigint, reserved_after bigint, request_id uuid,
    reservation_id uuid, order_id text, reason text, occurred_us bigint)
LANGUAGE plpgsql STABLE
-- The index has the order; nothing else will do, however small the table was when a session first planned it.
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT after_version = 0 OR coalesce((
        SELECT m.version > after_version OR m.transaction_id = after_transaction
        FROM inventory_movements m
        WHERE m.product_id = after_product AND m.version >= after_version
        ORDER BY m.version LIMIT 1
    ), false), page.*
    FROM (VALUES (0)) AS one
    LEFT JOIN LATERAL (
        SELECT counted.number, counted.transaction_id, counted.product_id, counted.version, counted.kind,
            counted.available_delta, counted.reserved_delta, counted.available_after, counted.reserved_after,
            counted.request_id, counted.reservation_id, counted.order_id, counted.reason,
            inventory_micros_v1(counted.occurred_at)
        FROM (
            SELECT row_number() OVER (ORDER BY m.transaction_id, m.product_id, m.version) AS number,
                count(*) OVER () AS looked_at, m.*
            FROM (
                SELECT *
                FROM inventory_movements m
                WHERE (m.transaction_id, m.product_id, m.version)
                        > (after_transaction, after_product, after_version - again::int)
                    AND m.transaction_id < pg_snapshot_xmin(pg_current_snapshot())
                ORDER BY m.transaction_id, m.product_id, m.version
                LIMIT rows_max
            ) m
        ) counted
        WHERE products IS NULL OR counted.number = counted.looked_at
            OR counted.product_id IN (SELECT unnest(products))
    ) page ON true
    ORDER BY page.number;
END
$$;

-- Tells where the feed stands now: the horizon, and the last movement below, of nulls where there is none. Positions are
-- those of movements and never the horizon, which counts transactions that a crash may undo and PostgreSQL then number
-- anew: aborted ones, and those of applications that do not wait for their commits. A movement is told after its commit
-- was written to disk, and with it every number up to its own: what commits later has a higher one, also after a crash.
CREATE OR REPLACE FUNCTION inventory_feed_now_v1()
RETURNS TABLE (horizon xid8, transaction_id xid8, product_id text, version bigint)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT pg_snapshot_xmin(pg_current_snapshot()), newest.*
    FROM (VALUES (0)) AS one
    LEFT JOIN LATERAL (
        SELECT m.transaction_id, m.product_id, m.version
        FROM inventory_movements m
        WHERE m.transaction_id < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY m.transaction_id DESC, m.product_id DESC, m.version DESC
        LIMIT 1
    ) newest ON true;
END
$$;

-- Says that the caller's session sleeps until the ledger grows and wants to be woken, or that it does no longer.
CREATE OR REPLACE FUNCTION inventory_feed_sleep_v1(asleep boolean) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF asleep THEN
        PERFORM pg_advisory_lock_shared(9142205142015183);
    ELSE
        PERFORM pg_advisory_unlock_shared(9142205142015183);
    END IF;
END
$$;
