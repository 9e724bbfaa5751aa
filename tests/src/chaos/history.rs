//! The record of a chaos: everything that was asked, acknowledged, seen and broken, a JSON line each, only ever added to.
//!
//! Times are milliseconds since the begin. A record of something seen is dated when it was known, a look at something
//! when the look began: so what a later look finds was there after what was seen.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use model::{Reason, attempt::AttemptState, run::RunState};
use serde::{Deserialize, Serialize};

use super::{faults::Kind as Fault, job::Job};
use crate::clock;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    Begun {
        seed: u64,
        seconds: u64,
        hosts: Vec<String>,
    },
    /// A request was sent; until it is acknowledged, again and again with the same key.
    Asked {
        at: u64,
        job: Job,
    },
    Acknowledged {
        at: u64,
        number: u64,
        execution: String,
    },
    /// The API said that it will not.
    Denied {
        at: u64,
        number: u64,
        answer: String,
    },
    CancelAcknowledged {
        at: u64,
        number: u64,
    },
    /// A run was seen in a state that is not the one it was last seen in.
    Seen {
        at: u64,
        number: u64,
        run: String,
        host: String,
        state: RunState,
        reason: Option<Reason>,
        attempt: i32,
        exit_code: Option<i32>,
    },
    /// What the controller holds of a stream of an attempt of a run that has ended.
    Output {
        at: u64,
        number: u64,
        run: String,
        attempt: i32,
        stream: u8,
        held: Held,
    },
    /// Something was broken, from `at` until `until`.
    Fault {
        at: u64,
        until: u64,
        kind: Fault,
        /// A host, a controller or `postgres`.
        victim: String,
        /// How it is known that it happened.
        proof: String,
        /// The runs and executions that it was done to, or the hosts.
        subjects: Vec<String>,
    },
    /// A process ended that nobody broke.
    Fell {
        at: u64,
        who: String,
        how: String,
    },
    /// The runs that had a living process.
    Alive {
        at: u64,
        runs: Vec<String>,
    },
    Used {
        at: u64,
        who: String,
        memory_kib: u64,
        disk_kib: u64,
    },
    /// How many agents a controller serves.
    Serves {
        at: u64,
        who: String,
        agents: u64,
    },
    /// From here on nothing is broken any more.
    FaultsOver {
        at: u64,
    },
    /// A process of a job said that it starts, in the order of these.
    Started {
        run: String,
        attempt: i32,
        number: u64,
        token: String,
        host: String,
        /// Other attempts of its run that had a living process then, as it saw.
        beside: Vec<i32>,
    },
    /// An attempt in the tables when all was over, in the order in which they were offered.
    Offered {
        at: u64,
        run: String,
        attempt: i32,
        host: String,
        fence: i64,
        state: AttemptState,
        reason: Option<Reason>,
        exit_code: Option<i32>,
        ended: Option<u64>,
    },
    /// The audit tells that a run was refused because nobody had authorised it.
    Audited {
        run: String,
    },
    /// The state of an execution when all was over; none when it could not be read.
    Ended {
        number: u64,
        execution: String,
        ended: bool,
    },
    /// What was left on a host when all was over: folders of attempts.
    Left {
        at: u64,
        host: String,
        folders: Vec<String>,
    },
    /// A last command on a host, after all.
    Probed {
        host: String,
        succeeded: bool,
    },
    Over {
        at: u64,
    },
}

/// What is held of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Bytes, without a hole, from the first.
    pub bytes: u64,
    pub sha256: String,
    /// Bytes that are missing on purpose, and are said to be.
    pub gap: u64,
    /// Bytes that the host says were written; known only with an exit record.
    pub written: Option<u64>,
    pub complete: Option<bool>,
    /// What is wrong with the pieces: holes, repeats, or an order that is none.
    pub fault: Option<String>,
}

/// The history while it is made.
#[derive(Debug)]
pub struct History {
    begun: Instant,
    begun_at: jiff::Timestamp,
    inner: Mutex<(Vec<Record>, BufWriter<File>)>,
}

impl History {
    /// A new one, also written to `file`.
    ///
    /// # Panics
    /// When the file cannot be made.
    pub fn create(file: &Path) -> Self {
        let file = File::create(file).expect("the work folder can be written");
        Self {
            begun: Instant::now(),
            begun_at: clock::now(),
            inner: Mutex::new((Vec::new(), BufWriter::new(file))),
        }
    }

    /// Milliseconds since the begin.
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).expect("it does not take that long")
    }

    /// The same for a moment of the wall clock, in milliseconds since 1970 UTC; 0 for what was before the begin.
    pub fn at(&self, moment: i64) -> u64 {
        u64::try_from(moment - self.begun_at.as_millisecond()).unwrap_or(0)
    }

    /// Adds a record.
    ///
    /// # Panics
    /// When the disk does not take it.
    pub fn add(&self, record: Record) {
        let line = serde_json::to_string(&record).expect("records are JSON");
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(inner.1, "{line}").expect("the history can be written");
        inner.0.push(record);
    }

    /// All of it, as it stands in its file by now.
    ///
    /// # Panics
    /// When the disk does not take it.
    pub fn all(&self) -> Vec<Record> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.1.flush().expect("the history can be written");
        inner.0.clone()
    }
}
