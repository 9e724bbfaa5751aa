-- Jobs with their versions, and executions that have several steps.

create table jobs (
    id uuid primary key,
    org_id uuid not null references organizations (id),
    name text not null,
    -- What the newest version says, for lists and for rights that are bound to some jobs.
    description text not null,
    labels jsonb not null,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    -- A deleted job keeps its versions: executions are bound to them.
    deleted_at timestamptz,
    unique (org_id, id)
);
create unique index jobs_name_key on jobs (org_id, name) where deleted_at is null;

create table job_versions (
    job_id uuid not null,
    version integer not null,
    org_id uuid not null,
    document text not null,
    sha256 bytea not null,
    comment text,
    author text not null,
    author_id text not null,
    created_at timestamptz not null,
    -- That its author saved exactly this, as it was signed then.
    signed bytea not null,
    signature bytea not null,
    certificate bytea not null,
    primary key (job_id, version),
    foreign key (org_id, job_id) references jobs (org_id, id)
);

-- An execution has the command of its own, or the frozen plan of a job.
alter table executions alter column command drop not null;
alter table executions add column plan jsonb;
alter table executions add constraint executions_work check ((command is null) <> (plan is null));
alter table executions add column job_id uuid;
create index executions_job on executions (org_id, job_id, id desc) where job_id is not null;

-- Place of its step in the plan; null for a command of its own. A step of the controller's own has the agent of all zeroes.
alter table runs add column step smallint;

-- Where an execution with a plan stands. Its row is the lock of whoever moves it on.
create table execution_progress (
    execution_id uuid primary key,
    org_id uuid not null,
    -- When somebody has to look at it although nothing happened; null: never.
    advance_at timestamptz,
    batch smallint not null default 0,
    pause_until timestamptz,
    -- Nothing begins until somebody lets it go on.
    paused_at timestamptz,
    -- No further host begins.
    stopped_at timestamptz,
    unique (org_id, execution_id)
);
create index execution_progress_due on execution_progress (advance_at) where advance_at is not null;

-- The hosts of an execution with a plan, in the order of their turns.
create table execution_hosts (
    execution_id uuid not null,
    place integer not null,
    org_id uuid not null,
    agent_id uuid not null,
    target text not null,
    batch smallint not null,
    state text not null,
    primary key (execution_id, place)
) partition by range (execution_id);
create unique index execution_hosts_agent on execution_hosts (execution_id, agent_id);

-- Hosts on which a run of a plan has ended, until somebody looked. Rows are only added and taken away, so that nobody who
-- records the end of a run waits for whoever moves its execution on.
create table advance_queue (
    execution_id uuid not null,
    agent_id uuid not null,
    org_id uuid not null
);
create index advance_queue_execution on advance_queue (execution_id);

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
        foreach name in array array['runs', 'attempts', 'output_chunks', 'output_cursors', 'execution_hosts'] loop
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

do $$
declare
    name text;
begin
    foreach name in array array['jobs', 'job_versions', 'execution_progress', 'execution_hosts', 'advance_queue'] loop
        execute format('alter table %I enable row level security', name);
        execute format('create policy of_its_organization on %I to opsc_app
                        using (org_id = current_org()) with check (org_id = current_org())', name);
        execute format('create policy of_all on %I to opsc_worker using (true) with check (true)', name);
    end loop;
end
$$;
grant select, insert, update on jobs to opsc_app;
grant select, insert on job_versions to opsc_app;
grant select, insert, update on execution_progress to opsc_app;
grant select, insert on execution_hosts to opsc_app;
grant insert on advance_queue to opsc_app;
grant select on jobs, job_versions to opsc_worker;
grant select, insert, update, delete on execution_progress, execution_hosts, advance_queue to opsc_worker;
