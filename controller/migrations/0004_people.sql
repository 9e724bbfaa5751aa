-- Who may do what: people, service accounts, roles and what binds them, sessions, tokens.

-- Whoever did it, by an id that is never given again, and the address that it came from.
alter table audit_entries
    add column actor_id text not null default '',
    add column source text not null default '';
