-- Ends up to `holds_max` expired holds of one product, the oldest, whose stock row the caller has locked and whose
-- balances it passes in. Returns how many holds it ended, their units, and the units that expired holds still keep:
-- somebody else has locked them just now, or they were too many. A thousand holds or more are not counted: whoever
-- wants their units takes back some more then, as long as all that are reserved would do.
CREATE OR REPLACE FUNCTION inventory_take_back_v2(
    product text, moment timestamptz, available bigint, reserved bigint, version bigint, holds_max int,
    OUT holds bigint, OUT units bigint, OUT units_left bigint
)
LANGUAGE plpgsql
SET enable_seqscan = off
-- In the order of expiry only one index gives them, whose range is short; others would lead to each hold that has ended.
SET enable_sort = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    since timestamptz;
    rest  bigint;
BEGIN
    SELECT coalesce(s.tidied_until, '-infinity') INTO since FROM inventory_stock s WHERE s.product_id = product;

    WITH expired AS MATERIALIZED (
        SELECT r.reservation_id, r.quantity
        FROM inventory_reservations r
        WHERE r.product_id = product AND r.status = 'RESERVED' AND r.expires_at > since AND r.expires_at <= moment
        ORDER BY r.expires_at
        LIMIT holds_max
        FOR UPDATE SKIP LOCKED
    ), counted AS (
        SELECT e.reservation_id,
               row_number() OVER w AS holds,
               (sum(e.quantity) OVER w)::bigint AS units
        FROM expired e
        WINDOW w AS (ORDER BY e.quantity, e.reservation_id)
    ), ended AS (
        UPDATE inventory_reservations r
        SET status = 'RELEASED', release_reason = 'EXPIRED', updated_at = moment
        FROM counted c
        WHERE r.reservation_id = c.reservation_id AND c.units <= inventory_take_back_v2.reserved
        RETURNING r.reservation_id, r.order_id, r.quantity, c.holds, c.units
    ), ledger AS (
        INSERT INTO inventory_movements (product_id, version, kind, available_delta, reserved_delta,
            available_after, reserved_after, line, reservation_id, order_id, occurred_at)
        SELECT product, inventory_take_back_v2.version + e.holds, 'EXPIRE', e.quantity, -e.quantity,
            inventory_take_back_v2.available + e.units, inventory_take_back_v2.reserved - e.units,
            0, e.reservation_id, e.order_id, moment
        FROM ended e
    )
    SELECT count(*), coalesce(max(e.units), 0) INTO holds, units FROM ended e;

    SELECT count(*), CASE WHEN count(*) < 1000 THEN coalesce(sum(l.quantity), 0) ELSE reserved - units END
    INTO rest, units_left
    FROM (
        SELECT r.quantity FROM inventory_reservations r
        WHERE r.product_id = product AND r.status = 'RESERVED' AND r.expires_at > since AND r.expires_at <= moment
        ORDER BY r.expires_at
        LIMIT 1000
    ) l;

    -- A minute less, in case the clock is set back; and not each time, which would write where a refusal only reads.
    IF rest = 0 AND since < moment - interval '70 seconds' THEN
        UPDATE inventory_stock s SET tidied_until = moment - interval '1 minute' WHERE s.product_id = product;
    END IF;
END
$$;
