-- Schedules: when jobs start, and what became of each firing.

create table schedules (
    id uuid primary key,
    org_id uuid not null references organizations (id),
    name text not null,
    job_id uuid not null,
    -- All of it as JSON, byte for byte as it was signed.
    document text not null,
    revision integer not null,
    author text not null,
    author_id text not null,
    saved_at timestamptz not null,
    -- That its author saved exactly this.
    signed bytea not null,
    signature bytea not null,
    certificate bytea not null,
    -- The last planned firing that has a row: none before it, and not itself, fires any more, whatever a clock shows.
    accounted_until timestamptz,
    -- The first firing that is not accounted for; null: there is none any more.
    next_due timestamptz,
    -- When somebody has to look at it; null: never. Who has not come to an end is looked at again behind the others.
    next_at timestamptz,
    -- It could not be fired, and is not tried again before this.
    put_off_until timestamptz,
    paused_at timestamptz,
    paused_because text,
    -- Executions in a row, up to the newest, that did not succeed.
    failures integer not null default 0,
    -- Executions that began before count for nothing: it was saved or resumed then.
    counted_from timestamptz not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    deleted_at timestamptz,
    unique (org_id, id),
    foreign key (org_id, job_id) references jobs (org_id, id)
);
create unique index schedules_name_key on schedules (org_id, name) where deleted_at is null;
create index schedules_due on schedules (next_at) where next_at is not null;
create index schedules_job on schedules (org_id, job_id) where deleted_at is null;

create table occurrences (
    id uuid primary key,
    schedule_id uuid not null,
    org_id uuid not null,
    origin text not null,
    due timestamptz not null,
    state text not null,
    cause text,
    detail text,
    execution_id uuid,
    -- Of one of a backfill: it begins when fewer executions of the schedule are open than so many.
    at_a_time smallint,
    at timestamptz not null,
    foreign key (org_id, schedule_id) references schedules (org_id, id)
);
-- A planned firing has one row.
create unique index occurrences_planned on occurrences (schedule_id, due) where origin = 'planned';
create index occurrences_of_schedule on occurrences (schedule_id, due desc, id desc);
create index occurrences_waiting on occurrences (schedule_id, due) where state = 'waiting';
create index occurrences_at on occurrences (at);

-- Which schedule started an execution.
alter table executions add column schedule_id uuid;
create index executions_scheduled on executions (schedule_id) where schedule_id is not null and ended_at is null;

-- Ends of executions that schedules started, until somebody looked. Rows are only added and taken away, so that nobody who
-- records an end waits for whoever fires.
create table schedule_ends (
    schedule_id uuid not null,
    org_id uuid not null,
    execution_id uuid not null,
    state text not null,
    at timestamptz not null
);
create index schedule_ends_schedule on schedule_ends (schedule_id);

do $$
declare
    name text;
begin
    foreach name in array array['schedules', 'occurrences', 'schedule_ends'] loop
        execute format('alter table %I enable row level security', name);
        execute format('create policy of_its_organization on %I to opsc_app
                        using (org_id = current_org()) with check (org_id = current_org())', name);
        execute format('create policy of_all on %I to opsc_worker using (true) with check (true)', name);
    end loop;
end
$$;
grant select, insert, update on schedules, occurrences to opsc_app;
grant insert on schedule_ends to opsc_app;
grant select, insert, update, delete on schedules, occurrences, schedule_ends to opsc_worker;
