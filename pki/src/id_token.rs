//! ID tokens of an OpenID provider (OpenID Connect Core 1.0, sections 2 and 3.1.3.7).
//!
//! 1. The signature is asymmetric and by a key of the provider that is meant for signatures and fits the algorithm. `none`
//!    and the HMAC algorithms do not exist here: a client secret or a public key can never be taken for a signing key.
//! 2. A key is found by the header's `kid` among those that the caller fetched. Nothing else of the header counts.
//! 3. Issuer, audience, nonce and time have to be what the caller expects.

use jiff::Timestamp;
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, Header, Validation,
    jwk::{AlgorithmParameters, Jwk, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Error;

/// Bytes of the longest token that is looked at: groups may be many.
const LONGEST: usize = 256 * 1024;
/// Bytes of the longest `sub`, by the specification.
const LONGEST_SUBJECT: usize = 255;

/// The public keys of a provider.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<Jwk>);

impl Keys {
    /// Reads a JWK set (RFC 7517). Keys of kinds that nobody knows here, or that are not for signatures, are passed over.
    ///
    /// # Errors
    /// When it is no key set.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(json).map_err(|_| Error::IdToken("has no readable key set"))?;
        let read = |key| serde_json::from_value::<Jwk>(key).ok();
        let signs = |key: &Jwk| {
            let is_public = !matches!(key.algorithm, AlgorithmParameters::OctetKey(_));
            is_public
                && matches!(&key.common.public_key_use, None | Some(PublicKeyUse::Signature))
                && DecodingKey::from_jwk(key).is_ok()
        };
        Ok(Self(set.keys.into_iter().filter_map(read).filter(signs).collect()))
    }

    /// Whether the key that this token names is among them; if not, the provider may have a new one.
    pub fn know(&self, token: &str) -> bool {
        header(token).is_ok_and(|header| self.find(&header).is_some())
    }

    /// The key of this header: by its id, or the only one that fits where it has none.
    fn find(&self, header: &Header) -> Option<&Jwk> {
        let mut fitting = self.0.iter().filter(|key| fits(key, header.alg));
        match &header.kid {
            Some(kid) => fitting.find(|key| key.common.key_id.as_ref() == Some(kid)),
            None => match (fitting.next(), fitting.next()) {
                (Some(only), None) => Some(only),
                _ => None,
            },
        }
    }
}

/// Whether a key can have made a signature by this algorithm.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let family = match key.algorithm {
        AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa,
        AlgorithmParameters::EllipticCurve(_) => AlgorithmFamily::Ec,
        AlgorithmParameters::OctetKeyPair(_) => AlgorithmFamily::Ed,
        _ => return false,
    };
    let says = key.common.key_algorithm.map(|says| says.to_string());
    family == algorithm.family() && says.is_none_or(|says| says == format!("{algorithm:?}"))
}

/// What a token has to say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    pub issuer: &'a str,
    pub client_id: &'a str,
    /// As it was sent with the request that this answers.
    pub nonce: &'a str,
    pub now: Timestamp,
}

/// Whom a provider speaks of.
#[derive(Debug, Clone, PartialEq)]
pub struct IdToken {
    /// Never given to somebody else by this issuer.
    pub subject: String,
    /// All that it says.
    pub claims: Map<String, Value>,
}

/// What `token` says, if one of `keys` signed it and it is what was expected.
///
/// # Errors
/// Says what is wrong with it.
pub fn verify(token: &str, keys: &Keys, expected: &Expected<'_>) -> Result<IdToken, Error> {
    let header = header(token)?;
    let key =
        keys.find(&header).ok_or(Error::IdToken("is signed with a key that the provider does not have"))?;
    let key =
        DecodingKey::from_jwk(key).map_err(|_| Error::IdToken("is signed with a key that cannot be read"))?;
    let mut validation = Validation::new(header.alg);
    // The time is handed in, and the rest is looked at below: what is wrong is said.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let claims = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation)
        .map_err(|_| Error::IdToken("has a wrong signature"))?
        .claims;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(expected.issuer) {
        return Err(Error::IdToken("is of another issuer"));
    }
    let audiences: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let azp = text("azp");
    if !audiences.contains(&expected.client_id)
        || (audiences.len() > 1 && azp.is_none())
        || azp.is_some_and(|azp| azp != expected.client_id)
    {
        return Err(Error::IdToken("is for somebody else"));
    }
    if text("nonce") != Some(expected.nonce) {
        return Err(Error::IdToken("does not answer this login"));
    }
    let second = |name: &str| claims.get(name).and_then(Value::as_f64);
    #[allow(clippy::cast_precision_loss, reason = "seconds of our time are far below 2^52")]
    let (now, skew) = (expected.now.as_second() as f64, model::limits::CLOCK_SKEW.as_secs_f64());
    match second("exp") {
        Some(exp) if exp + skew > now => {}
        _ => return Err(Error::IdToken("has expired")),
    }
    if second("iat").is_none_or(|iat| iat > now + skew) || second("nbf").is_some_and(|nbf| nbf > now + skew) {
        return Err(Error::IdToken("is of the future"));
    }
    let subject = text("sub").unwrap_or_default().to_owned();
    if subject.is_empty() || subject.len() > LONGEST_SUBJECT {
        return Err(Error::IdToken("names nobody"));
    }
    Ok(IdToken { subject, claims })
}

fn header(token: &str) -> Result<Header, Error> {
    if token.len() > LONGEST {
        return Err(Error::IdToken("is too long"));
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| Error::IdToken("is none"))?;
    if header.alg.family() == AlgorithmFamily::Hmac || header.crit.is_some() {
        return Err(Error::IdToken("is signed in a way that counts for nothing"));
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        rsa::{KeySize, PublicKeyComponents},
        signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
    };
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
    use serde_json::json;

    use super::*;

    struct Provider {
        key: RsaKeyPair,
    }

    impl Provider {
        fn new() -> Self {
            Self { key: RsaKeyPair::generate(KeySize::Rsa2048).unwrap() }
        }

        fn jwk(&self) -> Value {
            let public = PublicKeyComponents::<Vec<u8>>::from(self.key.public_key());
            json!({ "kty": "RSA", "kid": "a", "use": "sig", "n": BASE64.encode(public.n), "e": BASE64.encode(public.e) })
        }

        fn keys(&self) -> Keys {
            Keys::parse(json!({ "keys": [self.jwk()] }).to_string().as_bytes()).unwrap()
        }

        fn sign(&self, header: &Value, claims: &Value) -> String {
            let message =
                format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
            let mut signature = vec![0; self.key.public_modulus_len()];
            self.key
                .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
                .unwrap();
            format!("{message}.{}", BASE64.encode(signature))
        }
    }

    fn header() -> Value {
        json!({ "alg": "RS256", "kid": "a" })
    }

    fn claims() -> Value {
        json!({ "iss": "https://id.example", "sub": "007", "aud": "opsc", "nonce": "n", "iat": 1000, "exp": 1300,
                "preferred_username": "ada" })
    }

    fn expected() -> Expected<'static> {
        Expected {
            issuer: "https://id.example",
            client_id: "opsc",
            nonce: "n",
            now: Timestamp::from_second(1000).unwrap(),
        }
    }

    fn with(changes: &Value) -> Value {
        let mut claims = claims();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        claims
    }

    #[test]
    fn a_token_says_who_it_is() {
        let provider = Provider::new();
        let keys = provider.keys();
        for good in [
            claims(),
            with(&json!({ "aud": ["opsc"] })),
            with(&json!({ "aud": ["opsc", "other"], "azp": "opsc" })),
            with(&json!({ "exp": 1300.5 })),
            // The two clocks may differ.
            with(&json!({ "iat": 1020, "exp": 980 })),
        ] {
            let token = provider.sign(&header(), &good);
            assert!(keys.know(&token));
            let said = verify(&token, &keys, &expected()).unwrap_or_else(|error| panic!("{good}: {error}"));
            assert_eq!((said.subject.as_str(), &said.claims["preferred_username"]), ("007", &json!("ada")));
        }
    }

    #[test]
    fn what_is_not_for_this_login_counts_for_nothing() {
        let provider = Provider::new();
        let keys = provider.keys();
        for (changes, why) in [
            (json!({ "iss": "https://id.example/" }), "is of another issuer"),
            (json!({ "iss": null }), "is of another issuer"),
            (json!({ "aud": "other" }), "is for somebody else"),
            (json!({ "aud": null }), "is for somebody else"),
            (json!({ "aud": ["opsc", "other"] }), "is for somebody else"),
            (json!({ "azp": "other" }), "is for somebody else"),
            (json!({ "nonce": "m" }), "does not answer this login"),
            (json!({ "nonce": null }), "does not answer this login"),
            (json!({ "exp": 900 }), "has expired"),
            (json!({ "exp": null }), "has expired"),
            (json!({ "exp": "1300" }), "has expired"),
            (json!({ "iat": 1200 }), "is of the future"),
            (json!({ "iat": null }), "is of the future"),
            (json!({ "nbf": 1200 }), "is of the future"),
            (json!({ "sub": "" }), "names nobody"),
            (json!({ "sub": 7 }), "names nobody"),
            (json!({ "sub": "x".repeat(256) }), "names nobody"),
        ] {
            let token = provider.sign(&header(), &with(&changes));
            let error = verify(&token, &keys, &expected()).unwrap_err().to_string();
            assert!(error.contains(why), "{changes}: {error}");
        }
    }

    #[test]
    fn only_a_key_of_the_provider_signs() {
        let (provider, other) = (Provider::new(), Provider::new());
        let keys = provider.keys();
        let modulus = BASE64.decode(provider.jwk()["n"].as_str().unwrap()).unwrap();
        let unsigned = |alg: &str| {
            let head = json!({ "alg": alg, "kid": "a" });
            format!("{}.{}", BASE64.encode(head.to_string()), BASE64.encode(claims().to_string()))
        };
        let hmac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &modulus);
        let hs256 = unsigned("HS256");
        let good = provider.sign(&header(), &claims());
        let body = good.rsplit_once('.').unwrap().0;
        for bad in [
            other.sign(&header(), &claims()),
            other.sign(&json!({ "alg": "RS256", "kid": "a", "jwk": other.jwk() }), &claims()),
            provider.sign(&json!({ "alg": "RS256", "kid": "b" }), &claims()),
            provider.sign(&json!({ "alg": "RS384", "kid": "a" }), &claims()),
            provider.sign(&json!({ "alg": "ES256", "kid": "a" }), &claims()),
            provider.sign(&json!({ "alg": "RS256", "kid": "a", "crit": ["x"] }), &claims()),
            format!("{}.", unsigned("none")),
            format!("{hs256}.{}", BASE64.encode(aws_lc_rs::hmac::sign(&hmac, hs256.as_bytes()))),
            format!("{body}."),
            body.to_owned(),
            String::new(),
            "a.b.c".to_owned(),
        ] {
            assert!(verify(&bad, &keys, &expected()).is_err(), "{bad}");
        }
        // A token without `kid` is good where there is only one key that it can be of.
        let anonymous = provider.sign(&json!({ "alg": "RS256" }), &claims());
        verify(&anonymous, &keys, &expected()).unwrap();
        let mut second = other.jwk();
        second["kid"] = json!("b");
        let two = json!({ "keys": [provider.jwk(), second] }).to_string();
        assert!(verify(&anonymous, &Keys::parse(two.as_bytes()).unwrap(), &expected()).is_err());
    }

    #[test]
    fn keys_that_do_not_sign_are_passed_over() {
        let provider = Provider::new();
        let mut encrypts = provider.jwk();
        encrypts["use"] = json!("enc");
        let set = json!({ "keys": [
            encrypts, { "kty": "oct", "kid": "a", "k": "AAAA" }, { "kty": "from the future" }, 7
        ] });
        let keys = Keys::parse(set.to_string().as_bytes()).unwrap();
        assert!(keys.0.is_empty());
        assert!(!keys.know(&provider.sign(&header(), &claims())));
        Keys::parse(b"{}").unwrap_err();
    }
}
