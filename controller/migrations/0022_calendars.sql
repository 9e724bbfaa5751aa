-- Calendars: days and windows that schedules heed.

create table calendars (
    id uuid primary key,
    -- Null: shared by all organizations.
    org_id uuid references organizations (id),
    name text not null,
    -- All of it as JSON.
    document text not null,
    -- What lists show of it.
    description text not null,
    kind text not null,
    zone text not null,
    size integer not null,
    version integer not null,
    created_at timestamptz not null,
    created_by text not null,
    updated_at timestamptz not null,
    updated_by text not null,
    constraint calendars_name_key unique nulls not distinct (org_id, name)
);

-- Whether the organization that asks is the one that the installation is managed from: opsc_app does not read that table.
create function is_at_home() returns boolean
language sql stable security definer set search_path = public, pg_temp
return exists (select from public.installation where home_org_id = public.current_org());
revoke execute on function is_at_home() from public;
grant execute on function is_at_home() to opsc_app;

alter table calendars enable row level security;
create policy of_its_organization_or_shared on calendars for select to opsc_app
    using (org_id = current_org() or org_id is null);
create policy of_its_organization on calendars to opsc_app
    using (org_id = current_org()) with check (org_id = current_org());
create policy shared_at_home on calendars to opsc_app
    using (org_id is null and is_at_home()) with check (org_id is null and is_at_home());
create policy of_all on calendars for select to opsc_worker using (true);
grant select, insert, update, delete on calendars to opsc_app;
grant select on calendars to opsc_worker;
