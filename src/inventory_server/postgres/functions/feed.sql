-- Reads the ledger of all products after a position, as far as no transaction that is still open can add to it: up to
-- the oldest of them, the horizon. `products` are those wanted, or null for all.
-- Returns a row per movement that is wanted, in order; the last of a full page whether or not it is wanted, since the
-- next page starts there; one of nulls where there is none. `number` counts those looked at, up to `rows_max`.
CREATE OR REPLACE FUNCTION inventory_feed_v1(
    after_transaction xid8, after_product text, after_version bigint, products text[], rows_max int
)
RETURNS TABLE (horizon xid8, number bigint, transaction_id xid8, product_id text, version bigint, kind text,
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
    SELECT pg_snapshot_xmin(pg_current_snapshot()), page.*
    FROM (VALUES (0)) AS one
    LEFT JOIN LATERAL (
        SELECT looked_at.*
        FROM (
            SELECT row_number() OVER (ORDER BY m.transaction_id, m.product_id, m.version) AS number,
                m.transaction_id, m.product_id, m.version, m.kind, m.available_delta, m.reserved_delta,
                m.available_after, m.reserved_after, m.request_id, m.reservation_id, m.order_id, m.reason,
                inventory_micros_v1(m.occurred_at)
            FROM inventory_movements m
            WHERE (m.transaction_id, m.product_id, m.version) > (after_transaction, after_product, after_version)
                AND m.transaction_id < pg_snapshot_xmin(pg_current_snapshot())
            ORDER BY m.transaction_id, m.product_id, m.version
            LIMIT rows_max
        ) looked_at
        WHERE products IS NULL OR looked_at.number = rows_max
            OR looked_at.product_id IN (SELECT unnest(products))
    ) page ON true
    ORDER BY page.number;
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
