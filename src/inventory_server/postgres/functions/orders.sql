-- What the functions about whole orders share.

-- What a hold that was ended with its order says it was ended by: a replay of that request ends no hold alone, nor does
-- one that ended a hold alone end an order.
CREATE OR REPLACE FUNCTION inventory_order_ender_v1(request uuid) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN md5('order ' || request::text)::uuid;

-- Locks the holds of orders, in the order of their ids, then their stock rows, in the order of the products. `bounded` are
-- the orders whose holds can be locked at once without holding up the others for long; of others none is.
CREATE OR REPLACE FUNCTION inventory_lock_orders_v1(orders text[], OUT bounded text[], OUT holds uuid[])
LANGUAGE plpgsql
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
    bounded := ARRAY(
        SELECT o.order_id FROM unnest(orders) AS o (order_id)
        WHERE 1000 >= (
            SELECT count(*) FROM (SELECT FROM inventory_reservations r WHERE r.order_id = o.order_id LIMIT 1001) h
        )
    );
    SELECT array_agg(h.reservation_id) INTO holds
    FROM (
        SELECT r.reservation_id FROM inventory_reservations r WHERE r.order_id = ANY (bounded)
        ORDER BY r.reservation_id FOR UPDATE
    ) h;
    PERFORM FROM inventory_stock s
    WHERE s.product_id IN (
        SELECT r.product_id FROM inventory_reservations r WHERE r.reservation_id = ANY (holds)
    )
    ORDER BY s.product_id FOR UPDATE;
END
$$;

-- How each hold of some orders stands at a moment: LIVE, SOLD, or gone: LATE has expired and was not tidied up, LOST was,
-- GIVEN was released by request. What was replaced is not gone, but STALE while it is RESERVED, then PAST; so is what was
-- released where `skips` says that this does not matter. Later holds of the order, live or sold, replace those that have
-- expired where they took at least as many units of the product again as were lost with them; to replace what was
-- released by request, any will do. `known` tells whether the order's request has ended the hold.
CREATE OR REPLACE FUNCTION inventory_order_holds_v1(
    orders text[], skips boolean[], requests uuid[], holds uuid[], moment timestamptz
)
RETURNS TABLE (no bigint, reservation_id uuid, product_id text, quantity bigint, state text, known boolean)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH held AS (
        SELECT o.no, o.skip, r.*, r.status = 'RESERVED' AND r.expires_at > moment AS live,
            r.ended_by = inventory_order_ender_v1(o.request_id) AS known,
            CASE WHEN r.status = 'DEDUCTED' OR r.status = 'RESERVED' AND r.expires_at > moment THEN r.quantity ELSE 0 END
                AS kept
        FROM unnest(orders, skips, requests) WITH ORDINALITY AS o (order_id, skip, request_id, no)
        JOIN inventory_reservations r ON r.order_id = o.order_id
        WHERE r.reservation_id = ANY (holds)
    ), weighed AS (
        SELECT h.*,
            sum(h.kept) OVER (PARTITION BY h.no, h.product_id ORDER BY h.created_at DESC)
                - sum(h.kept) OVER (PARTITION BY h.no, h.product_id, h.created_at) AS kept_later,
            sum(h.quantity - h.kept) OVER (PARTITION BY h.no, h.product_id, h.created_at) AS lost
        FROM held h
    )
    SELECT w.no, w.reservation_id, w.product_id, w.quantity,
        CASE WHEN w.live THEN 'LIVE'
            WHEN w.status = 'DEDUCTED' THEN 'SOLD'
            WHEN w.kept_later >= CASE w.release_reason WHEN 'REQUESTED' THEN 1 ELSE w.lost END
                THEN CASE w.status WHEN 'RESERVED' THEN 'STALE' ELSE 'PAST' END
            WHEN w.status = 'RESERVED' THEN 'LATE'
            WHEN w.release_reason = 'EXPIRED' THEN 'LOST'
            WHEN w.skip THEN 'PAST'
            ELSE 'GIVEN' END,
        coalesce(w.known, false)
    FROM weighed w;
END
$$;
