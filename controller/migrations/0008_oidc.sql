-- People whom an OpenID provider speaks for.

-- A provider's person, by what the provider never gives to somebody else.
create table user_identities (
    issuer text not null,
    subject text not null,
    user_id uuid not null references users (id),
    created_at timestamptz not null,
    primary key (issuer, subject)
);
create index user_identities_user on user_identities (user_id);

-- A login that is under way at a provider; each step takes it once.
create table oidc_logins (
    id uuid primary key,
    provider text not null,
    -- Of what the provider sends back, and of what the browser keeps meanwhile.
    state_hash bytea not null unique,
    browser_hash bytea not null,
    nonce text not null,
    verifier text not null,
    -- Where a browser goes in the end.
    return_to text,
    -- Or where a program on the person's machine listens, and the SHA-256 of the secret by which it fetches the session.
    port integer,
    challenge bytea,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    answered_at timestamptz,
    -- Of whom the session will be that a program fetches, where, and the hash of the code for it.
    user_id uuid references users (id),
    org_id uuid references organizations (id),
    code_hash bytea unique,
    constraint oidc_logins_end check (num_nonnulls(return_to, port) = 1 and (port is null) = (challenge is null)),
    constraint oidc_logins_code check (num_nonnulls(user_id, org_id, code_hash) in (0, 3))
);
create index oidc_logins_expiry on oidc_logins (expires_at);

-- Which provider opened a session; null: a password did. And what all refresh tokens of one session share: sessions from
-- before have none, and end with their access token.
alter table login_sessions
    add column provider text,
    add column family_hash bytea not null default '';
alter table login_sessions alter column family_hash drop default;

-- How it went: a login that was denied is no login.
alter table events add column outcome text not null default 'done';

alter table user_identities enable row level security;
create policy of_all on user_identities to opsc_worker using (true) with check (true);
alter table oidc_logins enable row level security;
create policy of_all on oidc_logins to opsc_worker using (true) with check (true);
grant select, insert, update, delete on user_identities, oidc_logins to opsc_worker;
