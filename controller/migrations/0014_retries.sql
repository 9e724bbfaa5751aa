-- The execution whose hosts, or steps, this one tries again.
alter table executions add column retry_of uuid;
