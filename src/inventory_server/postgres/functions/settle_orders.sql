-- What a hold that was ended with its order says it was ended by: a replay of that request ends no hold alone, nor does
-- one that ended a hold alone end an order.
CREATE OR REPLACE FUNCTION inventory_order_ender_v1(request uuid) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN md5('order ' || request::text)::uuid;

-- Ends every hold of orders that is RESERVED, or, for a DEDUCT in which a hold is gone, none of them. A hold is gone
-- when it has expired or was released and no later hold of the order, live or sold, took its product again.
-- `orders` are distinct; `actions` (RELEASE or DEDUCT) and `requests` go with them.
--
-- Returns rows for each order: its number and outcome (DONE, REPLAYED, CONFLICT, NOT_FOUND, RELEASED or DEDUCTED where
-- it was so already, TOO_LARGE where it ever had more than 1000 holds), and its holds that were ended, or the one that
-- is to blame. Expired holds of a RELEASE are tidied up beside that. A stock row that is inconsistent fails the whole
-- statement.
CREATE OR REPLACE FUNCTION inventory_settle_orders_v1(orders text[], actions text[], requests uuid[])
RETURNS TABLE (no bigint, outcome text, reservation_id uuid, product_id text, order_id text, quantity bigint,
    status text, release_reason text, expires_us bigint, created_us bigint, updated_us bigint)
LANGUAGE plpgsql
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    moment   timestamptz;
    bounded  text[];  -- the orders whose holds can be ended at once without holding up the others for long
    all_ids  uuid[];
    targets  uuid[];
    wanted   text[];
    askers   uuid[];
    lines    int[];
    owners   bigint[];
    decided  text[];
    blamed   uuid[];
    bad      record;
BEGIN
    bounded := ARRAY(
        SELECT o.order_id FROM unnest(orders) AS o (order_id)
        WHERE 1000 >= (
            SELECT count(*) FROM (SELECT FROM inventory_reservations r WHERE r.order_id = o.order_id LIMIT 1001) h
        )
    );
    SELECT array_agg(h.reservation_id) INTO all_ids
    FROM (
        SELECT r.reservation_id FROM inventory_reservations r WHERE r.order_id = ANY (bounded)
        ORDER BY r.reservation_id FOR UPDATE
    ) h;
    PERFORM FROM inventory_stock s
    WHERE s.product_id IN (
        SELECT r.product_id FROM inventory_reservations r WHERE r.reservation_id = ANY (all_ids)
    )
    ORDER BY s.product_id FOR UPDATE;

    moment := clock_timestamp();

    WITH held AS MATERIALIZED (
        SELECT o.no, r.reservation_id, r.product_id, r.status, r.created_at,
            r.ended_by = inventory_order_ender_v1(o.request_id) AS known,
            r.status = 'RESERVED' AND r.expires_at > moment AS live, r.status = 'RESERVED' AS open
        FROM unnest(orders, actions, requests) WITH ORDINALITY AS o (order_id, action, request_id, no)
        JOIN inventory_reservations r ON r.order_id = o.order_id
        WHERE r.reservation_id = ANY (all_ids)
    ), gone AS (
        SELECT h.no, h.reservation_id FROM held h
        WHERE NOT h.live AND h.status <> 'DEDUCTED' AND NOT EXISTS (
            SELECT FROM held l
            WHERE l.no = h.no AND l.product_id = h.product_id AND l.created_at > h.created_at
                AND (l.live OR l.status = 'DEDUCTED')
        )
    ), judged AS (
        SELECT o.no, o.action, o.request_id,
            CASE WHEN o.order_id <> ALL (bounded) THEN 'TOO_LARGE'
                WHEN count(h.reservation_id) = 0 THEN 'NOT_FOUND'
                WHEN bool_or(h.known) THEN
                    CASE WHEN bool_or(h.known AND h.status = CASE o.action WHEN 'DEDUCT' THEN 'DEDUCTED'
                        ELSE 'RELEASED' END) THEN 'REPLAYED' ELSE 'CONFLICT' END
                WHEN bool_or(h.live) AND (o.action = 'RELEASE' OR g.first IS NULL) THEN 'DONE'
                WHEN g.first IS NOT NULL THEN 'RELEASED'
                ELSE 'DEDUCTED' END AS outcome,
            coalesce(g.first, min(h.reservation_id::text) FILTER (WHERE h.status = 'DEDUCTED')::uuid) AS blamed
        FROM unnest(orders, actions, requests) WITH ORDINALITY AS o (order_id, action, request_id, no)
        LEFT JOIN held h ON h.no = o.no
        LEFT JOIN (
            SELECT no, min(reservation_id::text)::uuid AS first FROM gone GROUP BY no
        ) g ON g.no = o.no
        GROUP BY o.no, o.order_id, o.action, o.request_id, g.first
    ), chosen AS (
        SELECT h.reservation_id, j.action, j.request_id, j.no,
            -- An expiry is nobody's request, and a request is looked up by its line 0.
            (row_number() OVER (PARTITION BY j.no ORDER BY h.live DESC, h.reservation_id))::int - 1 AS line
        FROM judged j JOIN held h ON h.no = j.no
        WHERE h.open AND (j.outcome = 'DONE' OR j.outcome = 'RELEASED' AND j.action = 'RELEASE')
    )
    SELECT (SELECT array_agg(j.outcome ORDER BY j.no) FROM judged j),
           (SELECT array_agg(j.blamed ORDER BY j.no) FROM judged j),
           array_agg(c.reservation_id ORDER BY c.reservation_id), array_agg(c.action ORDER BY c.reservation_id),
           array_agg(c.request_id ORDER BY c.reservation_id), array_agg(c.line ORDER BY c.reservation_id),
           array_agg(c.no ORDER BY c.reservation_id)
    INTO decided, blamed, targets, wanted, askers, lines, owners
    FROM chosen c;

    IF targets IS NOT NULL THEN
        SELECT s.* INTO bad
        FROM inventory_settle_v1(targets, wanted, askers, lines, moment) WITH ORDINALITY AS s (outcome, product_id,
            order_id, quantity, status, release_reason, expires_us, created_us, updated_us, available, reserved, place)
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
        inventory_micros_v1(r.expires_at), inventory_micros_v1(r.created_at), inventory_micros_v1(r.updated_at)
    FROM unnest(orders, requests) WITH ORDINALITY AS o (order_id, request_id, no)
    LEFT JOIN inventory_reservations r ON r.order_id = CASE WHEN decided[o.no] <> 'TOO_LARGE' THEN o.order_id END
        AND CASE
        WHEN decided[o.no] IN ('DONE', 'REPLAYED') THEN r.ended_by = inventory_order_ender_v1(o.request_id)
        ELSE r.reservation_id = blamed[o.no] END
    CROSS JOIN LATERAL (SELECT r.status = 'RESERVED' AND r.expires_at <= moment AS expired) x
    ORDER BY o.no, r.reservation_id;
END
$$;
