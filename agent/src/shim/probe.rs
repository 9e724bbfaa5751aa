//! Which sandboxes this host can give: each is made once, as for a run, and what it must deny is tried in it.
//!
//! A process of its own does this, since only one with a single thread may fork as the shim does.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
    process::{ExitCode, Stdio},
    time::Duration,
};

use model::{
    label::{CONTAINERS_FACT, SANDBOX_FACTS},
    sandbox::Profile,
};
use tokio::process::Command;

use super::{
    container,
    prepare::{self, Enforced},
    spawn,
    spec::Spec,
};
use crate::{
    sandbox::{canary, cgroup, temporary},
    sys::{self, Exit, Reaped},
};

/// How long all of it may take.
const WITHIN: Duration = Duration::from_secs(20);

/// What was found of each profile: nothing, or what is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// As facts: `sandbox.strict` = `yes` or `no`, `sandbox.limits` = those that can be enforced, `sandbox.containers`.
    pub facts: BTreeMap<String, String>,
    /// Of those that cannot be given, why not.
    pub missing: BTreeMap<String, String>,
}

/// Looks, in this process, and prints a line for each profile. `first` and `last` bound the users that may be lent.
pub fn main(first: u32, last: u32) -> ExitCode {
    let mut lines = String::new();
    for (profile, fact) in SANDBOX_FACTS {
        let answer = match try_one(profile, first, last) {
            Ok(()) => "yes".to_owned(),
            Err(missing) => format!("no {missing}"),
        };
        let _ = writeln!(lines, "{fact} {answer}");
    }
    let can = cgroup::what_host_can();
    let limits = [("memory", can.memory), ("pids", can.pids), ("cpu", can.cpu), ("io", can.io)];
    let limits: Vec<&str> = limits.into_iter().filter(|(_, can)| *can).map(|(name, _)| name).collect();
    let _ = writeln!(
        lines,
        "sandbox.limits {}",
        if limits.is_empty() { "none".to_owned() } else { limits.join(" ") }
    );
    match io::stdout().lock().write_all(lines.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn try_one(profile: Profile, first_uid: u32, last_uid: u32) -> Result<(), String> {
    let folder = tempfile_folder().map_err(|error| format!("a folder to try it in: {error}"))?;
    std::env::set_current_dir(&folder).map_err(|error| error.to_string())?;
    let mut spec = Spec::default();
    spec.run_id = pki::random::<16>().to_vec();
    (spec.first_uid, spec.last_uid) = (first_uid, last_uid);
    let program = proto::command::Program::Argv(proto::Argv { argv: vec!["canary".to_owned()] });
    spec.command = Some(proto::Command {
        profile: proto::Profile::from(profile).into(),
        program: Some(program),
        ..proto::Command::default()
    });
    let name = spec.attempt_name();
    let tried = try_in(profile, &mut spec);
    let _ = temporary::remove(Path::new("."), &name);
    let _ = std::env::set_current_dir("/");
    let _ = std::fs::remove_dir_all(&folder);
    tried
}

fn try_in(profile: Profile, spec: &mut Spec) -> Result<(), String> {
    let mut plan = prepare::prepare(spec, &Enforced { pids: true }).map_err(|failure| failure.detail)?;
    plan.is_canary = true;
    let child = spawn::spawn(&plan, None).map_err(|errno| format!("namespaces: {}", errno.desc()))?;
    if let Some(failure) = spawn::read_failure(&child.failure, &plan) {
        while sys::reap(true) != Reaped::Alone {}
        return Err(failure.detail);
    }
    let mut exit = None;
    loop {
        match sys::reap(true) {
            Reaped::One(pid, how) if pid == child.pid => {
                exit = child.ending.as_ref().map_or(Some(how), spawn::Ending::read);
            }
            Reaped::One(..) | Reaped::NoneYet => {}
            Reaped::Alone => break,
        }
    }
    match exit {
        Some(Exit::Code(0)) => Ok(()),
        Some(Exit::Code(number)) => {
            let number = u8::try_from(number).unwrap_or(u8::MAX);
            Err(format!("'{profile}' was made, but {} in it", canary::name(number)))
        }
        _ => Err(format!("'{profile}' was made, but its canary died in it")),
    }
}

fn tempfile_folder() -> io::Result<std::path::PathBuf> {
    use std::os::unix::fs::DirBuilderExt as _;

    let name = format!("/tmp/opsconductor-probe-{}", hex::encode(pki::random::<8>()));
    std::fs::DirBuilder::new().mode(0o700).create(&name)?;
    Ok(name.into())
}

/// Has a process of `program` look, and asks the container engine if there is to be one. What cannot be found out is not there.
pub async fn look(program: &Path, (first, last): (u32, u32), engine: Option<&str>) -> Found {
    let looking = Command::new(program)
        .args(["probe", &first.to_string(), &last.to_string()])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let said = match tokio::time::timeout(WITHIN, looking).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(Err(_)) | Err(_) => String::new(),
    };
    let mut found = Found::default();
    for (_, fact) in SANDBOX_FACTS {
        found.facts.insert(fact.to_owned(), "no".to_owned());
        found.missing.insert(fact.to_owned(), "it could not be tried".to_owned());
    }
    for line in said.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(fact), Some(answer)) = (words.next(), words.next()) else { continue };
        if fact == "sandbox.limits" {
            let rest = words.next().map_or_else(String::new, |rest| format!(" {rest}"));
            found.facts.insert(fact.to_owned(), format!("{answer}{rest}"));
            continue;
        }
        found.facts.insert(fact.to_owned(), answer.to_owned());
        match words.next() {
            Some(missing) => found.missing.insert(fact.to_owned(), missing.to_owned()),
            None => found.missing.remove(fact),
        };
    }
    let has_engine = match engine {
        Some(socket) => container::look(socket).await.map_err(Some),
        None => Err(None),
    };
    let answer = if has_engine.is_ok() { "yes" } else { "no" };
    found.facts.insert(CONTAINERS_FACT.to_owned(), answer.to_owned());
    if let Err(Some(missing)) = has_engine {
        found.missing.insert(CONTAINERS_FACT.to_owned(), missing);
    }
    found
}
