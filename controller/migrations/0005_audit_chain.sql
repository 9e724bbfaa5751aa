-- An audit that nobody can quietly change: entries are numbered and hashed one over the other, and signed now and then.
--
-- Entries, chain and checkpoints can be added to and read by the controller's roles, not changed.

-- Entries that are not chained yet, written with them.
create table audit_queue (
    org_id uuid not null,
    at timestamptz not null,
    entry_id uuid not null,
    primary key (org_id, at, entry_id)
);

-- The number of each entry in its organization, from 1 and without a hole, and the hash over it and its predecessor's hash.
-- `at` is the entry's. That no number is given twice is the sequencer's lock: an index over partitions cannot say it.
create table audit_chain (
    org_id uuid not null,
    seq bigint not null check (seq > 0),
    entry_id uuid not null,
    at timestamptz not null,
    hash bytea not null,
    primary key (at, entry_id)
) partition by range (at);
create index audit_chain_org on audit_chain (org_id, seq);

-- What a controller signed: that the entry with this number had this hash. Number 0 is the beginning, before any entry.
create table audit_checkpoints (
    org_id uuid not null,
    seq bigint not null check (seq >= 0),
    hash bytea not null,
    at timestamptz not null,
    -- Exactly the bytes that are signed.
    payload bytea not null,
    signature bytea not null,
    certificate bytea not null,
    primary key (org_id, seq)
);

-- Alarms of agents that saw the audit go back. An alarm is told again with every session; it gets one entry.
create table audit_alarms (
    id uuid primary key,
    org_id uuid not null,
    agent_id uuid not null,
    at timestamptz not null
);

-- Up to which number the entries were handed to a sink outside of the database.
create table audit_forwarded (
    sink text not null,
    org_id uuid not null,
    seq bigint not null,
    primary key (sink, org_id)
);

-- Makes the weekly partitions that cover `at` and the `ahead` weeks behind it. Safe to call from several at once.
create or replace function ensure_partitions(at timestamptz, ahead integer) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    week timestamptz;
    suffix text;
    name text;
    lower text;
    upper text;
begin
    perform pg_advisory_xact_lock(hashtext('opsconductor.partitions'));
    for i in -1..ahead loop
        week := date_trunc('week', at at time zone 'UTC') at time zone 'UTC' + make_interval(weeks => i);
        suffix := to_char(week at time zone 'UTC', 'IYYY"w"IW');
        foreach name in array array['runs', 'attempts', 'output_chunks', 'output_cursors'] loop
            if to_regclass(name || '_' || suffix) is null then
                lower := quote_literal(uuid_v7_floor(week));
                upper := quote_literal(uuid_v7_floor(week + interval '7 days'));
                execute format('create table %I partition of %I for values from (%s) to (%s)',
                               name || '_' || suffix, name, lower, upper);
            end if;
        end loop;
        foreach name in array array['audit_entries', 'audit_chain', 'events', 'host_metrics'] loop
            if to_regclass(name || '_' || suffix) is null then
                execute format('create table %I partition of %I for values from (%L) to (%L)',
                               name || '_' || suffix, name, week, week + interval '7 days');
            end if;
        end loop;
    end loop;
end
$$;

-- Entries from before are chained too: each partition of theirs gets its companion, and each of them a place in the queue.
do $$
declare
    part record;
begin
    for part in
        select child.relname as name, pg_get_expr(child.relpartbound, child.oid) as bounds
        from pg_inherits join pg_class child on child.oid = inhrelid
        where inhparent = 'audit_entries'::regclass
    loop
        execute format('create table %I partition of audit_chain %s',
                       replace(part.name, 'audit_entries', 'audit_chain'), part.bounds);
    end loop;
end
$$;
insert into audit_queue (org_id, at, entry_id) select org_id, at, id from audit_entries;

do $$
declare
    name text;
begin
    foreach name in array array['audit_queue', 'audit_chain', 'audit_checkpoints', 'audit_alarms'] loop
        execute format('alter table %I enable row level security', name);
        execute format('create policy of_its_organization on %I to opsc_app
                        using (org_id = current_org()) with check (org_id = current_org())', name);
        execute format('create policy of_all on %I to opsc_worker using (true) with check (true)', name);
    end loop;
end
$$;
grant insert on audit_queue to opsc_app;
grant select on audit_chain, audit_checkpoints to opsc_app;
grant select, insert, delete on audit_queue to opsc_worker;
grant select, insert on audit_chain, audit_checkpoints, audit_alarms to opsc_worker;
grant select, insert, update, delete on audit_forwarded to opsc_worker;
