-- Gives every hold of orders that is RESERVED more time, as inventory_extend_v2 does, or, where one of an order's holds
-- has expired and was not replaced (see inventory_order_holds_v1), none of them. `orders` are distinct; `ttls`, `reasons` (which say
-- the ttl in the ledger, and that it was an order's) and `requests` go with them.
--
-- Returns rows for each order: its number and outcome (DONE, REPLAYED, CONFLICT, NOT_FOUND, TOO_LARGE where it ever had
-- more than 1000 holds, RELEASED or DEDUCTED where it was so already), and its holds that got more time, or the one that
-- is to blame.
CREATE OR REPLACE FUNCTION inventory_extend_orders_v1(
    orders text[], ttls bigint[], reasons text[], requests uuid[], life_max_us bigint
)
RETURNS TABLE (no bigint, outcome text, reservation_id uuid, product_id text, order_id text, quantity bigint,
    status text, release_reason text, expires_us bigint, created_us bigint, updated_us bigint)
LANGUAGE plpgsql
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    moment  timestamptz;
    bounded text[];  -- the orders whose holds can be locked at once without holding up the others for long
    all_ids uuid[];
    nos     bigint[];  -- of each hold: the number of its order, and how it stands
    ids     uuid[];
    states  text[];
    decided text[];
    blamed  uuid[];
BEGIN
    SELECT * INTO bounded, all_ids FROM inventory_lock_orders_v1(orders);
    moment := clock_timestamp();
    SELECT array_agg(h.no), array_agg(h.reservation_id), array_agg(h.state) INTO nos, ids, states
    FROM inventory_order_holds_v1(orders, NULL, requests, all_ids, moment) h;

    WITH judged AS (
        SELECT o.no,
            CASE WHEN o.order_id <> ALL (bounded) THEN 'TOO_LARGE'
                WHEN count(h.reservation_id) = 0 THEN 'NOT_FOUND'
                WHEN m.request_id IS NOT NULL THEN
                    CASE WHEN m.kind = 'EXTEND' AND m.order_id = o.order_id AND m.reason = o.reason THEN 'REPLAYED'
                        ELSE 'CONFLICT' END
                WHEN bool_or(h.state IN ('LATE', 'LOST')) THEN 'RELEASED'
                WHEN bool_or(h.state = 'LIVE') THEN 'DONE'
                WHEN bool_or(h.state = 'SOLD') THEN 'DEDUCTED'
                ELSE 'RELEASED' END AS outcome,
            (array_agg(h.reservation_id ORDER BY
                CASE WHEN h.state IN ('LATE', 'LOST') THEN 0 WHEN h.state = 'SOLD' THEN 1 ELSE 2 END, h.reservation_id
            ))[1] AS blamed
        FROM unnest(orders, reasons, requests) WITH ORDINALITY AS o (order_id, reason, request_id, no)
        LEFT JOIN unnest(nos, ids, states) AS h (no, reservation_id, state) ON h.no = o.no
        LEFT JOIN inventory_movements m ON m.request_id = o.request_id AND m.line = 0
        GROUP BY o.no, o.order_id, o.reason, m.request_id, m.kind, m.order_id, m.reason
    )
    SELECT array_agg(j.outcome ORDER BY j.no), array_agg(j.blamed ORDER BY j.no) INTO decided, blamed FROM judged j;

    PERFORM inventory_extend_v2(
        array_agg(c.reservation_id), array_agg(ttls[c.no]), array_agg(reasons[c.no]), array_agg(requests[c.no]),
        life_max_us, array_agg(c.line), moment
    )
    FROM (
        SELECT h.no, h.reservation_id,
            (row_number() OVER (PARTITION BY h.no ORDER BY h.reservation_id))::int - 1 AS line
        FROM unnest(nos, ids, states) AS h (no, reservation_id, state)
        WHERE h.state = 'LIVE' AND decided[h.no] = 'DONE'
    ) c
    HAVING count(*) > 0;

    RETURN QUERY
    SELECT o.no, decided[o.no], r.reservation_id, r.product_id, r.order_id, r.quantity,
        -- What was told is told again, whatever has become of the hold since.
        CASE WHEN x.expired THEN 'RELEASED' WHEN m.request_id IS NOT NULL THEN 'RESERVED' ELSE r.status END,
        CASE WHEN x.expired THEN 'EXPIRED' WHEN m.request_id IS NULL THEN r.release_reason END,
        inventory_micros_v1(coalesce(m.expires_at, r.expires_at)), inventory_micros_v1(r.created_at),
        inventory_micros_v1(coalesce(m.occurred_at, r.updated_at))
    FROM unnest(orders, requests) WITH ORDINALITY AS o (order_id, request_id, no)
    LEFT JOIN inventory_movements m ON m.request_id = o.request_id AND decided[o.no] IN ('DONE', 'REPLAYED')
    LEFT JOIN inventory_reservations r ON r.reservation_id = coalesce(
        m.reservation_id, CASE WHEN decided[o.no] NOT IN ('TOO_LARGE', 'NOT_FOUND') THEN blamed[o.no] END
    )
    CROSS JOIN LATERAL (
        SELECT m.request_id IS NULL AND r.status = 'RESERVED' AND r.expires_at <= moment AS expired
    ) x
    ORDER BY o.no, r.reservation_id;
END
$$;
