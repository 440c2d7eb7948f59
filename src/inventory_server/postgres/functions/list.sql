-- Listings. Each reads a page from the one index that has its rows in order, and no more of it than that: whatever the
-- planner believes about the table, which at a session's first look may be empty, and about the page's size. That is
-- why ranges are written as comparisons of rows, and ordered by all columns: another index cannot serve them. What is
-- forbidden counts as dear, so compiling the plan (jit) would seem worth its tenth of a second.

-- Reads balances in the order of the product ids, after one of them.
CREATE OR REPLACE FUNCTION inventory_list_stock_v1(after_product text, rows_max bigint)
RETURNS SETOF inventory_stock
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $$
BEGIN
    RETURN QUERY
    SELECT * FROM inventory_stock s WHERE s.product_id > after_product ORDER BY s.product_id LIMIT rows_max;
END
$$;

-- Reads balances of the shelves on which products with so many units available or fewer stand, in the order of the
-- product ids, after one of them. Those of the highest shelf may have more units than that.
CREATE OR REPLACE FUNCTION inventory_list_low_stock_v1(available_max bigint, after_product text, rows_max bigint)
RETURNS SETOF inventory_stock
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $$
BEGIN
    RETURN QUERY
    SELECT s.*
    FROM generate_series(
        0, width_bucket(available_max, '{1,2,3,6,11,21,51,101,201,501,1001,2001,5001,10001}'::bigint[])
    ) AS low (shelf)
    CROSS JOIN LATERAL (
        SELECT * FROM inventory_stock k
        WHERE (k.shelf, k.product_id) > (low.shelf::smallint, after_product) AND k.shelf <= low.shelf::smallint
        ORDER BY k.shelf, k.product_id
        LIMIT rows_max
    ) s
    ORDER BY s.product_id
    LIMIT rows_max;
END
$$;

-- Reads the holds of an order by id, after one of them or from the first on (null).
CREATE OR REPLACE FUNCTION inventory_list_order_v1(the_order text, after_id uuid, rows_max bigint)
RETURNS SETOF inventory_reservations
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $$
DECLARE
    first_id uuid := coalesce(after_id, '00000000-0000-0000-0000-000000000000');
BEGIN
    RETURN QUERY
    SELECT * FROM inventory_reservations r
    WHERE (r.order_id, r.reservation_id) >= (the_order, first_id) AND r.order_id <= the_order
        AND r.reservation_id IS DISTINCT FROM after_id
    ORDER BY r.order_id, r.reservation_id
    LIMIT rows_max;
END
$$;

-- Reads the holds of a product whose rows have one of the statuses, by id, after one of them or from the first on.
CREATE OR REPLACE FUNCTION inventory_list_product_v1(product text, statuses text[], after_id uuid, rows_max bigint)
RETURNS SETOF inventory_reservations
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $$
DECLARE
    first_id uuid := coalesce(after_id, '00000000-0000-0000-0000-000000000000');
BEGIN
    RETURN QUERY
    SELECT r.*
    FROM unnest(statuses) AS kept (status)
    CROSS JOIN LATERAL (
        SELECT * FROM inventory_reservations h
        WHERE (h.product_id, h.status, h.reservation_id) >= (product, kept.status, first_id)
            AND (h.product_id, h.status) <= (product, kept.status)
            AND h.reservation_id IS DISTINCT FROM after_id
        ORDER BY h.product_id, h.status, h.reservation_id
        LIMIT rows_max
    ) r
    ORDER BY r.reservation_id
    LIMIT rows_max;
END
$$;

-- Reads the ledger of a product backwards, from before a version.
CREATE OR REPLACE FUNCTION inventory_list_movements_v1(product text, before_version bigint, rows_max bigint)
RETURNS SETOF inventory_movements
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $$
BEGIN
    RETURN QUERY
    SELECT * FROM inventory_movements m
    WHERE (m.product_id, m.version) < (product, before_version) AND m.product_id >= product
    ORDER BY m.product_id DESC, m.version DESC
    LIMIT rows_max;
END
$$;
