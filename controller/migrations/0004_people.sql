-- Who may do what: people, service accounts, roles and what binds them, sessions, tokens.

-- Whoever did it, by an id that is never given again, and the address that it came from.
alter table audit_entries
    add column actor_id text not null default '',
    add column source text not null default '';

-- The organization that setup made: what concerns the installation as a whole is granted there alone. Null until then.
alter table installation
    add column home_org_id uuid references organizations (id),
    add column setup_token_hash bytea;

-- People belong to the installation, and are members of organizations.
create table users (
    id uuid primary key,
    -- Folded to lower case: two names that look alike to a person are one.
    name text not null,
    display_name text not null default '',
    email text not null default '',
    -- PHC string (argon2id); null: nobody can enter with a password.
    password_hash text,
    password_changed_at timestamptz,
    created_at timestamptz not null,
    disabled_at timestamptz,
    -- The key of one-time codes; counts once it was confirmed. No code of this step or an earlier one counts again.
    totp_secret bytea,
    totp_confirmed_at timestamptz,
    totp_last_step bigint not null default 0,
    -- Hashes of the recovery codes that are left.
    recovery_codes bytea[] not null default '{}',
    constraint users_name_key unique (name)
);

create table memberships (
    org_id uuid not null references organizations (id),
    user_id uuid not null references users (id),
    added_at timestamptz not null,
    added_by text not null,
    primary key (org_id, user_id)
);
create index memberships_user on memberships (user_id);

create table groups (
    id uuid primary key,
    org_id uuid not null references organizations (id),
    name text not null,
    created_at timestamptz not null,
    created_by text not null,
    unique (org_id, id),
    constraint groups_name_key unique (org_id, name)
);

create table group_members (
    org_id uuid not null,
    group_id uuid not null,
    user_id uuid not null,
    primary key (org_id, group_id, user_id),
    foreign key (org_id, group_id) references groups (org_id, id) on delete cascade,
    foreign key (org_id, user_id) references memberships (org_id, user_id) on delete cascade
);
create index group_members_user on group_members (org_id, user_id);

-- An organization's own roles; the built-in ones are in the program.
create table roles (
    id uuid primary key,
    org_id uuid not null references organizations (id),
    name text not null,
    permissions text[] not null,
    created_at timestamptz not null,
    created_by text not null,
    constraint roles_name_key unique (org_id, name)
);

create table service_accounts (
    id uuid primary key,
    org_id uuid not null references organizations (id),
    name text not null,
    created_at timestamptz not null,
    created_by text not null,
    disabled_at timestamptz,
    unique (org_id, id),
    constraint service_accounts_name_key unique (org_id, name)
);

-- One of the three subjects has the role, for the hosts and jobs that the selectors match; null: for all.
create table role_bindings (
    id uuid primary key,
    org_id uuid not null references organizations (id),
    role text not null,
    user_id uuid,
    group_id uuid,
    service_account_id uuid,
    hosts text,
    jobs text,
    created_at timestamptz not null,
    created_by text not null,
    unique (org_id, id),
    constraint role_bindings_subject check (num_nonnulls(user_id, group_id, service_account_id) = 1),
    foreign key (org_id, user_id) references memberships (org_id, user_id) on delete cascade,
    foreign key (org_id, group_id) references groups (org_id, id) on delete cascade,
    foreign key (org_id, service_account_id) references service_accounts (org_id, id) on delete cascade,
    constraint role_bindings_key unique nulls not distinct
        (org_id, role, user_id, group_id, service_account_id, hosts, jobs)
);
create index role_bindings_user on role_bindings (org_id, user_id);
create index role_bindings_group on role_bindings (org_id, group_id);
create index role_bindings_service_account on role_bindings (org_id, service_account_id);

-- A token has an owner, whose rights it has at most. What was there before had rights of its own and no owner: it belongs
-- to a service account of its name now.
alter table api_tokens
    add column user_id uuid,
    add column service_account_id uuid,
    add column hosts text,
    add column created_by text not null default '',
    add column last_used_at timestamptz,
    add column last_used_from text not null default '';
insert into service_accounts (id, org_id, name, created_at, created_by)
    select t.id, t.org_id, t.name || '-' || left(replace(t.id::text, '-', ''), 12), t.created_at, 'migration' from api_tokens t;
insert into role_bindings (id, org_id, role, service_account_id, created_at, created_by)
    select t.id, t.org_id, 'administrator', t.id, t.created_at, 'migration' from api_tokens t;
update api_tokens set service_account_id = id;
-- An installation from before is set up: its first organization is at home, its token still opens it for a year.
update installation set home_org_id = (select id from organizations order by created_at limit 1)
    where exists (select 1 from api_tokens);
update api_tokens set expires_at = now() + interval '365 days' where expires_at is null;
alter table api_tokens
    alter column expires_at set not null,
    add constraint api_tokens_owner check (num_nonnulls(user_id, service_account_id) = 1),
    add foreign key (org_id, user_id) references memberships (org_id, user_id) on delete cascade,
    add foreign key (org_id, service_account_id) references service_accounts (org_id, id) on delete cascade;
create index api_tokens_user on api_tokens (org_id, user_id);
create index api_tokens_service_account on api_tokens (org_id, service_account_id);

-- A person's login, until it ends. The refresh token is replaced at each use; its predecessor is known for a moment.
create table login_sessions (
    id uuid primary key,
    user_id uuid not null references users (id),
    -- Where this person works in it.
    org_id uuid not null references organizations (id),
    created_at timestamptz not null,
    last_used_at timestamptz not null,
    expires_at timestamptz not null,
    ended_at timestamptz,
    end_reason text,
    address text not null,
    client text not null,
    refresh_hash bytea not null,
    previous_hash bytea,
    rotated_at timestamptz not null
);
create index login_sessions_user on login_sessions (user_id) where ended_at is null;
create index login_sessions_expiry on login_sessions (expires_at);

-- Failures to enter, by the folded name that was tried, whether there is such a person or not.
create table login_failures (
    name text primary key,
    failures integer not null,
    first_at timestamptz not null,
    locked_until timestamptz
);
create index login_failures_age on login_failures (first_at);

-- What lets somebody in once: an invitation to an organization, or a new password for a person.
create table one_time_tokens (
    id uuid primary key,
    org_id uuid not null references organizations (id),
    purpose text not null check (purpose in ('invitation', 'password_reset')),
    secret_hash bytea not null,
    -- Of a reset.
    user_id uuid references users (id),
    -- Of an invitation: the role that it gives.
    role text,
    created_at timestamptz not null,
    created_by text not null,
    expires_at timestamptz not null,
    used_at timestamptz,
    unique (org_id, id),
    constraint one_time_tokens_purpose check ((purpose = 'password_reset') = (user_id is not null))
);

-- Public halves of the keys that sign access tokens. A row counts only with the signature of the controller that made it.
create table access_keys (
    id uuid primary key,
    public_key bytea not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    signature bytea not null,
    certificate bytea not null
);

do $$
declare
    name text;
begin
    foreach name in array array[
        'memberships', 'groups', 'group_members', 'roles', 'service_accounts', 'role_bindings', 'one_time_tokens',
        'login_sessions'
    ] loop
        execute format('alter table %I enable row level security', name);
        execute format('create policy of_its_organization on %I to opsc_app
                        using (org_id = current_org()) with check (org_id = current_org())', name);
        execute format('create policy of_all on %I to opsc_worker using (true) with check (true)', name);
    end loop;
end
$$;
alter table users enable row level security;
create policy its_members on users to opsc_app
    using (exists (select 1 from memberships m where m.user_id = users.id and m.org_id = current_org()));
create policy of_all on users to opsc_worker using (true) with check (true);

grant select, insert, update, delete on
    users, memberships, groups, group_members, roles, service_accounts, role_bindings, login_sessions, login_failures,
    one_time_tokens, access_keys
    to opsc_worker;
grant select, insert, update, delete on
    memberships, groups, group_members, roles, service_accounts, role_bindings, one_time_tokens to opsc_app;
-- Of a person an organization sees who that is; passwords, codes and sessions are the engine's alone.
grant select (id, name, display_name, email, created_at, disabled_at, totp_confirmed_at, password_changed_at) on users to opsc_app;
grant select (id, user_id, org_id, created_at, last_used_at, expires_at, ended_at, end_reason, address, client)
    on login_sessions to opsc_app;
