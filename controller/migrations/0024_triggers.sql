-- Schedules that no clock starts: deliveries at webhooks, and events.

alter table schedules
    -- 'webhook' or 'event'; null: a clock.
    add column starts_on text,
    -- Its webhook has had so many secrets, of which the last one counts; 0 or below: none does.
    add column secret_number integer not null default 0,
    -- The kind of events that it waits for, and the transaction from which on it does.
    add column event_kind text,
    add column events_after bigint not null default 0,
    -- It is not what somebody saved: it does nothing until somebody saves it anew.
    add column halted_at timestamptz;
create index schedules_of_events on schedules (org_id) where starts_on = 'event' and deleted_at is null;

-- What came is in the row before anybody has decided about it.
alter table occurrences
    -- What tells a delivery or an event from others.
    add column delivery text,
    -- The revision of the schedule that judged it.
    add column revision integer,
    -- Executions that led to it, each of which caused the next.
    add column chain smallint not null default 0,
    -- What was taken out of it, as JSON, and the seal of a controller over all of this; only of what waits.
    add column taken text,
    add column seal bytea;
create unique index occurrences_delivered on occurrences (schedule_id, delivery) where delivery is not null;
create index occurrences_arrived on occurrences (schedule_id, due)
    where delivery is not null and state = 'waiting' and cause is null;

drop index schedule_ends_schedule;
create index schedule_ends_schedule on schedule_ends (schedule_id, at);

alter table executions add column chain smallint not null default 0;

-- Up to where the events of an organization have been shown to its schedules.
create table event_positions (
    org_id uuid primary key references organizations (id),
    tx bigint not null,
    id uuid not null
);
alter table event_positions enable row level security;
create policy of_its_organization on event_positions to opsc_app
    using (org_id = current_org()) with check (org_id = current_org());
create policy of_all on event_positions to opsc_worker using (true) with check (true);
grant select, insert, update on event_positions to opsc_app;
grant select, insert, update, delete on event_positions to opsc_worker;
