-- The microseconds since 1970 of a moment, as the server counts time. A double is exact to the microsecond until the
-- year 2255 and ten times cheaper than a numeric; STABLE, as date_part is, so that it can be inlined.
CREATE OR REPLACE FUNCTION inventory_micros_v1(moment timestamptz) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (date_part('epoch', moment) * 1000000)::bigint;
