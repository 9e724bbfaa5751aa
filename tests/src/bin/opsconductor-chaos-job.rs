//! What a job of the chaos executes on its host: tells that it started, and which other attempts of its run live; writes
//! what follows from its number, its run and its attempt, goes on for as long as it is told to, and exits as it is told to.
//!
//! Arguments: the file of starts, number, token, bytes of standard output, of standard error, pieces, milliseconds between
//! two pieces, milliseconds to go on for, the highest attempt that fails, the exit code of those.

use std::{
    collections::BTreeSet,
    env,
    fs::File,
    io::{self, Write},
    os::unix::process::parent_id,
    process::ExitCode,
    thread,
    time::Duration,
};

use opsconductor_tests::chaos::content::{Content, STDERR, STDOUT};

fn main() -> io::Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [starts, number, token, rest @ ..] = &arguments[..] else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let numbers: Result<Vec<u64>, _> = rest.iter().map(|argument| argument.parse()).collect();
    let (Ok(number), Ok([stdout, stderr, pieces, pause, linger, fails_until, failure])) = (
        number.parse::<u64>(),
        numbers.as_deref().map_err(|_| ()).and_then(|n| <[u64; 7]>::try_from(n).map_err(|_| ())),
    ) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let variable = |name| env::var(name).unwrap_or_else(|_| "?".to_owned());
    let run = variable("OPSC_RUN_ID");
    let attempt: i32 = variable("OPSC_ATTEMPT").parse().unwrap_or(0);
    // One write, so that lines of others stand before or behind it.
    let beside = beside(&run, attempt);
    let line = format!("{run} {attempt} {number} {token} {} {beside}\n", host());
    File::options().append(true).create(true).open(starts)?.write_all(line.as_bytes())?;

    let mut out = (Content::new(number, &run, attempt, STDOUT), stdout);
    let mut err = (Content::new(number, &run, attempt, STDERR), stderr);
    for piece in 0..pieces {
        if piece > 0 {
            thread::sleep(Duration::from_millis(pause));
        }
        io::stdout().write_all(&next(&mut out, pieces - piece))?;
        io::stdout().flush()?;
        io::stderr().write_all(&next(&mut err, pieces - piece))?;
    }
    thread::sleep(Duration::from_millis(linger));
    let fails = u64::try_from(attempt).is_ok_and(|attempt| attempt <= fails_until);
    Ok(if fails { ExitCode::from(u8::try_from(failure).unwrap_or(1)) } else { ExitCode::SUCCESS })
}

/// The next piece of what is left, when there are `pieces` to come.
fn next((content, left): &mut (Content, u64), pieces: u64) -> Vec<u8> {
    let count = *left / pieces;
    *left -= count;
    content.take(count)
}

/// The agent's folder, as the shim that started this has it in its arguments: a witness that no controller has touched.
fn host() -> String {
    let arguments = std::fs::read(format!("/proc/{}/cmdline", parent_id())).unwrap_or_default();
    let folder = arguments.split(|byte| *byte == 0).filter_map(|argument| std::str::from_utf8(argument).ok());
    let mut folder = folder.filter_map(|argument| argument.split_once("/data/executor/attempts/"));
    folder.next().map_or_else(|| "?".to_owned(), |(agent, _)| agent.to_owned())
}

/// The other attempts of this run that have a living process, as numbers between commas; `-` when there is none. A first
/// attempt need not look.
fn beside(run: &str, own: i32) -> String {
    let mut found = BTreeSet::new();
    let processes = if own > 1 { std::fs::read_dir("/proc").ok() } else { None };
    for entry in processes.into_iter().flatten().flatten() {
        // Whoever has ended since has no environment any more.
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let variables =
            || environment.split(|byte| *byte == 0).filter_map(|pair| std::str::from_utf8(pair).ok());
        if variables().any(|pair| pair.strip_prefix("OPSC_RUN_ID=") == Some(run)) {
            let attempts = variables().filter_map(|pair| pair.strip_prefix("OPSC_ATTEMPT="));
            found.extend(attempts.filter_map(|number| number.parse::<i32>().ok()));
        }
    }
    found.remove(&own);
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    if found.is_empty() { "-".to_owned() } else { found.join(",") }
}
