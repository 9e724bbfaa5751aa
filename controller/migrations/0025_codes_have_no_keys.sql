-- The key of a person's one-time codes is made of the authority's key and of a salt, which alone is kept. Keys that stood here are worth
-- nothing from now on: who had a second factor enters with a recovery code, or has it taken away by an administrator, and begins anew.
alter table users rename column totp_secret to totp_salt;
update users set totp_salt = null, totp_last_step = 0 where totp_confirmed_at is null;
