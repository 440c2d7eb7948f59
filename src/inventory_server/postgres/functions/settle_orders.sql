-- Ends every hold of orders that is RESERVED, or, where an order is to be sold of which a hold is gone, none of them.
-- `orders` are distinct; with them go `actions` (RELEASE; DEDUCT; or REACQUIRE, which sells what has expired too, from
-- the available quantity where it was tidied up), `skips` (whether holds that were released by request do not count as
-- gone) and `requests`.
--
-- Returns rows for each order: its number and outcome (DONE, REPLAYED, CONFLICT, NOT_FOUND, RELEASED or DEDUCTED where
-- it was so already, TOO_LARGE where it ever had more than 1000 holds, SHORT), and its holds that were ended, or the one
-- that is to blame, or for a SHORT one each product of which too little is `available` for the `quantity` it needs.
-- Expired holds of a RELEASE are tidied up beside that. A stock row that is inconsistent fails the whole statement.
CREATE OR REPLACE FUNCTION inventory_settle_orders_v2(
    orders text[], actions text[], skips boolean[], requests uuid[]
)
RETURNS TABLE (no bigint, outcome text, reservation_id uuid, product_id text, order_id text, quantity bigint,
    status text, release_reason text, expires_us bigint, created_us bigint, updated_us bigint, available bigint)
LANGUAGE plpgsql
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    moment   timestamptz;
    bounded  text[];  -- the orders whose holds can be ended at once without holding up the others for long
    all_ids  uuid[];
    nos      bigint[];  -- of each hold: the number of its order, and how it stands
    ids      uuid[];
    owners   text[];    -- its product
    units    bigint[];
    states   text[];
    knowns   boolean[];
    targets  uuid[];
    wanted   text[];
    askers   uuid[];
    lines    int[];
    decided  text[];
    blamed   uuid[];
    stocks   text[];    -- products that orders want from what is available, and how much of it is left for the next one
    free     bigint[];
    short    jsonb := '{}';  -- by number of the order: its products that are short, each with what it needs and what there is
    claim    record;
    bad      record;
BEGIN
    SELECT * INTO bounded, all_ids FROM inventory_lock_orders_v1(orders);
    moment := clock_timestamp();
    SELECT array_agg(h.no), array_agg(h.reservation_id), array_agg(h.product_id), array_agg(h.quantity),
           array_agg(h.state), array_agg(h.known)
    INTO nos, ids, owners, units, states, knowns
    FROM inventory_order_holds_v1(orders, skips, requests, all_ids, moment) h;

    WITH judged AS (
        SELECT o.no,
            CASE WHEN o.order_id <> ALL (bounded) THEN 'TOO_LARGE'
                WHEN count(h.reservation_id) = 0 THEN 'NOT_FOUND'
                WHEN bool_or(h.known) THEN
                    CASE WHEN bool_or(h.known AND (h.state = 'SOLD') = (o.action <> 'RELEASE')) THEN 'REPLAYED'
                        ELSE 'CONFLICT' END
                WHEN o.action = 'DEDUCT' AND bool_or(h.state IN ('LATE', 'LOST', 'GIVEN')) THEN 'RELEASED'
                WHEN o.action = 'REACQUIRE' AND bool_or(h.state = 'GIVEN') THEN 'RELEASED'
                WHEN bool_or(h.state = 'LIVE') THEN 'DONE'
                WHEN o.action = 'REACQUIRE' AND bool_or(h.state IN ('LATE', 'LOST')) THEN 'DONE'
                WHEN bool_or(h.state IN ('LATE', 'LOST', 'GIVEN')) OR NOT bool_or(h.state = 'SOLD') THEN 'RELEASED'
                ELSE 'DEDUCTED' END AS outcome,
            (array_agg(h.reservation_id ORDER BY
                CASE WHEN h.state = 'GIVEN' THEN 0
                    WHEN h.state IN ('LATE', 'LOST') THEN CASE o.action WHEN 'REACQUIRE' THEN 1 ELSE 0 END
                    WHEN h.state = 'SOLD' THEN 2 ELSE 3 END, h.reservation_id))[1] AS blamed
        FROM unnest(orders, actions) WITH ORDINALITY AS o (order_id, action, no)
        LEFT JOIN unnest(nos, ids, states, knowns) AS h (no, reservation_id, state, known) ON h.no = o.no
        GROUP BY o.no, o.order_id, o.action
    )
    SELECT array_agg(j.outcome ORDER BY j.no), array_agg(j.blamed ORDER BY j.no) INTO decided, blamed FROM judged j;

    -- First come, first served: an order that finds too little leaves it for the next one.
    IF 'REACQUIRE' = ANY (actions) THEN
        SELECT array_agg(s.product_id), array_agg(s.available_quantity) INTO stocks, free
        FROM inventory_stock s WHERE s.product_id = ANY (owners);
        FOR claim IN
            SELECT c.no, jsonb_object_agg(c.product_id, c.units) AS units
            FROM (
                SELECT h.no, h.product_id, sum(h.quantity) AS units
                FROM unnest(nos, owners, units, states) AS h (no, product_id, quantity, state)
                WHERE h.state = 'LOST' AND actions[h.no] = 'REACQUIRE' AND decided[h.no] = 'DONE'
                GROUP BY h.no, h.product_id
            ) c
            GROUP BY c.no ORDER BY c.no
        LOOP
            SELECT jsonb_object_agg(p.product_id, jsonb_build_array(claim.units -> p.product_id, p.units)) AS lacking
            INTO bad
            FROM unnest(stocks, free) AS p (product_id, units)
            WHERE p.units < (claim.units ->> p.product_id)::bigint;
            IF bad.lacking IS NOT NULL THEN
                decided[claim.no] := 'SHORT';
                short := jsonb_set(short, ARRAY[claim.no::text], bad.lacking);
            ELSE
                free := ARRAY(
                    SELECT p.units - coalesce((claim.units ->> p.product_id)::bigint, 0)
                    FROM unnest(stocks, free) WITH ORDINALITY AS p (product_id, units, place) ORDER BY p.place
                );
            END IF;
        END LOOP;
    END IF;

    SELECT array_agg(c.reservation_id ORDER BY c.reservation_id), array_agg(c.action ORDER BY c.reservation_id),
           array_agg(requests[c.no] ORDER BY c.reservation_id), array_agg(c.line ORDER BY c.reservation_id)
    INTO targets, wanted, askers, lines
    FROM (
        SELECT h.no, h.reservation_id,
            -- What was replaced only expires.
            CASE WHEN h.state = 'STALE' AND actions[h.no] = 'REACQUIRE' THEN 'DEDUCT' ELSE actions[h.no] END AS action,
            -- An expiry is nobody's request, and a request is looked up by its line 0.
            (row_number() OVER (
                PARTITION BY h.no
                ORDER BY h.state = 'LIVE' OR h.state <> 'STALE' AND actions[h.no] = 'REACQUIRE' DESC, h.reservation_id
            ))::int - 1 AS line
        FROM unnest(nos, ids, states) AS h (no, reservation_id, state)
        WHERE h.state IN ('LIVE', 'LATE', 'STALE')
                AND (decided[h.no] = 'DONE' OR decided[h.no] = 'RELEASED' AND actions[h.no] = 'RELEASE')
            OR h.state = 'LOST' AND decided[h.no] = 'DONE' AND actions[h.no] = 'REACQUIRE'
    ) c;

    IF targets IS NOT NULL THEN
        SELECT s.* INTO bad
        FROM inventory_settle_v2(targets, wanted, askers, false, lines, moment) WITH ORDINALITY AS s (outcome,
            product_id, order_id, quantity, status, release_reason, expires_us, created_us, updated_us, available,
            reserved, place)
        WHERE s.outcome NOT IN ('DONE', 'RELEASED') LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'the stock row of product % is inconsistent', bad.product_id
                USING ERRCODE = 'check_violation', CONSTRAINT = 'inventory_order_consistent',
                    DETAIL = json_build_array(targets[bad.place], bad.product_id, bad.quantity, bad.reserved);
        END IF;
    END IF;

    RETURN QUERY
    SELECT o.no, decided[o.no], r.reservation_id, r.product_id, r.order_id, r.quantity,
        CASE WHEN x.expired THEN 'RELEASED' ELSE r.status END, CASE WHEN x.expired THEN 'EXPIRED' ELSE r.release_reason END,
        inventory_micros_v1(r.expires_at), inventory_micros_v1(r.created_at), inventory_micros_v1(r.updated_at),
        NULL::bigint
    FROM unnest(orders, requests) WITH ORDINALITY AS o (order_id, request_id, no)
    LEFT JOIN inventory_reservations r ON r.order_id = CASE WHEN decided[o.no] <> 'TOO_LARGE' THEN o.order_id END
        AND CASE
        WHEN decided[o.no] IN ('DONE', 'REPLAYED') THEN r.ended_by = inventory_order_ender_v1(o.request_id)
        ELSE r.reservation_id = blamed[o.no] END
    CROSS JOIN LATERAL (SELECT r.status = 'RESERVED' AND r.expires_at <= moment AS expired) x
    WHERE decided[o.no] <> 'SHORT'
    UNION ALL
    SELECT s.no::bigint, 'SHORT', NULL, p.product_id, orders[s.no::bigint], (p.numbers ->> 0)::bigint, NULL, NULL, NULL,
        NULL, NULL, (p.numbers ->> 1)::bigint
    FROM jsonb_each(short) AS s (no, products) CROSS JOIN jsonb_each(s.products) AS p (product_id, numbers)
    ORDER BY 1, 3, 4;
END
$$;
