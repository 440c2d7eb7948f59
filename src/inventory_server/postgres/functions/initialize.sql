-- Creates the records of distinct products. One that exists stays as it is.
-- Returns a row per item, in order: whether it was created (by this request, perhaps earlier), whether its request id
-- belongs to another request, and the balances: as they were created, or as they are.
CREATE OR REPLACE FUNCTION inventory_initialize_v1(products text[], quantities bigint[], requests uuid[])
RETURNS TABLE (outcome text, available bigint, reserved bigint, version bigint, created_us bigint, updated_us bigint)
LANGUAGE plpgsql
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    moment timestamptz := clock_timestamp();
    known  text[] := ARRAY(SELECT s.product_id FROM inventory_stock s WHERE s.product_id = ANY (products));
    -- The index would refuse them too, but the whole batch with them.
    used   uuid[] := ARRAY(SELECT m.request_id FROM inventory_movements m WHERE m.request_id = ANY (requests));
BEGIN
    WITH created AS (
        INSERT INTO inventory_stock AS s (product_id, available_quantity, reserved_quantity, version, created_at,
            updated_at)
        SELECT i.product_id, i.quantity, 0, 1, moment, moment
        FROM (
            -- Of those that share a request id the first one gets it.
            SELECT DISTINCT ON (n.request_id) n.product_id, n.quantity
            FROM unnest(products, quantities, requests) WITH ORDINALITY AS n (product_id, quantity, request_id, no)
            WHERE n.product_id <> ALL (known) AND n.request_id <> ALL (used)
            ORDER BY n.request_id, n.no
        ) i
        ORDER BY i.product_id
        ON CONFLICT (product_id) DO NOTHING
        RETURNING s.product_id
    )
    INSERT INTO inventory_movements (product_id, version, kind, available_delta, reserved_delta, available_after,
        reserved_after, request_id, line, occurred_at)
    SELECT i.product_id, 1, 'INITIALIZE', i.quantity, 0, i.quantity, 0, i.request_id, 0, moment
    FROM unnest(products, quantities, requests) AS i (product_id, quantity, request_id)
    JOIN created USING (product_id);

    RETURN QUERY
    SELECT CASE WHEN s.product_id IS NULL THEN 'CONFLICT'
                WHEN m.request_id IS NULL THEN 'EXISTS'
                WHEN m.kind = 'INITIALIZE' AND m.product_id = i.product_id AND m.available_delta = i.quantity
                THEN 'CREATED' ELSE 'CONFLICT' END,
           coalesce(m.available_after, s.available_quantity), coalesce(m.reserved_after, s.reserved_quantity),
           coalesce(m.version, s.version), inventory_micros_v1(s.created_at),
           inventory_micros_v1(coalesce(m.occurred_at, s.updated_at))
    FROM unnest(products, quantities, requests) WITH ORDINALITY AS i (product_id, quantity, request_id, no)
    LEFT JOIN inventory_stock s USING (product_id)
    LEFT JOIN inventory_movements m ON m.request_id = i.request_id AND m.line = 0
    ORDER BY i.no;
END
$$;
