-- The schema that everything grows on.
--
-- Three roles. The owner runs migrations and owns the tables. `opsc_app` serves people: row-level security confines it
-- to the organization of its connection. `opsc_worker` is the engine: it works across organizations. Both are roles
-- without a login; the controller's connections take them on with SET ROLE. Roles belong to the whole cluster, so
-- another database of it may have made them already.
do $$
begin
    begin
        create role opsc_app nologin;
    exception when duplicate_object or unique_violation then null;
    end;
    begin
        create role opsc_worker nologin;
    exception when duplicate_object or unique_violation then null;
    end;
    if not pg_has_role(current_user, 'opsc_app', 'member') then
        execute format('grant opsc_app to %I', current_user);
    end if;
    if not pg_has_role(current_user, 'opsc_worker', 'member') then
        execute format('grant opsc_worker to %I', current_user);
    end if;
end
$$;

-- The organization that a connection of `opsc_app` serves; null (so: nothing is visible) when it was not set.
create function current_org() returns uuid
language sql stable parallel safe
return nullif(current_setting('opsc.org', true), '')::uuid;

-- The smallest UUIDv7 of a moment: the bound of a partition.
create function uuid_v7_floor(at timestamptz) returns uuid
language sql immutable parallel safe
return (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

create table organizations (
    id uuid primary key,
    name text not null,
    created_at timestamptz not null,
    constraint organizations_name_key unique (name)
);

-- What identifies this installation. One row.
create table installation (
    only_row boolean primary key default true check (only_row),
    trust_domain text not null,
    root_pin bytea not null,
    created_at timestamptz not null
);

create table controllers (
    id uuid primary key,
    -- Renewed every few seconds; whoever's is over has lost the sessions that it served.
    lease_until timestamptz not null,
    started_at timestamptz not null,
    version text not null,
    -- Where agents reach it, if it says so: agents are told of all the living ones.
    announce text
);

-- What lets one further controller have the authority's keys, once. Signed by the controller that made it, so that a
-- row which somebody else wrote is worth nothing.
create table join_tokens (
    id uuid primary key,
    org_id uuid not null references organizations (id),
    secret_hash bytea not null,
    created_at timestamptz not null,
    created_by text not null,
    expires_at timestamptz not null,
    signature bytea not null,
    certificate bytea not null,
    used_at timestamptz,
    used_by uuid
);

create table api_tokens (
    id uuid primary key,
    org_id uuid not null references organizations (id),
    name text not null,
    secret_hash bytea not null,
    permissions text[] not null,
    created_at timestamptz not null,
    expires_at timestamptz,
    revoked_at timestamptz,
    unique (org_id, id)
);

create table agents (
    id uuid primary key,
    org_id uuid not null references organizations (id),
    name text not null,
    labels jsonb not null default '{}',
    facts jsonb not null default '{}',
    version text not null default '',
    slots integer not null default 1,
    pending boolean not null default false,
    -- Since when it is offered nothing new.
    draining_since timestamptz,
    revoked_at timestamptz,
    enrolled_at timestamptz not null,
    last_seen_at timestamptz,
    -- The two serials that may be used: the first call with the new one retires the current one.
    serial_current bytea not null,
    serial_new bytea,
    certificate_expires_at timestamptz not null,
    -- The start of the newest certificate that was issued: one that began later was issued by a database that this one
    -- is an older copy of, and counts.
    certificate_not_before timestamptz not null default 'infinity',
    result_key bytea not null,
    seal_key bytea not null,
    journal_epoch bytea not null default '',
    unique (org_id, id),
    constraint agents_serial_key unique (serial_current)
);
-- The name of a revoked agent may be used again.
create unique index agents_name_key on agents (org_id, name) where revoked_at is null;
create index agents_labels on agents using gin (labels jsonb_path_ops);
create index agents_revoked on agents (revoked_at) where revoked_at is not null;

create table enroll_tokens (
    id uuid primary key,
    org_id uuid not null references organizations (id),
    secret_hash bytea not null,
    labels jsonb not null,
    max_uses integer not null check (max_uses > 0),
    uses integer not null default 0 check (uses <= max_uses),
    address_range cidr,
    created_at timestamptz not null,
    created_by text not null,
    expires_at timestamptz not null,
    unique (org_id, id)
);

-- The newest session of each agent. Its fence orders the controllers for this agent, its epoch the agent's streams. The
-- fence is one higher than any that the agent has obeyed, so that an older copy of this table locks nobody out. Its hello
-- was said so many microseconds after that boot of its host: one that was said earlier, and came late, opens nothing.
create table sessions (
    agent_id uuid primary key references agents (id),
    org_id uuid not null,
    controller_id uuid not null,
    epoch bigint not null,
    fence bigint not null,
    boot_id text not null,
    since_boot bigint not null,
    connected boolean not null,
    opened_at timestamptz not null,
    closed_at timestamptz
);
create index sessions_controller on sessions (controller_id) where connected;

create table executions (
    id uuid not null,
    org_id uuid not null,
    summary text not null,
    command jsonb not null,
    actor text not null,
    request_id text not null,
    created_at timestamptz not null,
    start_before timestamptz not null,
    ended_at timestamptz,
    cancel_requested_at timestamptz,
    state text not null,
    -- What was authorised, as it was signed.
    manifest bytea not null,
    manifest_signature bytea not null,
    manifest_certificate bytea not null,
    -- How many of its runs are in which state; the state above is computed from these.
    runs_total integer not null,
    runs_waiting integer not null,
    runs_active integer not null default 0,
    runs_succeeded integer not null default 0,
    runs_failed integer not null default 0,
    runs_cancelled integer not null default 0,
    runs_timed_out integer not null default 0,
    runs_skipped integer not null default 0,
    runs_expired integer not null default 0,
    runs_unknown integer not null default 0,
    -- When the signature was made anew, because its certificate would have ended; null: never.
    manifest_signed_at timestamptz,
    priority smallint not null default 0,
    primary key (id),
    unique (org_id, id)
);
create index executions_org_state on executions (org_id, state, id desc);
create index executions_signed on executions (coalesce(manifest_signed_at, created_at)) where ended_at is null;
create index executions_cancelling on executions (id) where cancel_requested_at is not null and ended_at is null;

-- Positions of an execution's output are handed out from here, inside the inserting transaction: the row lock makes
-- their order the order of the commits. Apart from `executions`, so that output never waits for a state change.
create table output_positions (
    execution_id uuid primary key,
    next_position bigint not null default 1
);

-- Runs, attempts and output are partitioned by their execution's UUIDv7, and history expires by dropping partitions.
create table runs (
    execution_id uuid not null,
    id uuid not null,
    org_id uuid not null,
    agent_id uuid not null,
    target text not null,
    state text not null,
    generation bigint not null default 0,
    priority smallint not null default 0,
    attempt integer not null default 0,
    queued_at timestamptz not null,
    due_at timestamptz not null,
    start_before timestamptz not null,
    started_at timestamptz,
    ended_at timestamptz,
    reason text,
    detail text,
    exit_code integer,
    signal integer,
    primary key (execution_id, id)
) partition by range (execution_id);
create index runs_queue on runs (agent_id, priority desc, id) where state = 'queued';
create index runs_queue_expiry on runs (start_before) where state = 'queued';
create index runs_active on runs (agent_id) where state = 'active';

create table attempts (
    execution_id uuid not null,
    run_id uuid not null,
    number integer not null,
    org_id uuid not null,
    agent_id uuid not null,
    state text not null,
    generation bigint not null default 0,
    fence bigint not null,
    epoch bigint not null,
    offered_at timestamptz not null,
    -- When it must have ended and been reported, whatever its host did.
    deadline timestamptz not null,
    accepted_at timestamptz,
    started_at timestamptz,
    ended_at timestamptz,
    reason text,
    detail text,
    exit_code integer,
    signal integer,
    -- What it told after it had been given up.
    observed_outcome jsonb,
    pid integer,
    boot_id text,
    -- The exit record as the host signed it, and what it says of the output.
    exit_record bytea,
    exit_signature bytea,
    stdout_written bigint,
    stderr_written bigint,
    stdout_sha256 bytea,
    stderr_sha256 bytea,
    cpu_user_us bigint,
    cpu_system_us bigint,
    peak_memory_bytes bigint,
    primary key (execution_id, run_id, number)
) partition by range (execution_id);
create index attempts_open on attempts (agent_id) where state in ('offered', 'accepted', 'started');
create index attempts_offered on attempts (offered_at) where state = 'offered';
create index attempts_deadline on attempts (deadline) where state in ('accepted', 'started');

create table output_chunks (
    execution_id uuid not null,
    run_id uuid not null,
    attempt integer not null,
    seq bigint not null,
    org_id uuid not null,
    position bigint not null,
    stream smallint not null,
    start bigint not null,
    length integer not null,
    gap bigint not null,
    time timestamptz not null,
    encoding smallint not null,
    data bytea not null,
    primary key (execution_id, run_id, attempt, seq)
) partition by range (execution_id);
create unique index output_chunks_position on output_chunks (execution_id, position);
-- Compressed by the agent already.
alter table output_chunks alter column data set storage external;

-- What the controller holds of each attempt's output, without a hole. Kept in the transaction that inserts chunks.
create table output_cursors (
    execution_id uuid not null,
    run_id uuid not null,
    attempt integer not null,
    org_id uuid not null,
    next_seq bigint not null default 0,
    stdout_offset bigint not null default 0,
    stderr_offset bigint not null default 0,
    stdout_gap bigint not null default 0,
    stderr_gap bigint not null default 0,
    moved_at timestamptz not null,
    primary key (execution_id, run_id, attempt)
) partition by range (execution_id);

-- Partitioned by time.
create table audit_entries (
    id uuid not null,
    org_id uuid not null,
    at timestamptz not null,
    actor text not null,
    verb text not null,
    object text not null,
    outcome text not null,
    request_id text not null,
    detail jsonb not null default '{}',
    primary key (at, id)
) partition by range (at);
create index audit_entries_org on audit_entries (org_id, at desc);

create table events (
    id uuid not null,
    org_id uuid not null,
    at timestamptz not null,
    kind text not null,
    object text not null,
    data jsonb not null default '{}',
    primary key (at, id)
) partition by range (at);
create index events_org on events (org_id, at desc);

create table host_metrics (
    org_id uuid not null,
    agent_id uuid not null,
    at timestamptz not null,
    cpu_percent double precision not null,
    memory_total bigint not null,
    memory_used bigint not null,
    swap_total bigint not null,
    swap_used bigint not null,
    load double precision[] not null,
    uptime_seconds bigint not null,
    disks jsonb not null,
    network_received bigint not null,
    network_sent bigint not null,
    primary key (agent_id, at)
) partition by range (at);

create table idempotency_keys (
    org_id uuid not null,
    actor text not null,
    key text not null,
    body_hash bytea not null,
    answer jsonb,
    created_at timestamptz not null,
    primary key (org_id, actor, key)
);
create index idempotency_keys_age on idempotency_keys (created_at);

-- Makes the weekly partitions that cover `at` and the `ahead` weeks behind it. Safe to call from several at once.
create function ensure_partitions(at timestamptz, ahead integer) returns void
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
        foreach name in array array['audit_entries', 'events', 'host_metrics'] loop
            if to_regclass(name || '_' || suffix) is null then
                execute format('create table %I partition of %I for values from (%L) to (%L)',
                               name || '_' || suffix, name, week, week + interval '7 days');
            end if;
        end loop;
    end loop;
end
$$;

-- Row-level security: the second wall behind `org_id = …` in every query.
do $$
declare
    name text;
begin
    foreach name in array array[
        'api_tokens', 'agents', 'enroll_tokens', 'join_tokens', 'sessions', 'executions', 'runs', 'attempts', 'output_chunks',
        'output_cursors', 'audit_entries', 'events', 'host_metrics', 'idempotency_keys'
    ] loop
        execute format('alter table %I enable row level security', name);
        execute format('create policy of_its_organization on %I to opsc_app
                        using (org_id = current_org()) with check (org_id = current_org())', name);
        execute format('create policy of_all on %I to opsc_worker using (true) with check (true)', name);
    end loop;
end
$$;
alter table organizations enable row level security;
create policy its_own on organizations to opsc_app using (id = current_org());
create policy of_all on organizations to opsc_worker using (true) with check (true);

revoke execute on function ensure_partitions(timestamptz, integer) from public;
grant execute on function ensure_partitions(timestamptz, integer) to opsc_worker;
grant usage on schema public to opsc_app, opsc_worker;
grant select, insert, update, delete on
    organizations, installation, controllers, api_tokens, agents, enroll_tokens, join_tokens, sessions, executions,
    output_positions, runs, attempts, output_chunks, output_cursors, events, host_metrics, idempotency_keys
    to opsc_worker;
grant select, insert on audit_entries to opsc_worker;
grant select on organizations, sessions, host_metrics to opsc_app;
grant select, insert, update on
    api_tokens, agents, executions, runs, attempts, output_cursors to opsc_app;
grant select, insert, update, delete on enroll_tokens, idempotency_keys to opsc_app;
grant select on output_chunks to opsc_app;
grant select, insert on join_tokens to opsc_app;
grant select, insert on output_positions to opsc_app;
grant select, insert on events to opsc_app;
-- People read the audit, and every action adds to it; nobody changes it.
grant select, insert on audit_entries to opsc_app;
