//! The second factor: one-time codes by time (RFC 6238: SHA-1, six digits, 30 s), and recovery codes. Each is good once.
//!
//! Invariant: the database has no key of codes. What it keeps is a salt, of which only a controller makes the key.

use jiff::Timestamp;
use model::{
    Invalid,
    api::auth::{RecoveryCodes, Secret, TotpStarted},
    id::UserId,
    limits,
};
use serde_json::json;
use totp_rs::{Algorithm, Builder, Totp};
use zeroize::Zeroizing;

use super::{
    App,
    access::{Authorized, SelfRead},
    login,
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{self, users::Entrance},
};

const DIGITS: u8 = 6;
const STEP_SECONDS: u64 = 30;
/// Steps that a clock may be off.
const SKEW: u16 = 1;
const SALT_BYTES: usize = 32;
const RECOVERY_BYTES: usize = 10;

/// Begins a second factor for oneself; it counts once a code of it was confirmed.
///
/// # Errors
/// When there is one already.
pub(crate) async fn start(app: &App, by: &Authorized<SelfRead>) -> Result<TotpStarted> {
    let (user, _) = by.session()?;
    let salt = pki::random::<SALT_BYTES>();
    let secret = key_of(app, user, &salt);
    let totp = code_of(&secret[..], &by.actor().name, &app.info.trust_domain)?;
    let url = totp
        .to_url()
        .map_err(|error| Error::internal("cannot write the address of the codes", error.to_string()))?;
    let mut tx = app.db.worker().begin().await.during("begin")?;
    if !store::users::begin_totp(&mut tx, user, &salt).await? {
        return Err(Error::Conflict("there is a second factor already; remove it first".to_owned()));
    }
    tx.commit().await.during("commit")?;
    let base32 = totp_rs::Secret::from(secret.to_vec()).to_base32();
    Ok(TotpStarted { secret: Secret::new(base32), url: Secret::new(url) })
}

/// Makes it count. The answer is the only place where the recovery codes are shown.
///
/// # Errors
/// When the code is wrong, or nothing was begun.
pub(crate) async fn confirm(app: &App, by: &Authorized<SelfRead>, code: &Secret) -> Result<RecoveryCodes> {
    let (user, _) = by.session()?;
    let now = clock::now();
    let person = store::users::entrance_of(app.db.worker(), user).await?;
    let salt = person.filter(|person| !person.totp_confirmed).and_then(|person| person.totp_salt);
    let salt = salt.ok_or_else(|| Error::Conflict("no second factor was begun".to_owned()))?;
    let step = step_of(&key_of(app, user, &salt)[..], code, now)?
        .ok_or_else(|| Error::from(Invalid::new("code", "is not the code of now")))?;
    let codes: Vec<String> = (0..limits::RECOVERY_CODES).map(|_| recovery_code()).collect();
    let hashes: Vec<Vec<u8>> = codes.iter().map(|code| recovery_hash(code).to_vec()).collect();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    if !store::users::confirm_totp(&mut tx, user, &salt, step, &hashes, now).await? {
        return Err(Error::Conflict("no second factor was begun".to_owned()));
    }
    login::record_for(&mut tx, Some(user), now, || {
        by.entry("user.second_factor.add", format!("user/{user}"), json!({}))
    })
    .await?;
    tx.commit().await.during("commit")?;
    Ok(RecoveryCodes { recovery_codes: codes.into_iter().map(Secret::new).collect() })
}

/// From now on without.
///
/// # Errors
/// When the password is wrong, or there is none.
pub(crate) async fn remove(app: &App, by: &Authorized<SelfRead>, password: &Secret) -> Result<()> {
    let (user, _) = by.session()?;
    login::prove_again(app, by, password).await?;
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    if !store::users::remove_totp(&mut tx, user).await? {
        return Err(Error::Conflict("there is no second factor".to_owned()));
    }
    login::record_for(&mut tx, Some(user), now, || {
        by.entry("user.second_factor.remove", format!("user/{user}"), json!({}))
    })
    .await?;
    tx.commit().await.during("commit")
}

/// What a code turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    Code,
    RecoveryCode,
    Not,
}

/// Whether this is a code of now that was not used yet, or a recovery code; it is used by that.
pub(crate) async fn accept(app: &App, person: &Entrance, code: &Secret, now: Timestamp) -> Result<Accepted> {
    let user = UserId(person.id);
    let text = code.expose().trim();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let (kind, is_good) = if text.len() == usize::from(DIGITS) {
        let key = key_of(app, user, person.totp_salt.as_deref().unwrap_or_default());
        let is_good = match step_of(&key[..], code, now)? {
            Some(step) if step > person.totp_last_step => {
                store::users::use_totp_step(&mut tx, user, step).await?
            }
            _ => false,
        };
        (Accepted::Code, is_good)
    } else {
        let is_good = store::users::use_recovery_code(&mut tx, user, &recovery_hash(text)).await?;
        (Accepted::RecoveryCode, is_good)
    };
    tx.commit().await.during("commit")?;
    Ok(if is_good { kind } else { Accepted::Not })
}

fn key_of(app: &App, user: UserId, salt: &[u8]) -> Zeroizing<[u8; 20]> {
    pki::derived::one_time_code_key(app.ca.authority(), user.0.as_bytes(), salt)
}

fn code_of(secret: &[u8], name: &str, issuer: &str) -> Result<Totp> {
    Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(DIGITS)
        .with_skew(SKEW)
        .with_step_duration(STEP_SECONDS)
        .with_secret(secret.to_vec())
        .with_account_name(name)
        .with_issuer(Some(format!("OpsConductor {issuer}")))
        .build()
        .map_err(|error| Error::internal("the key of one-time codes cannot be used", error.to_string()))
}

/// The step whose code this is.
fn step_of(secret: &[u8], code: &Secret, now: Timestamp) -> Result<Option<i64>> {
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let step = code_of(secret, "somebody", "codes")?.check(code.expose().trim(), seconds);
    Ok(step.and_then(|step| i64::try_from(step).ok()))
}

/// `xxxxx-xxxxx-xxxxx-xxxxx` in hex: 80 random bits, so that a plain hash cannot be guessed back.
fn recovery_code() -> String {
    let hex = hex::encode(pki::random::<RECOVERY_BYTES>());
    let parts: Vec<&str> = [&hex[..5], &hex[5..10], &hex[10..15], &hex[15..]].to_vec();
    parts.join("-")
}

fn recovery_hash(code: &str) -> [u8; 32] {
    let plain: String =
        code.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    pki::sha256(plain.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_standard() {
        // RFC 6238, appendix B, cut to six digits.
        let secret = b"12345678901234567890";
        for (seconds, code, step) in [(59, "287082", 1), (1_111_111_109, "081804", 37_037_036)] {
            let now = Timestamp::from_second(seconds).expect("a time");
            assert_eq!(step_of(secret, &Secret::new(code), now).expect("it reads"), Some(step));
            let before = Timestamp::from_second(seconds - 30).expect("a time");
            assert_eq!(
                step_of(secret, &Secret::new(code), before).expect("it reads"),
                Some(step),
                "a step ahead"
            );
            let later = Timestamp::from_second(seconds + 90).expect("a time");
            assert_eq!(step_of(secret, &Secret::new(code), later).expect("it reads"), None);
        }
    }

    #[test]
    fn recovery_codes_may_be_typed_as_they_come() {
        let code = recovery_code();
        assert_eq!(code.len(), 23);
        assert_eq!(
            recovery_hash(&code),
            recovery_hash(&format!(" {} ", code.to_uppercase().replace('-', "")))
        );
        assert_ne!(recovery_hash(&code), recovery_hash(&recovery_code()));
    }
}
