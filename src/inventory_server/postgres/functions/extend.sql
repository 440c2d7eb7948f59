-- Gives holds more time: each lasts `ttls` from now, but is never shortened nor lasts longer than `life_max_us` in all.
-- `holds` are distinct; `ttls`, `reasons` (which say the ttl in the ledger), `requests` and, where they extend whole
-- orders, `lines`, which number the holds of one request, go with them. A caller that has locked the holds and their stock
-- rows already passes the moment at which it looked at them.
-- Returns a row per item, in order: its outcome (DONE, REPLAYED, CONFLICT, NOT_FOUND, or RELEASED or DEDUCTED where it
-- has ended or expired), and the hold.
CREATE OR REPLACE FUNCTION inventory_extend_v2(
    holds uuid[], ttls bigint[], reasons text[], requests uuid[], life_max_us bigint, lines int[] DEFAULT NULL,
    moment timestamptz DEFAULT NULL
)
RETURNS TABLE (outcome text, product_id text, order_id text, quantity bigint, status text, release_reason text,
    expires_us bigint, created_us bigint, updated_us bigint)
LANGUAGE plpgsql
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    PERFORM FROM inventory_reservations r WHERE r.reservation_id = ANY (holds) ORDER BY r.reservation_id FOR UPDATE;
    PERFORM FROM inventory_stock s
    WHERE s.product_id IN (
        SELECT r.product_id FROM inventory_reservations r WHERE r.reservation_id = ANY (holds)
    )
    ORDER BY s.product_id FOR UPDATE;

    moment := coalesce(moment, clock_timestamp());

    RETURN QUERY
    WITH asked AS MATERIALIZED (
        SELECT i.no, i.reservation_id, i.request_id, coalesce(i.line, 0) AS line, i.reason, r.product_id, r.order_id, r.quantity, r.status,
            r.release_reason, r.created_at, r.updated_at, r.expires_at,
            r.status = 'RESERVED' AND r.expires_at <= moment AS expired,
            greatest(r.expires_at, least(moment + i.ttl_us * interval '1 microsecond',
                r.created_at + life_max_us * interval '1 microsecond')) AS later,
            m.request_id IS NOT NULL AS known,
            m.kind = 'EXTEND' AND m.reservation_id = i.reservation_id AND m.reason = i.reason AS same,
            m.expires_at AS known_expires_at, m.occurred_at AS known_at
        FROM unnest(holds, ttls, reasons, requests, lines)
            WITH ORDINALITY AS i (reservation_id, ttl_us, reason, request_id, line, no)
        LEFT JOIN inventory_reservations r USING (reservation_id)
        LEFT JOIN inventory_movements m ON m.request_id = i.request_id AND m.line = coalesce(i.line, 0)
    ), extended AS (
        UPDATE inventory_reservations r
        SET expires_at = a.later, tidy_at = a.later, updated_at = moment
        FROM asked a
        WHERE r.reservation_id = a.reservation_id AND a.status = 'RESERVED' AND NOT a.expired AND NOT a.known
        RETURNING r.reservation_id
    ), numbered AS (
        SELECT a.*, row_number() OVER (PARTITION BY a.product_id ORDER BY a.no) AS step
        FROM asked a JOIN extended e USING (reservation_id)
    ), counted AS (
        UPDATE inventory_stock s
        SET version = s.version + n.steps, updated_at = moment
        FROM (SELECT product_id, max(step) AS steps FROM numbered GROUP BY product_id) n
        WHERE s.product_id = n.product_id
        RETURNING s.product_id, s.version - n.steps AS version, s.available_quantity, s.reserved_quantity
    ), ledger AS (
        INSERT INTO inventory_movements (product_id, version, kind, available_delta, reserved_delta, available_after,
            reserved_after, request_id, line, reservation_id, order_id, reason, expires_at, occurred_at)
        SELECT n.product_id, c.version + n.step, 'EXTEND', 0, 0, c.available_quantity, c.reserved_quantity,
            n.request_id, n.line, n.reservation_id, n.order_id, n.reason, n.later, moment
        FROM numbered n JOIN counted c USING (product_id)
    )
    SELECT CASE WHEN a.status IS NULL THEN 'NOT_FOUND'
                WHEN a.known THEN CASE WHEN a.same THEN 'REPLAYED' ELSE 'CONFLICT' END
                WHEN a.expired THEN 'RELEASED'
                WHEN a.status <> 'RESERVED' THEN a.status
                ELSE 'DONE' END,
        a.product_id, a.order_id, a.quantity, CASE WHEN a.known THEN 'RESERVED' ELSE a.status END,
        CASE WHEN a.known THEN NULL WHEN a.expired THEN 'EXPIRED' ELSE a.release_reason END,
        inventory_micros_v1(CASE WHEN a.known THEN a.known_expires_at ELSE a.later END),
        inventory_micros_v1(a.created_at),
        inventory_micros_v1(CASE WHEN a.known THEN a.known_at ELSE moment END)
    FROM asked a
    ORDER BY a.no;
END
$$;
