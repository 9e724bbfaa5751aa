//! The jobs of the chaos: what is asked for, and how that is to end when nothing goes wrong.

use std::path::Path;

use fastrand::Rng;
use model::limits;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Marks every process of a job, by its number.
pub const MARK: &str = "CHAOS_JOB";
/// How long a job that is to be ended by others would go on.
const LINGER_MS: u64 = 120_000;
/// What a job that fails exits with.
pub const FAILS_WITH: i32 = 3;

/// How a job is meant to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Succeeds,
    Fails,
    /// Runs until its time limit.
    TimesOut,
    /// Runs until it is cancelled.
    Cancelled,
    /// For hosts that are never there.
    Expires,
    /// Fails a few times, is tried again, and succeeds then.
    Recovers,
    /// Fails as often as it may be tried.
    GivesUp,
    /// Succeeds, and may be run again when it is lost.
    Repeats,
}

/// One execution to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub number: u64,
    pub kind: Kind,
    /// Bytes that it writes to each stream.
    pub stdout: u64,
    pub stderr: u64,
    /// In so many pieces, with pauses between them.
    pub pieces: u64,
    pub pause_ms: u64,
    /// Ignores SIGTERM and leaves a process with a session of its own.
    pub stubborn: bool,
    pub timeout_seconds: i64,
    pub start_within_seconds: i64,
    /// Milliseconds that it goes on for after its last byte.
    pub linger_ms: u64,
    /// Attempts up to this number fail.
    pub fails_until: i32,
    /// Tries in all, where it has a policy of retries.
    pub retry: Option<i64>,
    pub idempotent: bool,
    /// When the cancel is asked for, after the start was acknowledged.
    pub cancel_after_ms: Option<u64>,
    /// What its processes tell the file of starts; of no other job.
    pub token: String,
    /// The label or the name that it is aimed at, and the hosts that these are.
    pub aim: Aim,
    pub hosts: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    Selector(String),
    Name(String),
}

/// The hosts that jobs may be aimed at: the groups with their members, and those that are never there.
#[derive(Debug, Clone)]
pub struct Fleet {
    pub groups: Vec<(String, Vec<String>)>,
    pub hosts: Vec<String>,
    pub absent: Vec<String>,
}

impl Job {
    /// The job of this number; `rng` decides what it is like.
    pub fn invent(number: u64, fleet: &Fleet, rng: &mut Rng) -> Self {
        let kind = match rng.u32(0..100) {
            0..=56 => Kind::Succeeds,
            57..=61 => Kind::Fails,
            62..=67 => Kind::Recovers,
            68..=71 => Kind::GivesUp,
            72..=81 => Kind::Repeats,
            82..=86 => Kind::TimesOut,
            87..=96 => Kind::Cancelled,
            _ => Kind::Expires,
        };
        let ends_by_itself = !matches!(kind, Kind::TimesOut | Kind::Cancelled | Kind::Expires);
        let (aim, hosts) = match kind {
            Kind::Expires => {
                let host = pick(rng, &fleet.absent).clone();
                (Aim::Name(host.clone()), vec![host])
            }
            _ if ends_by_itself && rng.u32(0..10) < 6 => {
                let (group, hosts) = pick(rng, &fleet.groups).clone();
                (Aim::Selector(format!("group={group}")), hosts)
            }
            _ => {
                let host = pick(rng, &fleet.hosts).clone();
                (Aim::Name(host.clone()), vec![host])
            }
        };
        let mut size = || match rng.u32(0..100) {
            0..=14 => 0,
            15..=84 => rng.u64(1..2_000),
            85..=96 => rng.u64(2_000..20_000),
            _ => rng.u64(20_000..200 * 1024),
        };
        let (stdout, stderr) = (size(), size());
        let is_slow = rng.u32(0..10) == 0;
        let fails_until = match kind {
            Kind::Recovers => rng.i32(1..4),
            Kind::Fails | Kind::GivesUp => i32::MAX,
            _ => 0,
        };
        let retry = match kind {
            // One that may fail by a fault as well as by itself needs a try for each.
            Kind::Recovers => Some(i64::from(fails_until) + rng.i64(1..3)),
            Kind::GivesUp => Some(rng.i64(2..5)),
            Kind::Repeats if rng.bool() => Some(4),
            Kind::Cancelled if rng.u32(0..3) == 0 => Some(3),
            _ => None,
        };
        let linger_ms = match kind {
            Kind::TimesOut | Kind::Cancelled => LINGER_MS,
            Kind::Repeats if rng.bool() => rng.u64(0..8_000),
            _ => 0,
        };
        Self {
            number,
            kind,
            stdout,
            stderr,
            pieces: if is_slow { rng.u64(2..10) } else { 1 + u64::from(rng.u32(0..4) == 0) },
            pause_ms: if is_slow { rng.u64(100..500) } else { 0 },
            stubborn: !ends_by_itself && rng.u32(0..2) == 0,
            timeout_seconds: if kind == Kind::TimesOut { rng.i64(1..4) } else { 60 },
            start_within_seconds: if kind == Kind::Expires { rng.i64(1..4) } else { 60 },
            linger_ms,
            fails_until,
            retry,
            idempotent: kind == Kind::Repeats || (kind == Kind::Cancelled && rng.u32(0..4) == 0),
            cancel_after_ms: (kind == Kind::Cancelled).then(|| rng.u64(0..4_000)),
            token: format!("{number}-{:016x}", rng.u64(..)),
            aim,
            hosts,
        }
    }

    /// How an attempt exits that ends by itself.
    pub fn exit_of(&self, attempt: i32) -> i32 {
        if attempt <= self.fails_until { FAILS_WITH } else { 0 }
    }

    /// How often it may be tried at most, whatever happens.
    pub fn tries(&self) -> i64 {
        let once_or_as_often_as_anything = if self.idempotent { *limits::RUN_TRIES.end() } else { 1 };
        self.retry.unwrap_or(once_or_as_often_as_anything)
    }

    /// The request that asks for it. Its processes tell their start in the file `starts`.
    pub fn request(&self, helper: &Path, starts: &Path) -> Value {
        let stubborn = if self.stubborn { "trap '' TERM; (setsid sleep 100 &); " } else { "" };
        let line = format!(
            "{stubborn}exec '{}' '{}' {} {} {} {} {} {} {} {} {FAILS_WITH}",
            helper.display(),
            starts.display(),
            self.number,
            self.token,
            self.stdout,
            self.stderr,
            self.pieces,
            self.pause_ms,
            self.linger_ms,
            self.fails_until,
        );
        let targets = match &self.aim {
            Aim::Selector(selector) => json!({ "selector": selector }),
            Aim::Name(name) => json!({ "names": [name] }),
        };
        // Short pauses: what is tried again is to end in time.
        let retry = self
            .retry
            .map(|tries| json!({ "attempts": tries, "backoff_seconds": 1, "max_backoff_seconds": 2 }));
        json!({
            "targets": targets,
            "command": {
                "program": { "shell": line },
                "env": { MARK: self.number.to_string() },
                "timeout_seconds": self.timeout_seconds,
                "retry": retry,
                "idempotent": self.idempotent,
            },
            "start_within_seconds": self.start_within_seconds,
        })
    }
}

/// One of these, which are never none.
pub(super) fn pick<'a, T>(rng: &mut Rng, all: &'a [T]) -> &'a T {
    &all[rng.usize(0..all.len())]
}
