-- Events that can be followed, and by whom they were caused.

-- A UUIDv7 of a moment, for rows that a statement makes by itself.
create function new_uuid_v7(at timestamptz) returns uuid
language sql volatile parallel safe
return (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7'
        || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid;

-- `tx` is the transaction that wrote the event. Those below the oldest that is still open are complete and stay so: in the
-- order of `tx` and `id` a follower misses nothing that is committed late, and the writers wait for nobody.
alter table events
    add column actor text not null default '',
    add column tx xid8 not null default pg_current_xact_id();
create index events_following on events (org_id, tx, id);
create index events_listing on events (org_id, at desc, id desc);
drop index events_org;
