-- Five million deducted holds and their ledger, as years of trade leave them: 500 of each of the 10 000 products, in
-- the order of time, so that balances, holds and ledger agree.
BEGIN;

CREATE TEMPORARY TABLE past ON COMMIT DROP AS
SELECT product.product_id, product.version + 2 * ((no - 1) / 10000) AS version,
       product.available_quantity - (no - 1) / 10000 - 1 AS available,
       -- UUIDv7 of that moment
       (lpad(to_hex(1700000000000 + no), 12, '0') || '70008000' || lpad(to_hex(no), 12, '0'))::uuid AS id,
       (lpad(to_hex(1700000000000 + no), 12, '0') || '70009000' || lpad(to_hex(no), 12, '0'))::uuid AS deduct_id,
       to_timestamp((1700000000000 + no) / 1e3) AS at
FROM generate_series(1, 5000000) AS hold (no)
JOIN (
    SELECT product_id, version, available_quantity, row_number() OVER (ORDER BY product_id) AS place
    FROM inventory_stock WHERE product_id LIKE 'product-%'
) AS product ON product.place = 1 + (no - 1) % 10000
ORDER BY no;

-- To build an index afterwards takes a fraction of the time.
CREATE TEMPORARY TABLE rebuilt ON COMMIT DROP AS
SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
FROM pg_index
WHERE indrelid IN ('inventory_reservations'::regclass, 'inventory_movements'::regclass) AND NOT indisprimary;

DO $$
DECLARE
    index record;
BEGIN
    FOR index IN SELECT * FROM rebuilt LOOP
        EXECUTE 'DROP INDEX ' || index.name;
    END LOOP;
END
$$;

INSERT INTO inventory_reservations (reservation_id, product_id, order_id, quantity, status, ttl_us, ttl_given,
    created_at, expires_at, updated_at, tidy_at, ended_by)
SELECT id, product_id, id::text, 1, 'DEDUCTED', 600000000, false,
    at, at + interval '10 minutes', at + interval '1 minute', at + interval '10 minutes', deduct_id
FROM past;

INSERT INTO inventory_movements (product_id, version, kind, available_delta, reserved_delta, available_after,
    reserved_after, request_id, line, reservation_id, order_id, occurred_at)
SELECT past.product_id, past.version + step.no, step.kind, step.available_delta, step.reserved_delta, past.available,
    step.reserved_after, CASE step.no WHEN 1 THEN id ELSE deduct_id END, 0, id, id::text, at + step.later
FROM past
CROSS JOIN (
    VALUES (1, 'RESERVE', -1, 1, 1, interval '0'), (2, 'DEDUCT', 0, -1, 0, interval '1 minute')
) AS step (no, kind, available_delta, reserved_delta, reserved_after, later);

DO $$
DECLARE
    index record;
BEGIN
    FOR index IN SELECT * FROM rebuilt LOOP
        EXECUTE index.definition;
    END LOOP;
END
$$;

UPDATE inventory_stock
SET available_quantity = available_quantity - 500, version = version + 1000
WHERE product_id LIKE 'product-%';

COMMIT;
