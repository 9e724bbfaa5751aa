-- Job templates: documents that an organization makes its jobs of. Those that are part of the program have no row.

create table job_templates (
    id uuid primary key,
    org_id uuid not null references organizations (id),
    name text not null,
    description text not null,
    -- As its author wrote it.
    document text not null,
    version integer not null,
    created_at timestamptz not null,
    created_by text not null,
    updated_at timestamptz not null,
    updated_by text not null,
    constraint job_templates_name_key unique (org_id, name)
);

alter table job_templates enable row level security;
create policy of_its_organization on job_templates to opsc_app
    using (org_id = current_org()) with check (org_id = current_org());
create policy of_all on job_templates to opsc_worker using (true) with check (true);
grant select, insert, update, delete on job_templates to opsc_app;
grant select on job_templates to opsc_worker;
