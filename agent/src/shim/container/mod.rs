//! A run in a container: by the Docker/Podman API of an engine on this host, with the output, the bounds and the record of any
//! other run.
//!
//! 1. The container has the attempt's name and labels, and is noted in the attempt's folder before it is made (see [`note`]).
//!    Whoever finds the note and no shim removes it.
//! 2. Its output comes through a connection that is open before it starts, and is kept nowhere by the engine. As long as
//!    nothing is read, the container waits.
//! 3. What the engine says last is believed, not what it was asked to do: a run is over when its container is seen not to
//!    run, and the record is written after its removal was tried.
//! 4. The runtime that speaks with the engine has no thread of its own, and nothing forks.

mod account;
mod ears;
mod engine;
mod folders;
mod life;
pub mod note;
mod plan;

use std::time::Duration;

use model::Reason;
use nix::sys::signalfd::SignalFd;

use self::{
    account::Account,
    ears::Ears,
    engine::Engine,
    life::{Life, Means},
    plan::Plan,
};
use super::{
    control::Control,
    not_started,
    output::Output,
    prepare::Failure,
    run::{self, Bounds},
    spec::Spec,
};

/// How long an agent that starts waits for an engine's answer.
const LOOK_WITHIN: Duration = Duration::from_secs(10);

/// Whether the run is one for this module.
pub(super) fn is_wanted(spec: &Spec) -> bool {
    spec.command.as_ref().is_some_and(|command| !command.image.is_empty())
}

/// Whether an engine answers; `socket` is the one that the host's policy names, if it does.
///
/// # Errors
/// Where one was looked for, and what was found there.
pub(super) async fn look(socket: &str) -> Result<(), String> {
    match tokio::time::timeout(LOOK_WITHIN, Engine::find(socket)).await {
        Ok(found) => found.map(drop),
        Err(_) => Err(format!("no container engine has answered within {} s", LOOK_WITHIN.as_secs())),
    }
}

/// Runs it from start to end, and gives the record without the ids.
pub(super) fn run(
    spec: &mut Spec,
    control: &mut Control,
    signals: &SignalFd,
    output: Output,
) -> proto::ExitRecord {
    let bounds = run::bounds(spec);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    match runtime {
        Ok(runtime) => runtime.block_on(lead(spec, control, signals, bounds, output)),
        Err(error) => not_started(unavailable(&error.to_string()), output),
    }
}

async fn lead(
    spec: &mut Spec,
    control: &mut Control,
    signals: &SignalFd,
    bounds: Bounds,
    output: Output,
) -> proto::ExitRecord {
    let mut ears = match Ears::new(control, signals) {
        Ok(ears) => ears,
        Err(error) => return not_started(unavailable(&error.to_string()), output),
    };
    match Box::pin(begin(spec, &mut ears)).await {
        Ok(means) => Life::new(means, ears, bounds, output).finish().await,
        Err(failure) => not_started(failure, output),
    }
}

/// Makes the container and starts it. What was made is removed again when that fails.
async fn begin(spec: &mut Spec, ears: &mut Ears<'_>) -> Result<Means, Failure> {
    let name = format!("{}{}", engine::NAME_PREFIX, spec.attempt_name());
    let socket = spec.engine.clone();
    let plan = Plan::new(spec)?;
    let engine = ears.meanwhile(Engine::find(&socket)).await.map_err(|why| unavailable(&why))?;
    plan.check_folders(&engine)?;
    let image = ears.meanwhile(engine.image(&plan.image)).await.map_err(|why| unavailable(&why))?;
    let asked = plan.asked();
    note::write(&engine.socket, &name).map_err(|error| {
        let detail = format!("the container cannot be noted in the attempt's folder: {error}");
        Failure { reason: Reason::SpawnFailed, detail }
    })?;
    let (body, lent, script) = plan.into_body(image);
    let made = Box::pin(make(&engine, &name, body, &asked, ears)).await;
    match made {
        Ok(Begun { output, account, started_at }) => {
            Ok(Means { engine, name, output, account, started_at, _lent: lent, _script: script })
        }
        Err(failure) => {
            // It may be there even if the engine did not say so in time.
            Err(match life::remove(&engine, &name).await {
                Ok(()) => failure,
                Err(why) => Failure { detail: format!("{}; {why}", failure.detail), ..failure },
            })
        }
    }
}

/// A container that was started.
struct Begun {
    output: engine::Attached,
    account: Account,
    /// Microseconds since 1970 UTC.
    started_at: i64,
}

async fn make(
    engine: &Engine,
    name: &str,
    body: bollard::models::ContainerCreateBody,
    asked: &plan::Asked,
    ears: &mut Ears<'_>,
) -> Result<Begun, Failure> {
    let id = ears.meanwhile(engine.create(name, body)).await.map_err(|why| unavailable(&why))?;
    let made = ears.meanwhile(engine.look(name)).await.map_err(|why| unavailable(&why))?;
    asked.compare(made.as_ref()).map_err(|missing| unavailable(&missing))?;
    let output = ears.meanwhile(engine.attach(name)).await.map_err(|why| unavailable(&why))?;
    if let Some(why) = ears.wish() {
        return Err(Failure { reason: why, detail: "ended before it began".to_owned() });
    }
    let started_at = crate::clock::now_micros();
    ears.meanwhile(engine.start(name)).await.map_err(|why| not_starting(&why))?;
    Ok(Begun { output, account: Account::open(&id), started_at })
}

/// What is said of a container that cannot be had.
fn unavailable(missing: &str) -> Failure {
    let detail = format!("this host cannot run the container: {missing}");
    Failure { reason: Reason::SandboxUnavailable, detail }
}

/// The engines have no codes for why a program does not start, only words.
fn not_starting(why: &str) -> Failure {
    let words = why.to_ascii_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    let reason = if says(&["workdir", "working directory", "chdir to cwd"]) {
        Reason::BadWorkingDirectory
    } else if says(&["executable file not found", "exec: "]) {
        Reason::ProgramNotFound
    } else {
        Reason::SpawnFailed
    };
    Failure { reason, detail: format!("the container does not start: {why}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_engines() {
        let cases = [
            ("workdir \"/no\" does not exist on container abc", Reason::BadWorkingDirectory),
            (
                "chdir to cwd (\"/no\") set in config.json failed: permission denied",
                Reason::BadWorkingDirectory,
            ),
            ("exec: \"no\": executable file not found in $PATH", Reason::ProgramNotFound),
            ("no space left on device", Reason::SpawnFailed),
        ];
        for (why, reason) in cases {
            assert_eq!(not_starting(why).reason, reason, "{why}");
        }
    }
}
