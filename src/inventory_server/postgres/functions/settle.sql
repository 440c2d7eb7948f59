-- Ends holds: each item RELEASEs, DEDUCTs, EXPIREs or REACQUIREs one (deducts it, from the available quantity where
-- it has expired). `actions`, `requests` and, where they settle whole orders, `lines`, which number the holds of one
-- request, go with `holds`. Where `careful` is set, holds and requests may stand there more than once: each item finds
-- what those before it left. Otherwise they are distinct, but for the requests of whole orders.
-- Locks the holds in the order of their ids, then their stock rows in the order of the products; a caller that has
-- locked both already passes the moment at which it looked at them.
--
-- Returns a row per item, in order: its outcome (DONE, REPLAYED, CONFLICT, NOT_FOUND, RELEASED or DEDUCTED where it
-- was so already, SHORT where too little is available, INCONSISTENT where the stock row holds too little), the hold as
-- it is now, and the balances where they are what is wrong. A hold that has expired is released, unless reacquired.
CREATE OR REPLACE FUNCTION inventory_settle_v2(
    holds uuid[], actions text[], requests uuid[], careful boolean, lines int[] DEFAULT NULL,
    moment timestamptz DEFAULT NULL
)
RETURNS TABLE (outcome text, product_id text, order_id text, quantity bigint, status text, release_reason text,
    expires_us bigint, created_us bigint, updated_us bigint, available bigint, reserved bigint)
LANGUAGE plpgsql
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    items      int := cardinality(holds);
    owners     text[];         -- product, by item
    orders     text[];
    quantities bigint[];
    statuses   text[];
    reasons    text[];
    expiries   timestamptz[];
    createds   timestamptz[];
    updateds   timestamptz[];
    enders     uuid[];
    places     int[];          -- number of the product, by item
    products   text[];
    balances   bigint[];
    held       bigint[];
    versions   bigint[];
    kinds      text[]   := array_fill(NULL::text, ARRAY[cardinality(holds)]);
    outcomes   text[]   := kinds;
    avails     bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(holds)]);
    reserveds  bigint[] := avails;
    numbers    bigint[] := avails;
    written    text[];         -- as kinds, but one per hold
    used       uuid[];         -- requests that have made another movement, as far as that is known beforehand
    earlier    int[];          -- the item before with the same hold
    prior      int;
    p          int;
    kind       text;
BEGIN
    SELECT array_agg(r.product_id ORDER BY i.no), array_agg(r.order_id ORDER BY i.no),
           array_agg(r.quantity ORDER BY i.no), array_agg(r.status ORDER BY i.no),
           array_agg(r.release_reason ORDER BY i.no), array_agg(r.expires_at ORDER BY i.no),
           array_agg(r.created_at ORDER BY i.no), array_agg(r.updated_at ORDER BY i.no),
           array_agg(r.ended_by ORDER BY i.no)
    INTO owners, orders, quantities, statuses, reasons, expiries, createds, updateds, enders
    FROM unnest(holds) WITH ORDINALITY AS i (reservation_id, no)
    LEFT JOIN (
        SELECT * FROM inventory_reservations h WHERE h.reservation_id = ANY (holds)
        ORDER BY h.reservation_id FOR UPDATE
    ) r USING (reservation_id);

    SELECT array_agg(o.place ORDER BY o.no), array_agg(DISTINCT o.product_id ORDER BY o.product_id)
    INTO places, products
    FROM (
        SELECT u.no, u.product_id, dense_rank() OVER (ORDER BY u.product_id) AS place
        FROM unnest(owners) WITH ORDINALITY AS u (product_id, no)
    ) o;

    SELECT array_agg(s.available_quantity ORDER BY p.no), array_agg(s.reserved_quantity ORDER BY p.no),
           array_agg(s.version ORDER BY p.no)
    INTO balances, held, versions
    FROM unnest(products) WITH ORDINALITY AS p (product_id, no)
    LEFT JOIN (
        SELECT k.product_id, k.available_quantity, k.reserved_quantity, k.version
        FROM inventory_stock k WHERE k.product_id = ANY (products) ORDER BY k.product_id FOR UPDATE
    ) s USING (product_id);

    -- The index would refuse them too, but the whole batch with them.
    IF lines IS NULL THEN
        SELECT array_agg(m.request_id) INTO used FROM inventory_movements m WHERE m.request_id = ANY (requests);
    END IF;

    IF careful THEN
        SELECT array_agg(e.prior ORDER BY e.no) INTO earlier
        FROM (
            SELECT i.no, lag(i.no) OVER (PARTITION BY i.hold ORDER BY i.no) AS prior
            FROM unnest(holds) WITH ORDINALITY AS i (hold, no)
        ) e;
    END IF;

    -- The clock is read under the locks: a wait for them must not carry a hold past its expiry.
    moment := coalesce(moment, clock_timestamp());

    FOR item IN 1 .. items LOOP
        p := places[item];
        IF careful AND earlier[item] IS NOT NULL THEN
            prior := earlier[item];
            statuses[item] := statuses[prior];
            reasons[item] := reasons[prior];
            enders[item] := enders[prior];
            updateds[item] := updateds[prior];
        END IF;
        IF statuses[item] IS NULL THEN
            outcomes[item] := 'NOT_FOUND';
        ELSIF statuses[item] = 'RESERVED' THEN
            kind := CASE WHEN actions[item] = 'REACQUIRE' THEN 'DEDUCT'
                WHEN expiries[item] <= moment THEN 'EXPIRE' ELSE actions[item] END;
            IF held[p] IS NULL OR held[p] < quantities[item] THEN
                outcomes[item] := 'INCONSISTENT';
                reserveds[item] := coalesce(held[p], 0);
            ELSIF kind <> 'EXPIRE' AND requests[item] = ANY (used) THEN
                outcomes[item] := 'CONFLICT';
            ELSE
                held[p] := held[p] - quantities[item];
                IF kind = 'DEDUCT' THEN
                    statuses[item] := 'DEDUCTED';
                ELSE
                    balances[p] := balances[p] + quantities[item];
                    statuses[item] := 'RELEASED';
                    reasons[item] := CASE kind WHEN 'EXPIRE' THEN 'EXPIRED' ELSE 'REQUESTED' END;
                END IF;
                outcomes[item] := CASE WHEN kind = 'EXPIRE' AND actions[item] <> 'EXPIRE' THEN 'RELEASED'
                    ELSE 'DONE' END;
                kinds[item] := kind;
            END IF;
        ELSIF enders[item] = requests[item] THEN
            outcomes[item] := CASE WHEN (actions[item] IN ('DEDUCT', 'REACQUIRE')) = (statuses[item] = 'DEDUCTED')
                THEN 'REPLAYED' ELSE 'CONFLICT' END;
        ELSIF actions[item] = 'REACQUIRE' AND reasons[item] = 'EXPIRED' THEN
            IF requests[item] = ANY (used) THEN
                outcomes[item] := 'CONFLICT';
            ELSIF balances[p] >= quantities[item] THEN
                balances[p] := balances[p] - quantities[item];
                statuses[item] := 'DEDUCTED';
                reasons[item] := NULL;
                outcomes[item] := 'DONE';
                kinds[item] := 'REACQUIRE';
            ELSE
                outcomes[item] := 'SHORT';
                avails[item] := balances[p];
            END IF;
        ELSE
            outcomes[item] := statuses[item];
        END IF;
        IF kinds[item] IS NOT NULL THEN
            versions[p] := versions[p] + 1;
            updateds[item] := moment;
            IF kinds[item] <> 'EXPIRE' THEN
                enders[item] := CASE WHEN lines IS NULL THEN requests[item]
                    ELSE inventory_order_ender_v1(requests[item]) END;
                IF careful THEN
                    used := used || requests[item];
                END IF;
            END IF;
            avails[item] := balances[p];
            reserveds[item] := held[p];
            numbers[item] := versions[p];
        END IF;
    END LOOP;

    written := kinds;
    IF careful THEN
        FOR item IN 1 .. items LOOP
            prior := earlier[item];
            IF prior IS NOT NULL THEN
                written[item] := coalesce(written[item], written[prior]);
                written[prior] := NULL;
            END IF;
        END LOOP;
    END IF;

    UPDATE inventory_reservations r
    SET status = c.status, release_reason = c.reason, updated_at = moment, ended_by = c.ended_by
    FROM unnest(holds, written, statuses, reasons, enders) AS c (reservation_id, kind, status, reason, ended_by)
    WHERE r.reservation_id = c.reservation_id AND c.kind IS NOT NULL;

    UPDATE inventory_stock s
    SET available_quantity = c.available, reserved_quantity = c.reserved, version = c.version, updated_at = moment
    FROM unnest(products, balances, held, versions) AS c (product_id, available, reserved, version)
    WHERE s.product_id = c.product_id AND s.version <> c.version;

    INSERT INTO inventory_movements (product_id, version, kind, available_delta, reserved_delta, available_after,
        reserved_after, request_id, line, reservation_id, order_id, occurred_at)
    SELECT c.product_id, c.version, c.kind,
        CASE c.kind WHEN 'DEDUCT' THEN 0 WHEN 'REACQUIRE' THEN -c.quantity ELSE c.quantity END,
        CASE c.kind WHEN 'REACQUIRE' THEN 0 ELSE -c.quantity END,
        c.available, c.reserved, CASE WHEN c.kind <> 'EXPIRE' THEN c.request_id END, coalesce(c.line, 0),
        c.reservation_id, c.order_id, moment
    FROM unnest(holds, kinds, owners, orders, quantities, avails, reserveds, numbers, requests, lines)
        AS c (reservation_id, kind, product_id, order_id, quantity, available, reserved, version, request_id, line)
    WHERE c.kind IS NOT NULL;

    RETURN QUERY
    SELECT c.outcome, c.product_id, c.order_id, c.quantity, c.status, c.reason, inventory_micros_v1(c.expires_at),
        inventory_micros_v1(c.created_at), inventory_micros_v1(c.updated_at), c.available, c.reserved
    FROM unnest(outcomes, owners, orders, quantities, statuses, reasons, expiries, createds, updateds, avails, reserveds)
        AS c (outcome, product_id, order_id, quantity, status, reason, expires_at, created_at, updated_at, available,
            reserved);
END
$$;
