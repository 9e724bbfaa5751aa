//! Access tokens: JWTs (RFC 7519) that a session gives for some minutes.
//!
//! 1. The algorithm is EdDSA, whatever a token's header says; so is the type (`at+jwt`, RFC 9068).
//! 2. A key is found by the header's `kid` among those that the caller knows. Nothing else of the header counts: no `jwk`,
//!    `jku`, `x5u` or `x5c` is ever followed.
//! 3. Issuer and audience have to be ours, and every claim has to be there once.

use std::fmt;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Error,
    ed25519::{PrivateKey, PublicKey},
};

const NAME: &str = "access key";
const TYPE: &str = "at+jwt";
const AUDIENCE: &str = "opsconductor-api";
/// Bytes of the longest token that is looked at.
const LONGEST: usize = 2048;

/// What an access token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The installation's trust domain.
    pub iss: String,
    pub aud: String,
    /// The person.
    pub sub: Uuid,
    /// The session.
    pub sid: Uuid,
    /// Seconds since 1970 UTC.
    pub iat: i64,
    pub exp: i64,
}

impl Claims {
    /// Of a person's session in the installation `trust_domain`, for as long.
    pub fn new(trust_domain: &str, user: Uuid, session: Uuid, from: Timestamp, until: Timestamp) -> Self {
        Self {
            iss: trust_domain.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user,
            sid: session,
            iat: from.as_second(),
            exp: until.as_second(),
        }
    }
}

/// A key that signs access tokens. It lives in memory alone.
pub struct AccessKey {
    id: Uuid,
    key: PrivateKey,
    encoding: EncodingKey,
}

impl AccessKey {
    pub fn generate(id: Uuid) -> Self {
        let key = PrivateKey::generate();
        let encoding = EncodingKey::from_ed_der(&key.to_pkcs8());
        Self { id, key, encoding }
    }

    pub fn id(&self) -> Uuid {
        self.id
    }

    /// 32 bytes.
    pub fn public_key(&self) -> Vec<u8> {
        self.key.public_key()
    }

    /// The token that says so.
    pub fn sign(&self, claims: &Claims) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(self.id.to_string());
        jsonwebtoken::encode(&header, claims, &self.encoding).expect("plain claims and a sound key")
    }
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessKey({}, <redacted>)", self.id)
    }
}

/// Whether this may be an access token: three parts, and not longer than one can be.
pub fn looks_like_one(token: &str) -> bool {
    token.len() <= LONGEST && token.starts_with("eyJ") && token.split('.').count() == 3
}

/// Which key a token says it was signed with.
///
/// # Errors
/// When it is no access token.
pub fn key_id(token: &str) -> Result<Uuid, Error> {
    let header = header(token)?;
    header.kid.as_deref().and_then(|kid| Uuid::try_parse(kid).ok()).ok_or(Error::AccessToken("names no key"))
}

/// What a token says that the key `public_key` (32 bytes) signed for `trust_domain`, at `now`.
///
/// # Errors
/// When the signature, the issuer, the audience, the type or the time are wrong.
pub fn verify(token: &str, public_key: &[u8], trust_domain: &str, now: Timestamp) -> Result<Claims, Error> {
    header(token)?;
    PublicKey::new(public_key, NAME)?;
    let mut validation = Validation::new(Algorithm::EdDSA);
    // The time is handed in.
    validation.validate_exp = false;
    validation.set_issuer(&[trust_domain]);
    validation.set_audience(&[AUDIENCE]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let key = DecodingKey::from_ed_der(public_key);
    let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation)
        .map_err(|_| Error::AccessToken("is not one of this installation"))?
        .claims;
    let now = now.as_second();
    if claims.exp <= now {
        return Err(Error::AccessToken("has expired"));
    }
    if claims.iat > now.saturating_add(model::limits::CLOCK_SKEW.as_secs().cast_signed()) {
        return Err(Error::AccessToken("is of the future"));
    }
    Ok(claims)
}

fn header(token: &str) -> Result<Header, Error> {
    if !looks_like_one(token) {
        return Err(Error::AccessToken("is none"));
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| Error::AccessToken("is none"))?;
    if header.alg != Algorithm::EdDSA || header.typ.as_deref() != Some(TYPE) || header.crit.is_some() {
        return Err(Error::AccessToken("is of another kind"));
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
    use serde_json::{Value, json};

    use super::*;

    const DOMAIN: &str = "opsc-test";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn key() -> AccessKey {
        AccessKey::generate(Uuid::from_u128(7))
    }

    fn claims() -> Claims {
        Claims::new(DOMAIN, Uuid::from_u128(1), Uuid::from_u128(2), at(1000), at(1600))
    }

    fn part(value: &Value) -> String {
        BASE64.encode(value.to_string())
    }

    #[test]
    fn a_token_is_good_until_it_ends() {
        let (key, claims) = (key(), claims());
        let token = key.sign(&claims);
        assert_eq!(key_id(&token).unwrap(), key.id());
        for now in [1000, 1599, 950] {
            assert_eq!(verify(&token, &key.public_key(), DOMAIN, at(now)).unwrap(), claims);
        }
        for now in [1600, 9999, 900] {
            assert!(verify(&token, &key.public_key(), DOMAIN, at(now)).is_err(), "{now}");
        }
        let other = AccessKey::generate(Uuid::from_u128(7));
        assert!(verify(&token, &other.public_key(), DOMAIN, at(1000)).is_err());
        assert!(verify(&token, &key.public_key(), "opsc-other", at(1000)).is_err());
    }

    #[test]
    fn no_header_and_no_claim_of_somebody_elses_invention_counts() {
        let key = key();
        let good = key.sign(&claims());
        let parts: Vec<&str> = good.split('.').collect();
        let kid = key.id().to_string();
        let signed = |header: &Value, claims: &Value| {
            let message = format!("{}.{}", part(header), part(claims));
            let hmac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key.public_key());
            let signature = aws_lc_rs::hmac::sign(&hmac, message.as_bytes());
            format!("{message}.{}", BASE64.encode(signature))
        };
        let plain = serde_json::to_value(claims()).unwrap();
        let header = |alg: &str| json!({ "typ": TYPE, "alg": alg, "kid": kid });
        let bad = [
            signed(&header("HS256"), &plain),
            signed(&header("EdDSA"), &plain),
            format!("{}.{}.", part(&header("none")), part(&plain)),
            format!("{}.{}.{}", part(&header("none")), parts[1], parts[2]),
            format!(
                "{}.{}.{}",
                part(&json!({ "typ": "JWT", "alg": "EdDSA", "kid": kid })),
                parts[1],
                parts[2]
            ),
            format!("{}.{}.{}", parts[0], part(&plain), parts[2].replace('A', "B")),
            format!("{}.{}", parts[0], parts[1]),
            format!("{good}.x"),
            String::new(),
            "..".to_owned(),
            format!("eyJ{}", "x".repeat(5000)),
        ];
        for token in bad {
            assert!(verify(&token, &key.public_key(), DOMAIN, at(1000)).is_err(), "{token}");
        }
        // Well signed, and wrong all the same.
        let sign = |change: &dyn Fn(&mut Value), typ: &str| {
            let mut claims = plain.clone();
            change(&mut claims);
            let mut header = Header::new(Algorithm::EdDSA);
            header.typ = Some(typ.to_owned());
            header.kid = Some(kid.clone());
            jsonwebtoken::encode(&header, &claims, &key.encoding).unwrap()
        };
        let at_least_one_holds = sign(&|_| {}, TYPE);
        assert!(verify(&at_least_one_holds, &key.public_key(), DOMAIN, at(1000)).is_ok());
        for token in [
            sign(&|claims| claims["aud"] = json!("another"), TYPE),
            sign(&|claims| claims["iss"] = json!("another"), TYPE),
            sign(&|claims| claims["exp"] = json!("1600"), TYPE),
            sign(&|claims| claims["sub"] = json!("ada"), TYPE),
            sign(&|claims| drop(claims.as_object_mut().unwrap().remove("sid")), TYPE),
            sign(&|claims| drop(claims.as_object_mut().unwrap().remove("aud")), TYPE),
            sign(&|claims| drop(claims.as_object_mut().unwrap().remove("exp")), TYPE),
            sign(&|_| {}, "JWT"),
        ] {
            assert!(verify(&token, &key.public_key(), DOMAIN, at(1000)).is_err(), "{token}");
        }
        assert!(
            key_id(&format!("{}.{}.x", part(&json!({ "typ": TYPE, "alg": "EdDSA" })), parts[1])).is_err()
        );
    }
}
