-- A reserve that falls short looks for expired holds, and the index leads it first to the entries of all that have ended:
-- while a transaction reads for long, VACUUM removes none of them, and each refusal took longer than the one before.
--
-- So each product tells up to when no expired hold of it is left; a look begins there. It is set under the lock of the
-- stock row, under which holds are made too.
ALTER TABLE inventory_stock ADD COLUMN tidied_until timestamptz;
