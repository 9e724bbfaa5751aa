-- Somebody said that nothing more begins, on hosts at work neither. What is aborted is stopped too.
alter table execution_progress add column aborted_at timestamptz;
