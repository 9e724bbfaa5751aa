-- What at most one execution holds at a time. A row whose execution is over holds nothing.
create table locks (
    org_id uuid not null,
    -- job/ID, name/NAME or host/ID
    key text not null,
    execution_id uuid not null,
    taken_at timestamptz not null,
    primary key (org_id, key)
);
create index locks_execution on locks (execution_id);
alter table locks enable row level security;
create policy of_its_organization on locks to opsc_app using (org_id = current_org()) with check (org_id = current_org());
create policy of_all on locks to opsc_worker using (true) with check (true);
grant select on locks to opsc_app;
-- To lock a row in its turn takes the right to change it.
grant select, insert, update, delete on locks to opsc_worker;

-- The lock that an execution waits for.
alter table execution_progress add column waits_for text;
create index execution_progress_waits on execution_progress (org_id, waits_for, execution_id) where waits_for is not null;
