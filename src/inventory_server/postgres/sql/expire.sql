-- Releases holds that have expired, of so many seconds back or of all times. Many rows: one per hold looked at.
SELECT outcome, reservation_id::text, product_id, quantity, reserved FROM inventory_expire_v2(%s::int, %s::float8)
