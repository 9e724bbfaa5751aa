-- What was undone of an execution stands in the plans of those that undo it.
create index executions_undoing on executions (org_id, (plan->>'undoes')) where plan ? 'undoes';
