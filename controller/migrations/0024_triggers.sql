-- Schedules that no clock starts: deliveries at webhooks, and events.

alter table schedules
    -- 'webhook' or 'event'; null: a clock.
    add column starts_on text,
    -- Its webhook has had so many secrets, of which the last one counts; 0: it has none.
    add column secret_number integer not null default 0,
    -- It waits for events from this time on.
    add column events_from timestamptz;
create index schedules_of_events on schedules (org_id) where starts_on = 'event' and deleted_at is null;

-- What came is in the row before anybody has decided about it.
alter table occurrences
    -- What tells a delivery or an event from others.
    add column delivery text,
    -- What was taken out of it, as JSON.
    add column taken text,
    -- The controller's, over all that is known of what came: who writes rows makes none that starts anything.
    add column seal bytea,
    -- Executions that led to it, each of which caused the next.
    add column chain smallint not null default 0;
create unique index occurrences_delivered on occurrences (schedule_id, delivery) where delivery is not null;
create index occurrences_arrived on occurrences (schedule_id)
    where delivery is not null and state = 'waiting' and cause is null;

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
