-- Makes the holds of a batch of orders: each order gets all its lines or none, in the order of arrival.
--
-- `products` are distinct. Every other array has one element per line; the lines of one order stand together, and
-- `line_last` gives the number of the last one. A hold's id derives from its request's, so that a replay is found by
-- it. Where `careful` is set, an order whose request id made something else, or an order before it in the batch, is a
-- CONFLICT. Otherwise it fails the whole batch: to look up each id would cost all batches 3 to 10 % more.
-- Returns a row per line, in order: its outcome (RESERVED, REPLAYED, CONFLICT or REFUSED, the same for all lines of an
-- order), when the hold was made and how long it lasts, and for an order that was refused the units of the line's
-- product that are available (null where there is no record) and those of its expired holds that were not taken back.
CREATE OR REPLACE FUNCTION inventory_reserve_v2(
    products text[], line_last int[], line_product int[], line_order_id text[], line_quantity bigint[],
    line_ttl_us bigint[], line_ttl_given boolean[], line_reservation uuid[], line_request uuid[], line_no int[],
    careful boolean
) RETURNS TABLE (outcome text, available bigint, locked bigint, created_us bigint, ttl_us bigint)
LANGUAGE plpgsql
-- What is looked up by key stays looked up by key, however small the tables were when a session first planned it; and
-- to plan anew for every batch would cost as much as to run it.
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    moment      timestamptz;
    moment_us   bigint;
    lines       int := cardinality(line_product);
    balances    bigint[];  -- available, by product
    held        bigint[];  -- reserved, by product
    versions    bigint[];
    tidied      bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(products)]);  -- units left, once looked at
    budget      int := 2000;   -- expired holds that this statement still takes back; what is left waits for the next
    outcomes    text[]   := array_fill(NULL::text, ARRAY[cardinality(line_product)]);
    avails      bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(line_product)]);
    reserveds   bigint[] := avails;
    numbers     bigint[] := avails;
    lockeds     bigint[] := avails;
    createds    bigint[];
    ttls        bigint[] := line_ttl_us;
    replays     int[];     -- of an order that was made before, by its first line: how many of its holds are there
    used        uuid[];    -- requests that have made something, as far as that is looked at
    earlier     record;
    taken       record;
    first_line  int := 1;
    last_line   int;
    line        int;
    p           int;
    short       int;       -- a product that falls short and whose expired holds nobody has looked at
    quantity    bigint;
    refused     boolean;
BEGIN
    SELECT array_agg(s.available_quantity ORDER BY p.no), array_agg(s.reserved_quantity ORDER BY p.no),
           array_agg(s.version ORDER BY p.no)
    INTO balances, held, versions
    FROM unnest(products) WITH ORDINALITY AS p (product_id, no)
    LEFT JOIN (
        SELECT k.product_id, k.available_quantity, k.reserved_quantity, k.version
        FROM inventory_stock k WHERE k.product_id = ANY (products) ORDER BY k.product_id FOR UPDATE
    ) s USING (product_id);

    -- The clock is read under the locks: a hold cannot be older than the wait for them.
    moment := clock_timestamp();
    moment_us := inventory_micros_v1(moment);
    createds := array_fill(moment_us, ARRAY[lines]);

    -- Replays are looked up under the locks too, in a new snapshot: the same request may just have been committed.
    FOR earlier IN
        SELECT l.no, l.no - l.line AS first, inventory_micros_v1(r.created_at) AS created_us, r.ttl_us,
               r.product_id = products[l.product] AND r.order_id = l.order_id AND r.quantity = l.quantity
               AND r.ttl_given = l.ttl_given AND (NOT l.ttl_given OR r.ttl_us = l.ttl_us)
               -- Of version 8 are the ids that orders derive for their holds, and those of requests that chose so: only
               -- the ledger tells whose the hold is. All others are those of the requests that made them.
               AND (substr(r.reservation_id::text, 15, 1) <> '8' OR EXISTS (
                   SELECT FROM inventory_movements m
                   WHERE m.request_id = l.request_id AND m.line = l.line AND m.reservation_id = l.reservation_id
                       AND m.kind = 'RESERVE'
               )) AS same
        FROM inventory_reservations r
        JOIN unnest(line_reservation, line_product, line_order_id, line_quantity, line_ttl_given, line_ttl_us,
             line_request, line_no)
             WITH ORDINALITY AS l (reservation_id, product, order_id, quantity, ttl_given, ttl_us, request_id, line, no)
             USING (reservation_id)
        WHERE r.reservation_id = ANY (line_reservation)
    LOOP
        replays[earlier.first] := coalesce(replays[earlier.first], 0) + earlier.same::int;
        createds[earlier.no] := earlier.created_us;
        ttls[earlier.no] := earlier.ttl_us;
    END LOOP;

    IF careful THEN
        used := ARRAY(SELECT m.request_id FROM inventory_movements m WHERE m.request_id = ANY (line_request));
    END IF;

    WHILE first_line <= lines LOOP
        last_line := line_last[first_line];
        IF replays[first_line] IS NOT NULL OR careful AND line_request[first_line] = ANY (used) THEN
            FOR line IN first_line .. last_line LOOP
                outcomes[line] := CASE WHEN replays[first_line] > last_line - first_line THEN 'REPLAYED'
                    ELSE 'CONFLICT' END;
            END LOOP;
        ELSE
            refused := false;
            short := NULL;
            FOR line IN first_line .. last_line LOOP
                p := line_product[line];
                quantity := line_quantity[line];
                IF balances[p] >= quantity THEN
                    balances[p] := balances[p] - quantity;
                    held[p] := held[p] + quantity;
                    versions[p] := versions[p] + 1;
                    outcomes[line] := 'RESERVED';
                    avails[line] := balances[p];
                    reserveds[line] := held[p];
                    numbers[line] := versions[p];
                ELSE
                    refused := true;
                    IF balances[p] IS NOT NULL AND tidied[p] IS NULL THEN
                        short := p;
                        EXIT;
                    END IF;
                END IF;
            END LOOP;
            IF refused THEN
                FOR line IN first_line .. last_line LOOP
                    IF outcomes[line] = 'RESERVED' THEN
                        p := line_product[line];
                        balances[p] := balances[p] + line_quantity[line];
                        held[p] := held[p] - line_quantity[line];
                        versions[p] := versions[p] - 1;
                        outcomes[line] := NULL;
                    END IF;
                END LOOP;
                IF short IS NOT NULL THEN
                    -- In the ledger what comes back stands before what this order takes: undone, it begins again.
                    -- However many products fall short, each gets something, and the statement ends in time.
                    taken := inventory_take_back_v2(
                        products[short], moment, balances[short], held[short], versions[short], greatest(budget / 2, 1)
                    );
                    budget := budget - taken.holds;
                    balances[short] := balances[short] + taken.units;
                    held[short] := held[short] - taken.units;
                    versions[short] := versions[short] + taken.holds;
                    tidied[short] := taken.units_left;
                    CONTINUE;
                END IF;
                FOR line IN first_line .. last_line LOOP
                    outcomes[line] := 'REFUSED';
                    avails[line] := balances[line_product[line]];
                    lockeds[line] := coalesce(tidied[line_product[line]], 0);
                END LOOP;
            ELSIF careful THEN
                used := used || line_request[first_line];
            END IF;
        END IF;
        first_line := last_line + 1;
    END LOOP;

    UPDATE inventory_stock s
    SET available_quantity = c.available, reserved_quantity = c.reserved, version = c.version, updated_at = moment
    FROM unnest(products, balances, held, versions) AS c (product_id, available, reserved, version)
    WHERE s.product_id = c.product_id AND s.version <> c.version;

    INSERT INTO inventory_reservations (reservation_id, product_id, order_id, quantity, status, ttl_us, ttl_given,
        created_at, expires_at, updated_at, tidy_at)
    SELECT l.reservation_id, products[l.product], l.order_id, l.quantity, 'RESERVED', l.ttl_us, l.ttl_given,
        moment, moment + l.ttl_us * interval '1 microsecond', moment, moment + l.ttl_us * interval '1 microsecond'
    FROM unnest(outcomes, line_reservation, line_product, line_order_id, line_quantity, line_ttl_us, line_ttl_given)
        AS l (outcome, reservation_id, product, order_id, quantity, ttl_us, ttl_given)
    WHERE l.outcome = 'RESERVED';

    INSERT INTO inventory_movements (product_id, version, kind, available_delta, reserved_delta, available_after,
        reserved_after, request_id, line, reservation_id, order_id, occurred_at)
    SELECT products[l.product], l.version, 'RESERVE', -l.quantity, l.quantity, l.available, l.reserved, l.request_id,
        l.no, l.reservation_id, l.order_id, moment
    FROM unnest(outcomes, line_product, numbers, line_quantity, avails, reserveds, line_request, line_no,
        line_reservation, line_order_id)
        AS l (outcome, product, version, quantity, available, reserved, request_id, no, reservation_id, order_id)
    WHERE l.outcome = 'RESERVED';

    RETURN QUERY SELECT * FROM unnest(outcomes, avails, lockeds, createds, ttls);
END
$$;
