-- Writers that looked at the same moment whether a reader sleeps took one another for a sleeper, and then committed one
-- by one because they notified: the more sessions, the oftener.
--
-- A look is the exclusive lock, taken and given back; a sleeper holds the shared one. So where not even the shared lock
-- is to be had, somebody else is looking, and nobody sleeps.
CREATE OR REPLACE TRIGGER inventory_movements_feed AFTER INSERT ON inventory_movements
FOR EACH STATEMENT
WHEN (CASE
    WHEN pg_try_advisory_lock(9142205142015183) THEN NOT pg_advisory_unlock(9142205142015183)
    WHEN pg_try_advisory_lock_shared(9142205142015183) THEN pg_advisory_unlock_shared(9142205142015183)
    ELSE false
END)
EXECUTE FUNCTION inventory_feed_notify();
