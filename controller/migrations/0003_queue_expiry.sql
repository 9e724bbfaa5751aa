-- Its condition says more than that a run is queued, so that nobody who looks up one agent's queue is ever given this index
-- for it: that would read all queues for each agent.
drop index runs_queue_expiry;
create index runs_queue_expiry on runs (start_before) where state = 'queued' and start_before < 'infinity';
