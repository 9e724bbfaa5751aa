-- What people decided of the approvals that executions ask for. Everything that counts is in `signed`; the other columns find it.
create table approval_decisions (
    execution_id uuid not null,
    step smallint not null,
    actor_id text not null,
    org_id uuid not null,
    decided_at timestamptz not null,
    signed bytea not null,
    signature bytea not null,
    certificate bytea not null,
    -- Nobody decides twice.
    primary key (execution_id, step, actor_id)
);

alter table approval_decisions enable row level security;
create policy of_its_organization on approval_decisions to opsc_app
    using (org_id = current_org()) with check (org_id = current_org());
create policy of_all on approval_decisions to opsc_worker using (true) with check (true);
grant select, insert on approval_decisions to opsc_app;
grant select on approval_decisions to opsc_worker;
