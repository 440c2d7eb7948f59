-- The three tables: balances, holds and the ledger.
--
-- No foreign key leads from holds or ledger to the stock: records are never deleted, the functions check what a key
-- would check under the lock they hold anyway, and the key's share lock would cost a sixth of the throughput.

CREATE TABLE inventory_stock (
    product_id         text COLLATE "C" CONSTRAINT inventory_stock_pkey PRIMARY KEY,
    available_quantity bigint NOT NULL,
    reserved_quantity  bigint NOT NULL,
    version            bigint NOT NULL,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    -- Which shelf of the low-stock listing the product stands on: 0 units, 1, 2, up to 5, 10, 20, 50 … 10 000, or more.
    -- It changes far less often than the quantity, and while it does not the stock's updates stay out of the indexes.
    shelf              smallint NOT NULL GENERATED ALWAYS AS (width_bucket(
        available_quantity, '{1,2,3,6,11,21,51,101,201,501,1001,2001,5001,10001}'::bigint[]
    )) STORED,
    CONSTRAINT inventory_stock_product_id_length CHECK (char_length(product_id) BETWEEN 1 AND 255),
    CONSTRAINT inventory_stock_available_not_negative CHECK (available_quantity >= 0),
    CONSTRAINT inventory_stock_reserved_not_negative CHECK (reserved_quantity >= 0),
    CONSTRAINT inventory_stock_within_limit CHECK (available_quantity + reserved_quantity <= 1000000000000000),
    CONSTRAINT inventory_stock_version_positive CHECK (version >= 1)
) WITH (
    -- Room beside each row keeps its next version on the same page and out of the index (heap-only updates).
    fillfactor = 50,
    -- A hot row leaves a dead version per batch: clean up by count, not by a share of the table.
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000
);

-- Serves the low-stock listing, in the order of the product ids: a range of each shelf.
CREATE INDEX inventory_stock_low ON inventory_stock (shelf, product_id);

CREATE TABLE inventory_reservations (
    reservation_id uuid CONSTRAINT inventory_reservations_pkey PRIMARY KEY,
    product_id     text COLLATE "C" NOT NULL,
    order_id       text COLLATE "C" NOT NULL,
    quantity       bigint NOT NULL,
    status         text NOT NULL,
    release_reason text,
    -- How long the request asked to hold, and whether it said so: a replay is compared with both.
    ttl_us         bigint NOT NULL,
    ttl_given      boolean NOT NULL,
    created_at     timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    -- From when on the worker looks at the hold: its expiry, or later when its stock row was found inconsistent.
    tidy_at        timestamptz NOT NULL,
    -- The request that released or deducted it, so that its replay is known.
    ended_by       uuid,
    CONSTRAINT inventory_reservations_quantity_positive CHECK (quantity > 0),
    CONSTRAINT inventory_reservations_status_known CHECK (status IN ('RESERVED', 'RELEASED', 'DEDUCTED')),
    CONSTRAINT inventory_reservations_release_reason_known
        CHECK ((status = 'RELEASED') = (release_reason IS NOT NULL) AND release_reason IN ('REQUESTED', 'EXPIRED'))
) WITH (fillfactor = 90);

-- Serves the expiry worker: holds that are due, oldest first.
CREATE INDEX inventory_reservations_due ON inventory_reservations (tidy_at) WHERE status = 'RESERVED';

-- Serves the take-back: expired holds of one product that a reserve finds short.
CREATE INDEX inventory_reservations_expired ON inventory_reservations (product_id, expires_at)
    WHERE status = 'RESERVED';

-- Serves the holds of an order: to end them together, and to list them by id.
CREATE INDEX inventory_reservations_order ON inventory_reservations (order_id, reservation_id);

-- Serves the holds of a product by where they stand, listed by id: a range of each status.
CREATE INDEX inventory_reservations_product ON inventory_reservations (product_id, status, reservation_id);

CREATE TABLE inventory_movements (
    product_id      text COLLATE "C" NOT NULL,
    -- The version of the stock record that this movement made: 1, 2, 3 … without a gap.
    version         bigint NOT NULL,
    kind            text NOT NULL,
    available_delta bigint NOT NULL,
    reserved_delta  bigint NOT NULL,
    available_after bigint NOT NULL,
    reserved_after  bigint NOT NULL,
    request_id      uuid,
    -- Numbers the movements of one request, from 0.
    line            smallint NOT NULL,
    reservation_id  uuid,
    order_id        text COLLATE "C",
    reason          text,
    -- The hold's new expiry, for an EXTEND.
    expires_at      timestamptz,
    -- What the removed movements before a CARRY_FORWARD, and its own, add up to: see inventory_retain_v1.
    carried         jsonb,
    occurred_at     timestamptz NOT NULL,
    -- Orders the movements of all products: a reader takes those below its snapshot's xmin, since all transactions up
    -- to there have ended. It is the transaction's id, but never less than that of one that had ended before: a
    -- transaction that waits for a product's lock may be older than the one that changed the product meanwhile.
    transaction_id  xid8 NOT NULL DEFAULT greatest(
        pg_current_xact_id(), ((pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1)::text)::xid8
    ),
    -- Serves the ledger of one product, and proves that no movement is lost or doubled.
    CONSTRAINT inventory_movements_pkey PRIMARY KEY (product_id, version),
    CONSTRAINT inventory_movements_kind_known
        CHECK (kind IN ('INITIALIZE', 'ADD', 'ADJUST', 'RESERVE', 'EXTEND', 'RELEASE', 'EXPIRE', 'DEDUCT', 'REACQUIRE',
            'CARRY_FORWARD'))
);

-- Serves replays of stock changes, and refuses a request id that already made another movement.
CREATE UNIQUE INDEX inventory_movements_request_id ON inventory_movements (request_id, line)
    WHERE request_id IS NOT NULL;

-- Serves the feed: the ledger of all products after a position.
CREATE INDEX inventory_movements_feed ON inventory_movements (transaction_id, product_id, version);

CREATE FUNCTION inventory_feed_notify() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_notify('inventory_movements', '');
    RETURN NULL;
END
$$;

-- Wakes the readers of the feed. A transaction that notifies commits under a lock of the whole cluster, which takes two
-- fifths of the throughput from eight sessions: so it does it only while a reader says that it sleeps, by holding the
-- shared lock (inventory_feed_sleep_v1). Where that cannot be read for a moment, a needless notification does no harm.
CREATE TRIGGER inventory_movements_feed AFTER INSERT ON inventory_movements
FOR EACH STATEMENT
WHEN (NOT CASE WHEN pg_try_advisory_lock(9142205142015183) THEN pg_advisory_unlock(9142205142015183) ELSE false END)
EXECUTE FUNCTION inventory_feed_notify();
