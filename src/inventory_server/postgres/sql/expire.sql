-- Releases holds that have expired. Many rows: one per hold looked at.
SELECT outcome, reservation_id::text, product_id, quantity, reserved FROM inventory_expire_v1(%s::int)
