-- Releases up to `holds_max` holds that have expired, oldest first; those that somebody else has locked are theirs.
-- Looks at those that came due in the last `reach` seconds, or at all where that is null.
-- A hold whose stock row is inconsistent is set aside for a minute, so that it never stands in the way of others.
-- Returns a row per hold it looked at.
CREATE OR REPLACE FUNCTION inventory_expire_v2(holds_max int, reach float8)
RETURNS TABLE (outcome text, reservation_id uuid, product_id text, quantity bigint, reserved bigint)
LANGUAGE plpgsql
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    -- Read once: compared with a clock that goes on, each active hold would be looked at, not those due alone.
    moment       timestamptz := clock_timestamp();
    since        timestamptz := coalesce(moment - make_interval(secs => reach), '-infinity');
    due          uuid[];
    outcomes     text[];
    products     text[];
    quantities   bigint[];
    reserveds    bigint[];
BEGIN
    SELECT array_agg(d.reservation_id ORDER BY d.reservation_id) INTO due
    FROM (
        SELECT r.reservation_id FROM inventory_reservations r
        WHERE r.status = 'RESERVED' AND r.tidy_at > since AND r.tidy_at <= moment
        ORDER BY r.tidy_at
        LIMIT holds_max
        FOR UPDATE SKIP LOCKED
    ) d;
    IF due IS NULL THEN
        RETURN;
    END IF;

    SELECT array_agg(s.outcome ORDER BY s.no), array_agg(s.product_id ORDER BY s.no),
           array_agg(s.quantity ORDER BY s.no), array_agg(s.reserved ORDER BY s.no)
    INTO outcomes, products, quantities, reserveds
    FROM ROWS FROM (inventory_settle_v2(
        due, array_fill('EXPIRE'::text, ARRAY[cardinality(due)]), array_fill(NULL::uuid, ARRAY[cardinality(due)]), false
    )) WITH ORDINALITY AS s (outcome, product_id, order_id, quantity, status, release_reason, expires_us, created_us,
        updated_us, available, reserved, no);

    IF 'INCONSISTENT' = ANY (outcomes) THEN
        UPDATE inventory_reservations r SET tidy_at = clock_timestamp() + interval '1 minute'
        FROM unnest(due, outcomes) AS c (reservation_id, outcome)
        WHERE r.reservation_id = c.reservation_id AND c.outcome = 'INCONSISTENT';
    END IF;

    RETURN QUERY SELECT * FROM unnest(outcomes, due, products, quantities, reserveds);
END
$$;
