-- Rows of the same millisecond keep their order: the twelve bits behind the milliseconds count parts of
-- one (RFC 9562 §6.2, method 3), so that the audit trail reads in the order in which it was written.
--
-- One call of the clock, in 4096ths of a millisecond, as 15 hexadecimal digits; the version goes behind
-- the first twelve, and the variant and the random part are those of a random UUID.
CREATE OR REPLACE FUNCTION new_uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT (overlay(lpad(to_hex((extract(epoch FROM strongroom_now()) * 4096000)::bigint), 15, '0')
                    PLACING '7' FROM 13 FOR 0)
            || substring(encode(uuid_send(gen_random_uuid()), 'hex') FROM 17))::uuid
$$;
