//! Hashing of passwords: argon2id, a few at a time, and as long for nobody as for somebody.
//!
//! Parameters: 19 MiB, two passes, one lane (what OWASP's cheat sheet on password storage asks for at least).

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use model::{api::auth::Secret, limits};
use tokio::sync::{OnceCell, Semaphore};

use crate::error::{Error, Result};

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// One for the process.
#[derive(Debug)]
pub(crate) struct Passwords {
    at_a_time: Semaphore,
    /// Of a password that nobody has: what somebody unknown is compared with.
    nobodys: OnceCell<String>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { at_a_time: Semaphore::new(limits::PASSWORD_HASHES), nobodys: OnceCell::new() }
    }
}

impl Passwords {
    /// The hash to keep, as a PHC string.
    ///
    /// # Errors
    /// When hashing fails.
    pub(crate) async fn hash(&self, password: &Secret) -> Result<String> {
        let password = password.clone();
        self.apart(move || {
            let hash = argon2().hash_password(password.expose().as_bytes());
            hash.map(|hash| hash.to_string())
                .map_err(|error| Error::internal("cannot hash a password", error.to_string()))
        })
        .await
    }

    /// Whether this is the password with that hash; without one, no, after the same time.
    ///
    /// # Errors
    /// When hashing fails.
    pub(crate) async fn verify(&self, password: &Secret, hash: Option<String>) -> Result<bool> {
        if password.expose().len() > limits::PASSWORD_BYTES {
            return Ok(false);
        }
        let is_somebodys = hash.is_some();
        let hash = match hash {
            Some(hash) => hash,
            None => {
                let random = Secret::new(hex::encode(pki::random::<16>()));
                self.nobodys.get_or_try_init(|| self.hash(&random)).await?.clone()
            }
        };
        let password = password.clone();
        self.apart(move || {
            let hash = PasswordHash::new(&hash)
                .map_err(|error| Error::internal("a password's hash cannot be read", error.to_string()))?;
            Ok(argon2().verify_password(password.expose().as_bytes(), &hash).is_ok() && is_somebodys)
        })
        .await
    }

    /// Off the threads that serve, and no more at a time than there is room for.
    async fn apart<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let _permit = self.at_a_time.acquire().await.expect("it is never closed");
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::internal("hashing of a password", error))?
    }
}

fn argon2() -> Argon2<'static> {
    let params =
        Params::new(MEMORY_KIB, PASSES, LANES, None).expect("the parameters are within their bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_alone() {
        let passwords = Passwords::default();
        let good = Secret::new("correct horse battery");
        let hash = passwords.hash(&good).await.expect("it hashes");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, passwords.hash(&good).await.expect("it hashes"), "every hash has a salt of its own");
        assert!(passwords.verify(&good, Some(hash.clone())).await.expect("it verifies"));
        assert!(!passwords.verify(&Secret::new("another"), Some(hash.clone())).await.expect("it verifies"));
        assert!(!passwords.verify(&good, None).await.expect("it verifies"));
        assert!(!passwords.verify(&Secret::new("x".repeat(2000)), Some(hash)).await.expect("it verifies"));
        assert!(passwords.verify(&good, Some("plain".to_owned())).await.is_err());
    }
}
