//! How an organization fares: `GET /api/v1/statistics`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What one point in time stands for; in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bucket {
    Hour,
    Day,
}

impl Bucket {
    pub const ALL: [Self; 2] = [Self::Hour, Self::Day];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// Reads what [`Bucket::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bucket| bucket.as_str() == text)
    }

    pub const fn seconds(self) -> i64 {
        match self {
            Self::Hour => 3600,
            Self::Day => 24 * 3600,
        }
    }

    /// The beginning of the bucket that `at` is in.
    pub fn start(self, at: Timestamp) -> Timestamp {
        let second = at.as_second();
        Timestamp::from_second(second - second.rem_euclid(self.seconds())).unwrap_or(at)
    }
}

/// People and hosts as they are now, and what was started from `since` to `until`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Statistics {
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    pub bucket: Bucket,
    pub people: People,
    /// Hosts by the state of their agents; revoked ones are not counted.
    pub hosts: BTreeMap<String, i64>,
    pub total: Figures,
    /// The same over time, without a hole; the first begins at or before `since`.
    pub buckets: Vec<BucketFigures>,
}

/// The members of the organization, and its programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct People {
    /// All members, with those below.
    pub total: i64,
    /// Those whom an administrator keeps out.
    pub disabled: i64,
    pub with_second_factor: i64,
    /// Those who have used a session or an API token since `since`; a session's uses are known to its last refresh, and
    /// until 30 days after its end.
    pub active: i64,
    pub service_accounts: i64,
}

/// What was started in one bucket.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BucketFigures {
    #[schema(value_type = String, format = DateTime)]
    pub start: Timestamp,
    #[serde(flatten)]
    pub figures: Figures,
}

/// Executions that were started in a time, and how they have gone by now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Figures {
    /// By state; states without any are left out.
    pub executions: BTreeMap<String, i64>,
    /// Their runs by state; states without any are left out.
    pub runs: BTreeMap<String, i64>,
    /// Succeeded executions among those that have ended, 0 to 1; absent while none has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<f64>,
    /// How long runs took that have ended, in seconds: half of them at most so long; absent while none has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_p50_seconds: Option<f64>,
    /// The same for 95 of 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_p95_seconds: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_begin_at_whole_hours_and_days() {
        let at: Timestamp = "2026-03-01T12:34:56.789Z".parse().unwrap();
        assert_eq!(Bucket::Hour.start(at).to_string(), "2026-03-01T12:00:00Z");
        assert_eq!(Bucket::Day.start(at).to_string(), "2026-03-01T00:00:00Z");
        assert_eq!(Bucket::Day.start(Bucket::Day.start(at)), Bucket::Day.start(at));
        for bucket in Bucket::ALL {
            assert_eq!(Bucket::parse(bucket.as_str()), Some(bucket));
        }
    }
}
