-- The audit is searched by request and by object, an export reads as its organization, and an agent's alarms of one kind
-- get one entry an hour.

create index audit_entries_request on audit_entries (org_id, request_id);
create index audit_entries_object on audit_entries (org_id, object, at desc);

-- Which entries wait for their number, for exports.
grant select on audit_queue to opsc_app;

-- `rollback`, or `gap` where the chain between two checkpoints was not shown.
alter table audit_alarms add column kind text not null default 'rollback';
-- Full hours since 1970; null in rows from before.
alter table audit_alarms add column hour bigint;
create unique index audit_alarms_hour on audit_alarms (agent_id, kind, hour);
