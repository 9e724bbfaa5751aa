//! Identifiers. All are UUIDv7, so they sort by the time of their creation; the time and the randomness are
//! handed in, because `model` has neither a clock nor a source of entropy.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a valid {noun} id (a UUID is expected)")]
pub struct InvalidId {
    noun: &'static str,
    text: String,
}

/// The UUIDv7 of `now` (millisecond resolution) with ten bytes of `entropy`.
pub fn uuid_v7(now: Timestamp, entropy: [u8; 10]) -> Uuid {
    let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &entropy).into_uuid()
}

/// The smallest UUIDv7 of `at`: the bound of a partition, the start of a page.
pub fn uuid_v7_floor(at: Timestamp) -> Uuid {
    let millis = u128::try_from(at.as_millisecond()).unwrap_or(0);
    Uuid::from_u128(millis << 80)
}

/// When a UUIDv7 was made, in milliseconds since 1970 UTC.
pub fn uuid_v7_millis(id: Uuid) -> u64 {
    id.as_u64_pair().0 >> 16
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $noun:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, made at `now` with `entropy`.
            pub fn new(now: Timestamp, entropy: [u8; 10]) -> Self {
                Self(uuid_v7(now, entropy))
            }

            /// When it was made, in milliseconds since 1970 UTC.
            pub fn millis(self) -> u64 {
                uuid_v7_millis(self.0)
            }

            /// Reads the sixteen bytes that the wire carries.
            ///
            /// # Errors
            /// When there are not exactly sixteen.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidId> {
                Uuid::from_slice(bytes)
                    .map(Self)
                    .map_err(|_| InvalidId { noun: $noun, text: format!("{} bytes", bytes.len()) })
            }

            /// The sixteen bytes that the wire carries.
            pub fn to_bytes(self) -> Vec<u8> {
                self.0.as_bytes().to_vec()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::try_parse(text).map(Self).map_err(|_| InvalidId { noun: $noun, text: text.to_owned() })
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
    )*};
}

ids! {
    /// An organization: the tenant that owns a row.
    OrgId = "organization";
    /// An agent, and the target that its host is.
    AgentId = "agent";
    /// One start of a job version or of an ad-hoc command.
    ExecutionId = "execution";
    /// One step on one target in one execution.
    RunId = "run";
    /// A job, whatever its versions say.
    JobId = "job";
    /// A script that is kept by name.
    ScriptId = "script";
    /// A job template of an organization's own.
    JobTemplateId = "job-template";
    /// A calendar.
    CalendarId = "calendar";
    /// A schedule.
    ScheduleId = "schedule";
    /// What became of one firing of a schedule.
    OccurrenceId = "occurrence";
    /// A controller process's installation.
    ControllerId = "controller";
    /// An enroll token.
    EnrollTokenId = "enroll-token";
    /// A join token.
    JoinTokenId = "join-token";
    /// An API token.
    ApiTokenId = "token";
    /// A person.
    UserId = "user";
    /// An account of a program.
    ServiceAccountId = "service-account";
    /// A group of people.
    GroupId = "group";
    /// Some hosts that jobs name together.
    TargetGroupId = "target-group";
    /// A role of an organization's own.
    RoleId = "role";
    /// What gives a role to somebody.
    RoleBindingId = "role-binding";
    /// A person's login.
    LoginSessionId = "session";
    /// An invitation, or what lets a person choose a new password.
    OneTimeTokenId = "one-time-token";
}
