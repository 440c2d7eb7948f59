-- Tells where the feed stands now: every transaction below the horizon has ended. One row.
SELECT horizon::text, transaction_id::text, product_id, version FROM inventory_feed_now_v1()
