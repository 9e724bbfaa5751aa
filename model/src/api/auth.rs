//! Entering: the first start, logins, sessions, second factors, invitations, and what somebody may do.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Invalid,
    access::{Permission, canonical_user, validate_slug},
    id::{LoginSessionId, OrgId, RoleBindingId, UserId},
    limits,
};

/// A text that must not be shown: a password, a code. It is serialized only to be sent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// Checks a password that somebody chooses. There are no rules on kinds of characters: length is what counts.
///
/// # Errors
/// Names the field and the limit.
pub fn validate_password(field: &str, password: &Secret, user: &str) -> Result<(), Invalid> {
    let text = password.expose();
    if text.len() > limits::PASSWORD_BYTES {
        return Err(Invalid::over(field, "PASSWORD_BYTES", limits::PASSWORD_BYTES, "bytes"));
    }
    let mut distinct: Vec<char> = text.chars().collect();
    if distinct.len() < limits::PASSWORD_CHARS {
        return Err(Invalid::new(field, format!("must have {} characters at least", limits::PASSWORD_CHARS)));
    }
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() < limits::PASSWORD_CHARS / 3 {
        return Err(Invalid::new(field, "has too few different characters"));
    }
    if !user.is_empty() && text.to_lowercase().contains(user) {
        return Err(Invalid::new(field, "must not contain the person's name"));
    }
    Ok(())
}

/// `POST /api/v1/setup`: makes the first organization and its administrator, once.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// As the first start printed it and wrote it into `setup.token` of the data folder.
    pub token: Secret,
    /// Name of the first organization; `main` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// Name of the administrator.
    pub user: String,
    pub password: Secret,
}

impl Setup {
    pub fn organization(&self) -> &str {
        self.organization.as_deref().unwrap_or("main")
    }

    /// Checks every field, and answers the canonical name.
    ///
    /// # Errors
    /// The first field that is wrong, with what is allowed.
    pub fn validate(&self) -> Result<String, Invalid> {
        validate_slug("organization", self.organization())?;
        let user = canonical_user(&self.user)?;
        validate_password("password", &self.password, &user)?;
        Ok(user)
    }
}

/// `POST /api/v1/auth/login`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    pub user: String,
    pub password: Secret,
    /// The one-time code of an authenticator, or a recovery code, where the person has a second factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Secret>,
    /// Where to work, for members of several organizations; by default the one that the person joined first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// For browsers: the tokens become cookies that no script can read, and are not in the answer.
    #[serde(default)]
    pub cookies: bool,
}

/// An OpenID provider by which people may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LoginProvider {
    pub name: String,
    /// Where a browser begins.
    pub login: String,
}

/// `PUT /api/v1/users/{user}/identities/{provider}`: who a person is at an OpenID provider.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkIdentity {
    /// The provider's `sub`; a login that was refused because the name is taken has it in the audit.
    pub subject: String,
}

/// `POST /api/v1/auth/oidc/redeem`: a program that a person let in by a provider fetches the session.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RedeemLogin {
    /// As the browser brought it.
    pub code: Secret,
    /// The secret whose SHA-256 was the challenge that the login began with.
    pub verifier: Secret,
}

/// `POST /api/v1/auth/refresh`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// Left out by browsers, which have it as a cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<Secret>,
    /// Go on in this organization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
}

/// The answer to a login, and to each refresh.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Tokens {
    /// Send it as `Authorization: Bearer`. Absent where cookies were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<Secret>,
    /// Good for one refresh. Absent where cookies were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<Secret>,
    #[schema(value_type = String, format = DateTime)]
    pub access_expires_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub session_expires_at: Timestamp,
    pub session_id: LoginSessionId,
    pub user: String,
    pub organization: String,
    /// All that this person is a member of, by name.
    pub organizations: Vec<String>,
}

/// A login that has not ended.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LoginSession {
    pub id: LoginSessionId,
    pub user: String,
    pub organization: String,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub last_used_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    pub address: String,
    /// What the client calls itself.
    pub client: String,
    /// The one that asks.
    pub current: bool,
}

/// `PUT /api/v1/auth/password`: another password for oneself. All other sessions end.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    pub current: Secret,
    pub new: Secret,
}

/// `POST /api/v1/auth/reset-password`: a new password, with a token that an administrator made.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetPassword {
    pub token: Secret,
    pub password: Secret,
}

/// `POST /api/v1/auth/accept-invitation`: joins an organization. Who is in the installation already gives the password that
/// he has; the others choose name and password.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptInvitation {
    pub token: Secret,
    pub user: String,
    pub password: Secret,
    /// As with a login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Secret>,
}

/// `POST /api/v1/auth/register`, where the configuration allows it: a new person without any role.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Register {
    pub user: String,
    pub password: Secret,
}

/// A person that was made, or a member that was added.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Entered {
    pub id: UserId,
    pub user: String,
    pub organization: String,
}

/// `POST /api/v1/auth/totp`: what an authenticator needs. It counts once a code of it was confirmed.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TotpStarted {
    /// Base32.
    pub secret: Secret,
    /// `otpauth://`, to be shown as a QR code.
    pub url: Secret,
}

/// `POST /api/v1/auth/totp/confirm`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmTotp {
    pub code: Secret,
}

/// The only time that recovery codes are shown. Each is good once.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RecoveryCodes {
    pub recovery_codes: Vec<Secret>,
}

/// `POST /api/v1/auth/totp/remove`: without a second factor from now on.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveTotp {
    pub password: Secret,
}

/// `GET /api/v1/auth/can-i`: whether somebody may do something, and why.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Verdict {
    pub allowed: bool,
    pub permission: Permission,
    /// Who was asked about.
    pub actor: String,
    /// The host that was asked about; without one the answer says for which it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Of a permission that is confined to some hosts: which. Absent: all, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<String>,
    /// One sentence.
    pub reason: String,
    /// What gives it.
    pub bindings: Vec<BindingReason>,
}

/// A binding that speaks for a verdict, or would if its scope were another.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BindingReason {
    pub id: RoleBindingId,
    pub role: String,
    /// The group that gives it to its member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<String>,
    pub applies: bool,
    /// Why it does not apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// An organization.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Organization {
    pub id: OrgId,
    pub name: String,
    /// The one that setup made: what concerns the installation is granted here.
    pub is_home: bool,
    pub members: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// `POST /api/v1/organizations`: a new one, of which the caller is a member and administrator.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateOrganization {
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_and_not_the_name() {
        let check = |text: &str| validate_password("password", &Secret::new(text), "ada");
        assert!(check("correct horse battery").is_ok());
        for bad in
            ["", "short", "elevenchars", "aaaaaaaaaaaaaaaa", "my name is Ada and so on", &"x1".repeat(600)]
        {
            let invalid = check(bad).unwrap_err();
            assert_eq!(invalid.field, "password", "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let login = Login {
            user: "ada".to_owned(),
            password: Secret::new("hunter2"),
            code: Some(Secret::new("123456")),
            organization: None,
            cookies: false,
        };
        let shown = format!("{login:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("123456"), "{shown}");
    }
}
