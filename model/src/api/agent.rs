//! Agents, as `GET /api/v1/agents` shows them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Invalid,
    id::{AgentId, ExecutionId, RunId},
    label::{Facts, Labels, validate_key, validate_labels_in},
    limits,
    run::RunState,
};

/// Where an agent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// Enrolled, but a person has yet to approve it.
    Pending,
    /// Has a session.
    Online,
    /// Has none.
    Offline,
    /// Takes no new runs.
    Draining,
    /// Its certificates are worthless.
    Revoked,
}

impl AgentState {
    pub const ALL: [Self; 5] = [Self::Pending, Self::Online, Self::Offline, Self::Draining, Self::Revoked];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Draining => "draining",
            Self::Revoked => "revoked",
        }
    }

    /// Reads what [`AgentState::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// An agent and the host that it is on.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Agent {
    pub id: AgentId,
    pub name: String,
    pub state: AgentState,
    /// Has a session, whatever its state.
    #[serde(default)]
    pub connected: bool,
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub labels: Labels,
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub facts: Facts,
    /// Runs at a time.
    pub slots: i32,
    /// Version of its program, as it said.
    pub version: String,
    #[schema(value_type = String, format = DateTime)]
    pub enrolled_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_seen_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    pub certificate_expires_at: Timestamp,
    /// Runs that it was offered or runs, and runs that wait for it; only where one agent is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<AgentLoad>,
    /// The newest sample; only where one agent is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<HostMetrics>,
}

/// `POST /api/v1/agents/{agent}/labels`: all labels that it does not name stay.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeLabels {
    /// Labels that the agent will have, with another value or anew.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub set: Labels,
    /// Keys of labels that it will not have; those that it has not are no error.
    #[serde(default)]
    pub remove: Vec<String>,
}

impl ChangeLabels {
    /// Checks what can be judged without the agent.
    ///
    /// # Errors
    /// The first field that is wrong, with what is allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.set.is_empty() && self.remove.is_empty() {
            return Err(Invalid::new("set", "is empty, and so is 'remove'"));
        }
        validate_labels_in("set", &self.set)?;
        if self.remove.len() > limits::LABELS {
            return Err(Invalid::over("remove", "LABELS", limits::LABELS, "labels"));
        }
        self.remove.iter().enumerate().try_for_each(|(index, key)| {
            let field = format!("remove[{index}]");
            // Not whether it could be set: what became the name of a fact since can still be taken away.
            validate_key(&field, key)?;
            if self.set.contains_key(key) {
                return Err(Invalid::new(field, "is in 'set' too"));
            }
            Ok(())
        })
    }

    /// The labels after the change of an agent that has these.
    ///
    /// # Errors
    /// When there would be too many.
    pub fn applied_to(&self, before: &Labels) -> Result<Labels, Invalid> {
        let mut after = before.clone();
        self.remove.iter().for_each(|key| drop(after.remove(key)));
        after.extend(self.set.clone());
        if after.len() > limits::LABELS {
            let (count, limit) = (after.len(), limits::LABELS);
            let problem = format!("would give the agent {count} labels, over the limit LABELS of {limit}");
            return Err(Invalid::new("set", problem));
        }
        Ok(after)
    }
}

/// How many runs an agent has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AgentLoad {
    pub active: i64,
    pub queued: i64,
}

/// A run of an agent, as `GET /api/v1/agents/{agent}/runs` shows it in the order of dispatch.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AgentRun {
    pub id: RunId,
    pub execution_id: ExecutionId,
    /// One line that a person recognises the execution by.
    pub summary: String,
    /// Who started it.
    pub actor: String,
    pub state: RunState,
    pub priority: i16,
    /// Number of the newest attempt, from 1; 0 when there was none.
    pub attempt: i32,
    #[schema(value_type = String, format = DateTime)]
    pub queued_at: Timestamp,
    /// It is not offered before.
    #[schema(value_type = String, format = DateTime)]
    pub due_at: Timestamp,
    /// It expires then, if it still waits.
    #[schema(value_type = String, format = DateTime)]
    pub start_before: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
}

/// How a host fares at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HostMetrics {
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Of all cores together, 0 to 100.
    pub cpu_percent: f64,
    pub memory_total_bytes: i64,
    pub memory_used_bytes: i64,
    pub swap_total_bytes: i64,
    pub swap_used_bytes: i64,
    /// Load averages of 1, 5 and 15 minutes.
    pub load: [f64; 3],
    pub uptime_seconds: i64,
    pub disks: Vec<Disk>,
    /// Totals since the host started.
    pub network_received_bytes: i64,
    pub network_sent_bytes: i64,
}

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Disk {
    pub mount: String,
    pub total_bytes: i64,
    pub available_bytes: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn change(set: &[(&str, &str)], remove: &[&str]) -> ChangeLabels {
        ChangeLabels { set: labels(set), remove: remove.iter().map(|key| (*key).to_owned()).collect() }
    }

    fn many(count: usize) -> Labels {
        (0..count).map(|n| (format!("l{n}"), String::new())).collect()
    }

    #[test]
    fn a_change_of_labels_says_what_is_wrong() {
        for good in [
            change(&[("env", "prod")], &[]),
            change(&[("env", "")], &["role", "role"]),
            // It was a label before it became a fact.
            change(&[], &["sandbox.limits"]),
            ChangeLabels { set: many(limits::LABELS), remove: Vec::new() },
        ] {
            good.validate().expect("it is good");
        }
        let long = "x".repeat(limits::NAME_CHARS + 1);
        for (bad, field, said) in [
            (change(&[], &[]), "set", "remove"),
            (change(&[("a b", "x")], &[]), "set.a b", "label key"),
            (change(&[("", "x")], &[]), "set.", "label key"),
            (change(&[("os", "x")], &[]), "set.os", "fact"),
            (change(&[("And", "x")], &[]), "set.And", "selector"),
            (change(&[("env", "a\nb")], &[]), "set.env", "control"),
            (change(&[("env", &long)], &[]), "set.env", "NAME_CHARS"),
            (change(&[("env", "x")], &["role", "env"]), "remove[1]", "set"),
            (change(&[], &["role", "-"]), "remove[1]", "label key"),
            (change(&[], &[&long]), "remove[0]", "NAME_CHARS"),
            (ChangeLabels { set: many(limits::LABELS + 1), remove: Vec::new() }, "set", "LABELS"),
            (change(&[], &["x"; limits::LABELS + 1]), "remove", "LABELS"),
        ] {
            let invalid = bad.validate().unwrap_err();
            assert_eq!(invalid.field, field, "{invalid}");
            assert!(invalid.problem.contains(said), "{invalid}");
        }
        assert!(serde_json::from_str::<ChangeLabels>(r#"{"set": {}, "add": {}}"#).is_err());
    }

    #[test]
    fn what_a_change_does_not_name_stays() {
        let before = labels(&[("env", "staging"), ("role", "web"), ("rack", "7")]);
        let change = change(&[("env", "prod"), ("team", "a")], &["role", "never"]);
        assert_eq!(change.applied_to(&before), Ok(labels(&[("env", "prod"), ("rack", "7"), ("team", "a")])));
        assert_eq!(change.applied_to(&change.applied_to(&before).unwrap()), change.applied_to(&before));
    }

    #[test]
    fn there_are_never_too_many() {
        let full = many(limits::LABELS);
        let invalid = change(&[("env", "x")], &["never"]).applied_to(&full).unwrap_err();
        assert_eq!(invalid.field, "set");
        assert!(invalid.problem.contains("LABELS of 64"), "{invalid}");
        assert!(change(&[("env", "x")], &["l0"]).applied_to(&full).is_ok());
        assert!(change(&[("l0", "x")], &[]).applied_to(&full).is_ok());
    }
}
