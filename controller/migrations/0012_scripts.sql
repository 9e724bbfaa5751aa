-- Scripts that are kept by name, with their versions. As jobs: the row says what the newest version says.

create table scripts (
    id uuid primary key,
    org_id uuid not null references organizations (id),
    name text not null,
    description text not null,
    labels jsonb not null,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    -- A deleted script keeps its row: whoever takes its name goes on with the numbers, so that NAME@VERSION is one text for ever.
    deleted_at timestamptz,
    unique (org_id, id)
);
create unique index scripts_name_key on scripts (org_id, name) where deleted_at is null;
create index scripts_every_name on scripts (org_id, name);

create table script_versions (
    script_id uuid not null,
    version integer not null,
    org_id uuid not null,
    -- All of the version as JSON, byte for byte as it was signed.
    document text not null,
    -- Of the script's text alone, for people.
    sha256 bytea not null,
    comment text,
    author text not null,
    author_id text not null,
    created_at timestamptz not null,
    -- That its author saved exactly this, as it was signed then.
    signed bytea not null,
    signature bytea not null,
    certificate bytea not null,
    primary key (script_id, version),
    foreign key (org_id, script_id) references scripts (org_id, id)
);

do $$
declare
    name text;
begin
    foreach name in array array['scripts', 'script_versions'] loop
        execute format('alter table %I enable row level security', name);
        execute format('create policy of_its_organization on %I to opsc_app
                        using (org_id = current_org()) with check (org_id = current_org())', name);
        execute format('create policy of_all on %I to opsc_worker using (true) with check (true)', name);
    end loop;
end
$$;
grant select, insert, update on scripts to opsc_app;
grant select, insert on script_versions to opsc_app;
grant select on scripts, script_versions to opsc_worker;
