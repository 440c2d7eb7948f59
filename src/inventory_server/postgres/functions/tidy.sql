-- Takes back expired holds of products that somebody wants now, some two thousand in all. Returns nothing.
CREATE OR REPLACE FUNCTION inventory_tidy_v1(products text[]) RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    stock  record;
    taken  record;
    moment timestamptz;
BEGIN
    FOR stock IN
        SELECT * FROM inventory_stock s WHERE s.product_id = ANY (products) ORDER BY s.product_id FOR UPDATE
    LOOP
        moment := clock_timestamp();
        taken := inventory_take_back_v2(stock.product_id, moment, stock.available_quantity, stock.reserved_quantity,
            stock.version, greatest(2000 / cardinality(products), 1));
        UPDATE inventory_stock s
        SET available_quantity = s.available_quantity + taken.units, reserved_quantity = s.reserved_quantity - taken.units,
            version = s.version + taken.holds, updated_at = moment
        WHERE s.product_id = stock.product_id AND taken.holds > 0;
    END LOOP;
END
$$;
