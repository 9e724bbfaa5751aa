//! Keys that are made of the authority's own when they are needed, and so are kept nowhere: of webhooks, of people's one-time codes, and
//! of what is stored for a while and must come back as it was.

use aws_lc_rs::{hkdf, hmac};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::{Authority, sha256};

/// What a webhook's secrets begin with.
const PREFIX: &str = "och1_";
/// What the signature of a body may begin with.
const SCHEME: &str = "sha256=";

/// The secret of a webhook, as its senders have it.
#[derive(Debug)]
pub struct WebhookSecret(Secret);

/// A text that no log gets by accident.
struct Secret(Zeroizing<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<redacted>")
    }
}

impl WebhookSecret {
    /// The one of this name; another name gives another secret.
    pub fn of(authority: &Authority, name: &[u8]) -> Self {
        let key = derive(authority, b"opsconductor webhook", name);
        Self(Secret(Zeroizing::new(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(&key[..])))))
    }

    /// The text to hand out, to be shown once. A function and no `Display`, so that no log gets it by accident.
    pub fn reveal(&self) -> String {
        self.0.0.to_string()
    }

    /// Whether this is the secret. It takes as long whatever is given.
    pub fn is(&self, given: &str) -> bool {
        let [own, given] = [self.0.0.as_bytes(), given.as_bytes()].map(sha256);
        aws_lc_rs::constant_time::verify_slices_are_equal(&own, &given).is_ok()
    }

    /// Whether who knows the secret signed this body: HMAC-SHA-256 (RFC 2104) in hex, with `sha256=` before it or not.
    pub fn has_signed(&self, body: &[u8], signature: &str) -> bool {
        let hex = signature.strip_prefix(SCHEME).unwrap_or(signature);
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.0.as_bytes());
        hex::decode(hex).is_ok_and(|tag| hmac::verify(&key, body, &tag).is_ok())
    }
}

/// The key of a person's one-time codes; what is kept of it is the salt, which tells nothing.
pub fn one_time_code_key(authority: &Authority, person: &[u8], salt: &[u8]) -> Zeroizing<[u8; 20]> {
    let whole = derive(authority, b"opsconductor one-time codes", &[person, salt].concat());
    let mut key = Zeroizing::new([0; 20]);
    key.copy_from_slice(&whole[..20]);
    key
}

/// Seals what is stored: who writes the store, and has no key of the authority, makes none that holds.
pub fn seal_stored(authority: &Authority, kind: &[u8], bytes: &[u8]) -> Vec<u8> {
    hmac::sign(&stored(authority, kind), bytes).as_ref().to_vec()
}

/// Whether [`seal_stored`] made this seal for these bytes.
pub fn is_sealed(authority: &Authority, kind: &[u8], bytes: &[u8], seal: &[u8]) -> bool {
    hmac::verify(&stored(authority, kind), bytes, seal).is_ok()
}

fn stored(authority: &Authority, kind: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &derive(authority, b"opsconductor stored", kind)[..])
}

/// HKDF-SHA-256 (RFC 5869) of the authority's key, for one purpose and name.
fn derive(authority: &Authority, purpose: &'static [u8], name: &[u8]) -> Zeroizing<[u8; 32]> {
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, purpose);
    let mut key = Zeroizing::new([0; 32]);
    salt.extract(&authority.key_material())
        .expand(&[name], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key[..]))
        .expect("32 bytes are within what HKDF-SHA-256 gives");
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::authority;

    #[test]
    fn secrets_are_the_same_ones_wherever_the_authority_is() {
        let made = authority();
        let read = Authority::from_pem(&made.to_pem()).expect("it is whole");
        let secret = WebhookSecret::of(&made, b"one").reveal();
        assert!(WebhookSecret::of(&read, b"one").is(&secret));
        assert!(secret.starts_with(PREFIX) && secret.len() == PREFIX.len() + 43, "{secret}");
        let other = authority();
        for wrong in [WebhookSecret::of(&read, b"two"), WebhookSecret::of(&other, b"one")] {
            assert!(!wrong.is(&secret));
        }
        assert!(!WebhookSecret::of(&made, b"one").is(""));
        assert!(!format!("{:?}", WebhookSecret::of(&made, b"one")).contains(&secret));
    }

    #[test]
    fn a_signature_is_of_one_body_with_one_secret() {
        let authority = authority();
        let secret = WebhookSecret::of(&authority, b"one");
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
        let tag = hex::encode(hmac::sign(&key, b"body"));
        assert!(secret.has_signed(b"body", &tag) && secret.has_signed(b"body", &format!("sha256={tag}")));
        for (body, signature) in
            [(&b"bodY"[..], tag.as_str()), (b"body", ""), (b"body", "sha256="), (b"body", &tag[..62])]
        {
            assert!(!secret.has_signed(body, signature), "{signature}");
        }
        assert!(!WebhookSecret::of(&authority, b"two").has_signed(b"body", &tag));
    }

    #[test]
    fn each_person_has_a_key_of_his_own() {
        let authority = authority();
        let key = one_time_code_key(&authority, b"ada", b"salt");
        assert_eq!(key, one_time_code_key(&authority, b"ada", b"salt"));
        assert_ne!(key, one_time_code_key(&authority, b"ada", b"other"));
        assert_ne!(key, one_time_code_key(&authority, b"bob", b"salt"));
    }

    #[test]
    fn what_is_stored_comes_back_as_it_was() {
        let authority = authority();
        let seal = seal_stored(&authority, b"kind", b"bytes");
        assert!(is_sealed(&authority, b"kind", b"bytes", &seal));
        assert!(!is_sealed(&authority, b"kind", b"other", &seal));
        assert!(!is_sealed(&authority, b"other", b"bytes", &seal));
        assert!(!is_sealed(&authority, b"kind", b"bytes", b""));
    }
}
