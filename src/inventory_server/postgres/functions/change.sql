-- Adds to and takes from available quantities. `products` are distinct; every other array has one element per item;
-- `expected` holds the versions that the records must have, or nulls.
-- Returns a row per item, in order: its outcome (DONE, REPLAYED, CONFLICT, NOT_FOUND, VERSION where the record has
-- another version, SHORT where too little is available, LIMIT where the record would hold too much), and the balances
-- after it, or as they are where it is refused.
CREATE OR REPLACE FUNCTION inventory_change_v1(
    products text[], item_product int[], kinds text[], deltas bigint[], reasons text[], expected bigint[],
    requests uuid[], stock_max bigint
)
RETURNS TABLE (outcome text, available bigint, reserved bigint, version bigint, created_us bigint, updated_us bigint)
LANGUAGE plpgsql
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    moment    timestamptz;
    items     int := cardinality(item_product);
    balances  bigint[];
    held      bigint[];
    versions  bigint[];
    births    timestamptz[];
    outcomes  text[]        := array_fill(NULL::text, ARRAY[cardinality(item_product)]);
    avails    bigint[]      := array_fill(NULL::bigint, ARRAY[cardinality(item_product)]);
    reserveds bigint[]      := avails;
    numbers   bigint[]      := avails;
    updateds  timestamptz[] := array_fill(NULL::timestamptz, ARRAY[cardinality(item_product)]);
    earlier   record;
    p         int;
BEGIN
    SELECT array_agg(s.available_quantity ORDER BY p.no), array_agg(s.reserved_quantity ORDER BY p.no),
           array_agg(s.version ORDER BY p.no), array_agg(s.created_at ORDER BY p.no)
    INTO balances, held, versions, births
    FROM unnest(products) WITH ORDINALITY AS p (product_id, no)
    LEFT JOIN (
        SELECT * FROM inventory_stock k WHERE k.product_id = ANY (products) ORDER BY k.product_id FOR UPDATE
    ) s USING (product_id);

    moment := clock_timestamp();

    -- Under the locks, in a new snapshot: the same request may just have been committed.
    FOR earlier IN
        SELECT i.no, m.available_after, m.reserved_after, m.version, m.occurred_at,
               m.product_id = products[i.product] AND m.kind = i.kind AND m.available_delta = i.delta
               AND m.reason IS NOT DISTINCT FROM i.reason AND (i.expected IS NULL OR m.version - 1 = i.expected) AS same
        FROM inventory_movements m
        JOIN unnest(requests, item_product, kinds, deltas, reasons, expected)
             WITH ORDINALITY AS i (request_id, product, kind, delta, reason, expected, no) USING (request_id)
        WHERE m.request_id = ANY (requests) AND m.line = 0
    LOOP
        outcomes[earlier.no] := CASE WHEN earlier.same THEN 'REPLAYED' ELSE 'CONFLICT' END;
        avails[earlier.no] := earlier.available_after;
        reserveds[earlier.no] := earlier.reserved_after;
        numbers[earlier.no] := earlier.version;
        updateds[earlier.no] := earlier.occurred_at;
    END LOOP;

    FOR item IN 1 .. items LOOP
        p := item_product[item];
        IF outcomes[item] IS NULL THEN
            outcomes[item] := CASE
                WHEN versions[p] IS NULL THEN 'NOT_FOUND'
                WHEN versions[p] <> expected[item] THEN 'VERSION'
                WHEN balances[p] + deltas[item] < 0 THEN 'SHORT'
                WHEN balances[p] + held[p] + deltas[item] > stock_max THEN 'LIMIT'
                ELSE 'DONE' END;
            IF outcomes[item] = 'DONE' THEN
                balances[p] := balances[p] + deltas[item];
                versions[p] := versions[p] + 1;
                updateds[item] := moment;
            END IF;
            avails[item] := balances[p];
            reserveds[item] := held[p];
            numbers[item] := versions[p];
        END IF;
    END LOOP;

    UPDATE inventory_stock s
    SET available_quantity = c.available, version = c.version, updated_at = moment
    FROM unnest(products, balances, versions) AS c (product_id, available, version)
    WHERE s.product_id = c.product_id AND s.version <> c.version;

    INSERT INTO inventory_movements (product_id, version, kind, available_delta, reserved_delta, available_after,
        reserved_after, request_id, line, reason, occurred_at)
    SELECT products[c.product], c.version, c.kind, c.delta, 0, c.available, c.reserved, c.request_id, 0, c.reason,
        moment
    FROM unnest(outcomes, item_product, numbers, kinds, deltas, avails, reserveds, requests, reasons)
        AS c (outcome, product, version, kind, delta, available, reserved, request_id, reason)
    WHERE c.outcome = 'DONE';

    RETURN QUERY
    SELECT c.outcome, c.available, c.reserved, c.version, inventory_micros_v1(births[c.product]),
        inventory_micros_v1(c.updated_at)
    FROM unnest(outcomes, avails, reserveds, numbers, item_product, updateds)
        AS c (outcome, available, reserved, version, product, updated_at);
END
$$;
