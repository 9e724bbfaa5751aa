//! Tokens as people copy them: of enrollment (`oce1_…`), of the API (`oca1_…`), of joining (`ocj1_…`), of a session
//! (`ocr1_…`), of an invitation or a new password (`oco1_…`), and of the first start (`ocs1_…`).
//!
//! A token is its id, which finds the row, a secret of 32 bytes, of which only the hash is kept, and a checksum, which
//! tells a token that was cut or mistyped from one that is unknown. Enroll and join tokens carry the root's pin too, so
//! that the first contact is no leap of faith. The secret part may contain `_`: tokens are taken apart by length.

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use model::id::{ApiTokenId, EnrollTokenId, JoinTokenId, LoginSessionId, OneTimeTokenId};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{Error, random, sha256};

/// Characters of an id in hex, of 32 bytes in base64url, of the checksum in hex.
const ID: usize = 32;
const BYTES32: usize = 43;
const CHECKSUM: usize = 8;

/// What a token carries beside its id.
type Field = Zeroizing<[u8; 32]>;

/// How one kind of token is called and written.
struct Kind {
    name: &'static str,
    /// The name with its article.
    one: &'static str,
    prefix: &'static str,
}

const ENROLL: Kind = Kind { name: "enroll token", one: "an enroll token", prefix: "oce1_" };
const API: Kind = Kind { name: "API token", one: "an API token", prefix: "oca1_" };
const JOIN: Kind = Kind { name: "join token", one: "a join token", prefix: "ocj1_" };
const REFRESH: Kind = Kind { name: "refresh token", one: "a refresh token", prefix: "ocr1_" };
const ONE_TIME: Kind = Kind { name: "one-time token", one: "a one-time token", prefix: "oco1_" };
const SETUP: Kind = Kind { name: "setup token", one: "a setup token", prefix: "ocs1_" };

impl Kind {
    fn write(&self, id: Uuid, fields: &[&[u8; 32]]) -> String {
        let mut text = format!("{}{}_", self.prefix, id.simple());
        for field in fields {
            BASE64_URL_SAFE_NO_PAD.encode_string(field, &mut text);
            text.push('_');
        }
        let checksum = checksum(&text);
        text.push_str(&checksum);
        text
    }

    /// The id and the `N` fields of 32 bytes of `text`, around which white space does not count.
    fn read<const N: usize>(&self, text: &str) -> Result<(Uuid, [Field; N]), Error> {
        let text = text.trim();
        let rest = text
            .strip_prefix(self.prefix)
            .ok_or(Error::NotAToken { expected: self.one, prefix: self.prefix })?;
        let damaged = || Error::DamagedToken(self.name);
        if !rest.is_ascii() || rest.len() != ID + 1 + N * (BYTES32 + 1) + CHECKSUM {
            return Err(damaged());
        }
        let (body, sum) = text.split_at(text.len() - CHECKSUM);
        if checksum(body) != sum {
            return Err(damaged());
        }
        let (id, mut rest) = rest.split_at(ID);
        let id = Uuid::try_parse(id).map_err(|_| damaged())?;
        let mut fields: [_; N] = std::array::from_fn(|_| Field::new([0; 32]));
        for field in &mut fields {
            let encoded = rest.get(1..=BYTES32).ok_or_else(damaged)?;
            rest = &rest[1 + BYTES32..];
            let length =
                BASE64_URL_SAFE_NO_PAD.decode_slice(encoded, field.as_mut_slice()).map_err(|_| damaged())?;
            if length != field.len() {
                return Err(damaged());
            }
        }
        Ok((id, fields))
    }
}

/// Of all that stands before it, the separator included.
fn checksum(body: &str) -> String {
    hex::encode(&sha256(body.as_bytes())[..CHECKSUM / 2])
}

/// What is kept of a secret. Secrets have 256 random bits, so a plain hash cannot be guessed back.
pub fn hash_secret(secret: &[u8]) -> [u8; 32] {
    sha256(secret)
}

/// Lets one host become an agent.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrollToken {
    pub id: EnrollTokenId,
    pub secret: Zeroizing<[u8; 32]>,
    /// SHA-256 of the root certificate that the controller must present.
    pub root_pin: [u8; 32],
}

impl EnrollToken {
    /// The text to hand to the host, to be shown once. A function and no `Display`, so that no log gets it by accident.
    pub fn reveal(&self) -> String {
        ENROLL.write(self.id.0, &[&self.secret, &self.root_pin])
    }

    /// Reads what [`Self::reveal`] wrote.
    ///
    /// # Errors
    /// When it is something else, or was damaged on the way.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (id, [secret, root_pin]) = ENROLL.read(text)?;
        Ok(Self { id: EnrollTokenId(id), secret, root_pin: *root_pin })
    }
}

impl fmt::Debug for EnrollToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrollToken({}, <redacted>)", self.id)
    }
}

/// Lets one further controller have the keys of the authority's intermediates.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub id: JoinTokenId,
    pub secret: Zeroizing<[u8; 32]>,
    /// SHA-256 of the root certificate that the first controller must present.
    pub root_pin: [u8; 32],
}

impl JoinToken {
    /// The text to hand out, to be shown once. A function and no `Display`, so that no log gets it by accident.
    pub fn reveal(&self) -> String {
        JOIN.write(self.id.0, &[&self.secret, &self.root_pin])
    }

    /// Reads what [`Self::reveal`] wrote.
    ///
    /// # Errors
    /// When it is something else, or was damaged on the way.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (id, [secret, root_pin]) = JOIN.read(text)?;
        Ok(Self { id: JoinTokenId(id), secret, root_pin: *root_pin })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}, <redacted>)", self.id)
    }
}

/// Lets a session go on: it is good for one new access token, and one of its kind.
///
/// All tokens of a session share its family secret: who shows it has, or had, one of them. Ids of sessions are no secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    pub id: LoginSessionId,
    family: Zeroizing<[u8; 32]>,
    secret: Zeroizing<[u8; 32]>,
}

impl RefreshToken {
    /// The first one of a session.
    pub fn new(id: LoginSessionId) -> Self {
        Self { id, family: Zeroizing::new(random()), secret: Zeroizing::new(random()) }
    }

    /// The one that takes this one's place.
    pub fn next(&self) -> Self {
        Self { secret: Zeroizing::new(random()), ..self.clone() }
    }

    /// The text to hand out, to be shown once. A function and no `Display`, so that no log gets it by accident.
    pub fn reveal(&self) -> String {
        REFRESH.write(self.id.0, &[&self.family, &self.secret])
    }

    /// Reads what [`Self::reveal`] wrote.
    ///
    /// # Errors
    /// When it is something else, or was damaged on the way.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (id, [family, secret]) = REFRESH.read(text)?;
        Ok(Self { id: LoginSessionId(id), family, secret })
    }

    /// What is kept of the session's secret.
    pub fn family_hash(&self) -> [u8; 32] {
        hash_secret(&self.family[..])
    }

    /// What is kept of this token's own.
    pub fn hash(&self) -> [u8; 32] {
        hash_secret(&self.secret[..])
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RefreshToken({}, <redacted>)", self.id)
    }
}

macro_rules! plain_tokens {
    ($($(#[$doc:meta])* $name:ident($id:ident) = $kind:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name {
            pub id: $id,
            pub secret: Zeroizing<[u8; 32]>,
        }

        impl $name {
            /// One of this id, with a new secret.
            pub fn new(id: $id) -> Self {
                Self { id, secret: Zeroizing::new(random()) }
            }

            /// The text to hand out, to be shown once. A function and no `Display`, so that no log gets it by accident.
            pub fn reveal(&self) -> String {
                $kind.write(self.id.0, &[&self.secret])
            }

            /// Reads what [`Self::reveal`] wrote.
            ///
            /// # Errors
            /// When it is something else, or was damaged on the way.
            pub fn parse(text: &str) -> Result<Self, Error> {
                let (id, [secret]) = $kind.read(text)?;
                Ok(Self { id: $id(id), secret })
            }

            /// What is kept of it.
            pub fn hash(&self) -> [u8; 32] {
                hash_secret(&self.secret[..])
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}, <redacted>)"), self.id)
            }
        }
    )*};
}

plain_tokens! {
    /// Lets a program speak to the API.
    ApiToken(ApiTokenId) = API;
    /// Lets somebody in once: an invitation, a new password.
    OneTimeToken(OneTimeTokenId) = ONE_TIME;
    /// Makes the first administrator of an installation.
    SetupToken(OneTimeTokenId) = SETUP;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enroll_token() -> EnrollToken {
        EnrollToken {
            id: EnrollTokenId(Uuid::from_bytes([7; 16])),
            // In base64url these bytes are full of '_'.
            secret: Zeroizing::new([0xff; 32]),
            root_pin: [0x5a; 32],
        }
    }

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let token = enroll_token();
        let text = token.reveal();
        assert_eq!(text.len(), 5 + 32 + 1 + 43 + 1 + 43 + 1 + 8);
        assert!(text.starts_with("oce1_07070707070707070707070707070707_______"));
        assert_eq!(EnrollToken::parse(&text).unwrap(), token);
        assert_eq!(EnrollToken::parse(&format!(" {text}\n")).unwrap(), token);

        for _ in 0..100 {
            let token = ApiToken {
                id: ApiTokenId(Uuid::from_bytes(crate::random())),
                secret: Zeroizing::new(crate::random()),
            };
            assert_eq!(ApiToken::parse(&token.reveal()).unwrap(), token);
        }
    }

    #[test]
    fn an_enroll_token_is_no_join_token() {
        let EnrollToken { id, secret, root_pin } = enroll_token();
        let join = JoinToken { id: JoinTokenId(id.0), secret, root_pin };
        assert_eq!(JoinToken::parse(&join.reveal()).unwrap(), join);
        assert!(matches!(JoinToken::parse(&enroll_token().reveal()), Err(Error::NotAToken { .. })));
        assert!(matches!(EnrollToken::parse(&join.reveal()), Err(Error::NotAToken { .. })));
        assert!(!format!("{join:?}").contains("____"));
    }

    #[test]
    fn every_damage_is_seen() {
        let text = enroll_token().reveal();
        for at in 5..text.len() {
            for replacement in ["A", "b", "", "ä", "__"] {
                if &text[at..=at] == replacement {
                    continue;
                }
                let damaged = format!("{}{replacement}{}", &text[..at], &text[at + 1..]);
                assert!(
                    matches!(EnrollToken::parse(&damaged), Err(Error::DamagedToken("enroll token"))),
                    "{damaged}"
                );
            }
            assert!(matches!(EnrollToken::parse(&text[..at]), Err(Error::DamagedToken(_))));
        }
    }

    #[test]
    fn what_is_no_token_is_said_to_be_none() {
        for text in ["", "hello", "oce2_00", "OCE1_00"] {
            assert!(matches!(EnrollToken::parse(text), Err(Error::NotAToken { .. })), "{text}");
        }
        let error = ApiToken::parse(&enroll_token().reveal()).unwrap_err();
        assert_eq!(error.to_string(), "this is not an API token (an API token begins with 'oca1_')");
    }

    #[test]
    fn a_right_checksum_does_not_excuse_a_wrong_body() {
        let body = format!("oca1_{}_{}_", "z".repeat(32), "A".repeat(43));
        assert!(matches!(
            ApiToken::parse(&format!("{body}{}", checksum(&body))),
            Err(Error::DamagedToken(_))
        ));
        // The last character has two bits that must be zero: else one secret had four texts.
        let body = format!("oca1_{}_{}B_", "0".repeat(32), "A".repeat(42));
        assert!(ApiToken::parse(&format!("{body}{}", checksum(&body))).is_err());
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let shown = format!("{:?}", enroll_token());
        assert_eq!(shown, "EnrollToken(07070707-0707-0707-0707-070707070707, <redacted>)");
    }
}
