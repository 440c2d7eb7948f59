-- Has the session woken when the ledger grows, or no longer. One row.
SELECT inventory_feed_sleep_v1(%s::boolean)
