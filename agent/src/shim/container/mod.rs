//! A run in a container: by the Docker/Podman API of an engine on this host, with the output, the bounds and the record of any
//! other run.
//!
//! 1. The container has the attempt's name and labels, and is noted in the attempt's folder before it is made (see [`note`]).
//!    Whoever finds the note and no shim removes it.
//! 2. Its output comes through a connection that is open before it starts, and is kept nowhere by the engine. As long as
//!    nothing is read, the container waits.
//! 3. What the engine says last is believed, not what it was asked to do: a run is over when its container is seen not to
//!    run, and the record is written after its removal was tried. What it made is held against what it was asked for before
//!    anything starts.
//! 4. Nothing waits for the engine beyond the run's time or a cancel. An engine that does not answer is done without: what runs
//!    is killed through its control group.
//! 5. The runtime that speaks with the engine has no thread of its own, and nothing forks.

mod account;
mod asked;
mod ears;
mod end;
mod engine;
mod folders;
mod life;
pub mod note;
mod plan;
mod roots;
mod sweep;

pub use self::sweep::sweep;

use std::time::{Duration, Instant};

use model::Reason;
use nix::sys::signalfd::SignalFd;

use self::{
    account::Account,
    asked::Asked,
    ears::Ears,
    engine::{Attached, Engine, Made},
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
    match Box::pin(begin(spec, &mut ears, Instant::now() + bounds.timeout)).await {
        Ok(means) => Box::pin(Life::new(means, ears, bounds, output).finish()).await,
        Err(failure) => not_started(failure, output),
    }
}

/// Makes the container, which must be done by `deadline`. What was made is removed again when that fails.
async fn begin(spec: &mut Spec, ears: &mut Ears<'_>, deadline: Instant) -> Result<Means, Failure> {
    let name = format!("{}{}", engine::NAME_PREFIX, spec.attempt_name());
    let socket = spec.engine.clone();
    let plan = Plan::new(spec)?;
    let engine = ask(ears, deadline, Engine::find(&socket)).await?;
    plan.check_folders(&engine)?;
    let image = ask(ears, deadline, engine.image(&plan.image)).await?;
    plan.check_image(&image)?;
    let (body, kept) = plan.into_body(image, &engine)?;
    let asked = Asked::of(&body);
    note::write(&engine.socket, &name).map_err(|error| {
        let detail = format!("the container cannot be noted in the attempt's folder: {error}");
        Failure { reason: Reason::SpawnFailed, detail }
    })?;
    fault::point("shim.container.noted");
    let made = Box::pin(make(&engine, &name, body, &asked, ears, deadline)).await;
    match made {
        Ok((made, output)) => {
            fault::point("shim.container.attached");
            let (account, warnings) = (Account::new(made.id), made.warnings);
            Ok(Means { engine, name, output, account, warnings, kept })
        }
        Err(failure) => {
            // It may be there even if the engine did not say so in time, or come to be: then its note is kept.
            let has_time = matches!(failure.reason, Reason::SandboxUnavailable | Reason::SpawnFailed);
            let within = if has_time { end::REMOVE_WITHIN } else { end::REMOVE_OF_SILENT_WITHIN };
            let removal = Box::pin(end::remove(&engine, &name, within));
            Err(match ears.meanwhile(removal).await {
                Ok(()) => {
                    if has_time {
                        note::forget();
                    }
                    failure
                }
                Err(why) => Failure { detail: format!("{}; {why}", failure.detail), ..failure },
            })
        }
    }
}

/// Asks the engine before anything runs.
async fn ask<T>(
    ears: &mut Ears<'_>,
    deadline: Instant,
    call: impl Future<Output = Result<T, String>>,
) -> Result<T, Failure> {
    match ears.until(deadline, call).await {
        Ok(answer) => answer.map_err(|why| unavailable(&why)),
        Err(reason) => Err(Failure { reason, detail: "ended before it began".to_owned() }),
    }
}

/// Makes it, and opens its output.
async fn make(
    engine: &Engine,
    name: &str,
    body: bollard::models::ContainerCreateBody,
    asked: &Asked,
    ears: &mut Ears<'_>,
    deadline: Instant,
) -> Result<(Made, Attached), Failure> {
    let made = ask(ears, deadline, Box::pin(engine.create(name, body))).await?;
    fault::point("shim.container.made");
    note::add_id(&made.id).map_err(|error| {
        let detail = format!("the container's id cannot be noted in the attempt's folder: {error}");
        Failure { reason: Reason::SpawnFailed, detail }
    })?;
    let found = ask(ears, deadline, engine.look(name)).await?;
    asked.check(&made.warnings, found.as_ref()).map_err(|missing| unavailable(&missing))?;
    let output = ask(ears, deadline, engine.attach(name)).await?;
    match ears.wish() {
        Some(reason) => Err(Failure { reason, detail: "ended before it began".to_owned() }),
        None => Ok((made, output)),
    }
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
