-- Requests to web servers that steps of executions make. What is asked stands in the signed plan; here stands how far it is.
create table http_calls (
    execution_id uuid not null,
    run_id uuid not null,
    org_id uuid not null,
    -- waiting, sent or ended
    state text not null,
    -- When it may be sent.
    due_at timestamptz not null,
    tries integer not null default 0,
    -- The controller that has sent it, and until when it must have written what came of it.
    sent_by uuid,
    sent_until timestamptz,
    -- What came of it: succeeded, failed, timed_out or unknown.
    outcome text,
    reason text,
    detail text,
    outputs json,
    primary key (execution_id, run_id)
);
create index http_calls_due on http_calls (due_at) where state = 'waiting';
create index http_calls_sent on http_calls (sent_until) where state = 'sent';
alter table http_calls enable row level security;
create policy of_all on http_calls to opsc_worker using (true) with check (true);
grant select, insert, update, delete on http_calls to opsc_worker;

-- When the soak of a host of the canary began, by the controller's clock.
alter table execution_hosts add column soaks_since timestamptz;

-- The run of another execution that started this one.
alter table executions add column parent_id uuid;
alter table executions add column parent_run uuid;
create unique index executions_parent on executions (parent_id, parent_run) where parent_id is not null;

create index executions_retry on executions (org_id, retry_of) where retry_of is not null;
