//! What the sandbox costs: from the call of the API to the start of the process, over the same without a sandbox.
//!
//! The process is `date`, which prints the time at which it runs: what it takes to get there itself is in all of them. The
//! profiles take turns, so that whatever else the machine does is in all of them too.

use std::process::Command;

use anyhow::{Context as _, ensure};
use model::{command, sandbox::Profile};
use serde_json::json;

use super::{EXECUTION_WITHIN, only};
use crate::{
    clock,
    figure::Book,
    lab::{Database, Lab, check_succeeded},
    plan::Plan,
    stats::percentile,
};

/// Prints nanoseconds since 1970.
const DATE: [&str; 2] = ["/bin/date", "+%s%N"];
const PROFILES: [(Profile, &str); 4] = [
    (Profile::None, ""),
    (Profile::Standard, "sandbox_standard_ms"),
    (Profile::Strict, "sandbox_strict_ms"),
    (Profile::Isolated, "sandbox_isolated_ms"),
];
const NANOS_PER_MILLI: f64 = 1_000_000.0;

/// The three figures.
pub(super) async fn measure(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    lab.real(1).await?;
    let mut database = lab.database().await?;
    for (profile, _) in PROFILES {
        for _ in 0..plan.warm_up {
            start(lab, &mut database, profile).await?;
        }
    }
    let mut medians = PROFILES.map(|_| Vec::new());
    let mut raw = PROFILES.map(|_| Vec::new());
    for _ in 0..plan.repetitions {
        let mut took = PROFILES.map(|_| Vec::new());
        for _ in 0..plan.sandboxed {
            for ((profile, _), took) in PROFILES.iter().zip(&mut took) {
                took.push(start(lab, &mut database, *profile).await?);
            }
        }
        for ((medians, raw), took) in medians.iter_mut().zip(&mut raw).zip(took) {
            medians.extend(percentile(&took, 50.0));
            raw.push(took);
        }
    }
    for (index, (_, name)) in PROFILES.iter().enumerate().skip(1) {
        let over = medians[index].iter().zip(&medians[0]).map(|(sandboxed, bare)| sandboxed - bare).collect();
        let note = format!("call to process start, p50 of {} in turn, over 'none'", plan.sandboxed);
        book.enter(name, over, note, json!({ "none_ms": &raw[0], "sandboxed_ms": &raw[index] }));
    }
    Ok(())
}

/// Milliseconds from the call until the process ran.
async fn start(lab: &Lab, database: &mut Database, profile: Profile) -> anyhow::Result<f64> {
    let program = command::Program::Argv(DATE.map(str::to_owned).to_vec());
    let command = command::Command { sandbox: Some(profile), ..command::Command::new(program) };
    let called = clock::now();
    let id = lab.api.start_command(only(0), command).await?.id;
    database.wait_ended(id, EXECUTION_WITHIN).await?;
    check_succeeded(&lab.api.execution(id).await?, 1)?;
    since(called, &lab.api.text(id).await?)
}

/// Milliseconds from `called` to the time that `date` said.
fn since(called: jiff::Timestamp, said: &str) -> anyhow::Result<f64> {
    let ran: i128 = said.trim().parse().with_context(|| format!("'{said}' is no time"))?;
    let took = ran - called.as_nanosecond();
    ensure!(took > 0, "the clock went back");
    #[allow(clippy::cast_precision_loss, reason = "a run takes far less than 2^52 ns")]
    Ok(took as f64 / NANOS_PER_MILLI)
}

/// Milliseconds until `date` runs when this process starts it, in bubblewrap's own sandbox or in none.
///
/// # Errors
/// When it cannot be started.
pub(super) fn bare(wrapped: bool) -> anyhow::Result<f64> {
    const WRAP: [&str; 13] = [
        "bwrap",
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--ro-bind",
        "/",
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
    ];
    let words: Vec<&str> = WRAP.into_iter().filter(|_| wrapped).chain(DATE).collect();
    let called = clock::now();
    let done = Command::new(words[0]).args(&words[1..]).output();
    let done = done.with_context(|| format!("cannot start {}", words[0]))?;
    ensure!(done.status.success(), "{}: {}", words[0], String::from_utf8_lossy(&done.stderr).trim());
    since(called, &String::from_utf8_lossy(&done.stdout))
}
