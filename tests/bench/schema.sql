-- What the per-request design stores: stock and holds, no ledger, and the one index that its expiry would need.
CREATE TABLE stock (
    product_id text PRIMARY KEY,
    available_quantity bigint NOT NULL CHECK (available_quantity >= 0),
    reserved_quantity bigint NOT NULL DEFAULT 0 CHECK (reserved_quantity >= 0),
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE reservations (
    reservation_id uuid PRIMARY KEY,
    product_id text NOT NULL,
    order_id text NOT NULL,
    quantity bigint NOT NULL CHECK (quantity > 0),
    status text NOT NULL DEFAULT 'RESERVED',
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX reservations_expiry ON reservations (expires_at) WHERE status = 'RESERVED';
