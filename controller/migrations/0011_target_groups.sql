-- Target groups: hosts that jobs name together, by name or by a selector.

create table target_groups (
    id uuid primary key,
    org_id uuid not null references organizations (id),
    name text not null,
    description text not null,
    -- Names, as in a job: a host that enrolls anew under its name is a member again.
    hosts text[] not null,
    selector text,
    version integer not null,
    created_at timestamptz not null,
    created_by text not null,
    updated_at timestamptz not null,
    updated_by text not null,
    constraint target_groups_name_key unique (org_id, name),
    constraint target_groups_members check ((cardinality(hosts) > 0) <> (selector is not null))
);

alter table target_groups enable row level security;
create policy of_its_organization on target_groups to opsc_app
    using (org_id = current_org()) with check (org_id = current_org());
create policy of_all on target_groups to opsc_worker using (true) with check (true);
grant select, insert, update, delete on target_groups to opsc_app;
grant select on target_groups to opsc_worker;
