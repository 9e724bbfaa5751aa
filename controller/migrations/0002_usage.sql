-- What an attempt took of its host and what it was confined by, as its exit record says. Null: the record is older, or
-- there is none.

alter table attempts
    add column peak_pids bigint,
    add column io_read_bytes bigint,
    add column io_write_bytes bigint,
    add column out_of_memory boolean,
    -- A name of model::sandbox::Profile.
    add column sandbox text;
