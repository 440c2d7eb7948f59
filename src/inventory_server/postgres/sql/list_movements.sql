-- Lists the ledger of a product, newest first. Many rows: one per movement, up to the limit.
SELECT product_id, version, kind, available_delta, reserved_delta, available_after, reserved_after, request_id::text,
    reservation_id::text, order_id, reason, inventory_micros_v1(occurred_at)
FROM inventory_list_movements_v1(%s::text, %s::bigint, %s::bigint)
