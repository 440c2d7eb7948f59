-- Reads a page of the ledger of all products after a position. Many rows: one per movement that is wanted.
SELECT known, number, transaction_id::text, product_id, version, kind, available_delta, reserved_delta,
    available_after, reserved_after, request_id::text, reservation_id::text, order_id, reason, occurred_us
FROM inventory_feed_v2(%s::xid8, %s::text, %s::bigint, %s::boolean, %s::text[], %s::int)
