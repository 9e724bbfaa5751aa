-- The runs of some hosts of an execution are read whenever one of their steps has ended, and for each page of its results.
create index runs_of_host on runs (execution_id, agent_id, step) where step is not null;
