-- Tells where the feed stands now: every transaction below has ended. One row.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text
