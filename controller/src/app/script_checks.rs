//! Checks of a script by programs that read it and run nothing of it: its interpreter's own check of the syntax, and
//! ShellCheck.
//!
//! Invariants:
//!
//! 1. Nothing of a script is run. A program is asked only where we know of an option by which it reads and does not execute;
//!    which program that is comes from our own list, never from a path that the script names.
//! 2. The text comes on standard input; there is no file of it. The program has an empty environment, may write no file, and is
//!    bounded in time, processor time, memory and what it says.
//!
//! Absent on purpose: `perl -c` and the like, which run parts of a script.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use model::{
    api::script::{CheckState, ScriptCheck, ScriptValidity},
    command::Script,
    limits, script,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    sync::Semaphore,
};

use super::{App, dangers};
use crate::error::{Error, Result};

/// Where programs are looked for.
const FOLDERS: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];
/// No core, no file, seconds of processor time, KiB of memory; without all of them nothing is asked.
const BOUNDED: &str = "ulimit -c 0 && ulimit -f 0 && ulimit -t 10 && ulimit -v 2097152 && exec \"$@\"";
/// Reads a Python text without running it.
const PYTHON: &str = "\
import sys
try:
    compile(sys.stdin.buffer.read(), 'script', 'exec', dont_inherit=True)
except SyntaxError as error:
    sys.exit(f'line {error.lineno}: {error.msg}')
except ValueError as error:
    sys.exit(str(error))
";
/// What a shell says when there is no such program, or it may not be run.
const NOT_RUN: std::ops::RangeInclusive<i32> = 126..=127;

/// The places of those who have something checked at a time.
#[derive(Debug)]
pub(crate) struct Places(Semaphore);

impl Default for Places {
    fn default() -> Self {
        Self(Semaphore::new(limits::SCRIPT_CHECKS))
    }
}

/// Looks at a script.
///
/// # Errors
/// When a review breaks off.
pub(crate) async fn validity(app: &App, name: &str, script: Script) -> Result<ScriptValidity> {
    let place = app.script_checks.0.acquire().await;
    let _place = place.map_err(|error| Error::internal("no place to check", error))?;
    let mut checks = vec![first_line(&script), syntax(&script).await];
    if let Some(dialect) = dialect(script.program()) {
        checks.push(shellcheck(dialect, &script.content).await);
    }
    let valid = checks.iter().all(|check| check.state != CheckState::Failed);
    Ok(ScriptValidity { valid, checks, dangers: dangers::of_script(app, name, script).await? })
}

fn first_line(script: &Script) -> ScriptCheck {
    let text = script::first_line(script).join("\n");
    // With an interpreter of its own nobody reads the line.
    let state = match (text.is_empty(), &script.interpreter) {
        (true, _) => CheckState::Passed,
        (false, Some(_)) => CheckState::Warned,
        (false, None) => CheckState::Failed,
    };
    ScriptCheck { by: "first line".to_owned(), state, text }
}

/// The check of the syntax that the script's interpreter has.
async fn syntax(script: &Script) -> ScriptCheck {
    let program = script.program();
    let (name, arguments): (&str, &[&str]) = match program {
        "bash" => ("bash", &["--norc", "--noprofile", "-n"]),
        "sh" | "dash" | "ash" | "ksh" | "mksh" => (program, &["-n"]),
        "zsh" => ("zsh", &["-f", "-n"]),
        python if is_python(python) => {
            (if python == "python" { "python3" } else { python }, &["-I", "-S", "-B", "-c", PYTHON])
        }
        other => {
            let shown: String = other.chars().take(40).collect();
            let why =
                format!("nothing is known here that checks the syntax of '{shown}' without running anything");
            return ScriptCheck { by: "syntax".to_owned(), state: CheckState::NotChecked, text: why };
        }
    };
    let by = if is_python(name) { format!("{name} compile") } else { format!("{name} -n") };
    ask(by, name, arguments, &script.content, |status| match status {
        0 => CheckState::Passed,
        _ => CheckState::Failed,
    })
    .await
}

fn is_python(program: &str) -> bool {
    let version = program.strip_prefix("python");
    version.is_some_and(|version| {
        version.is_empty() || version == "3" || version.strip_prefix("3.").is_some_and(is_number)
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() < 4 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What ShellCheck calls the language of this shell.
fn dialect(program: &str) -> Option<&'static str> {
    match program {
        "sh" | "ash" => Some("sh"),
        "bash" => Some("bash"),
        "dash" => Some("dash"),
        "ksh" => Some("ksh"),
        _ => None,
    }
}

async fn shellcheck(dialect: &str, content: &str) -> ScriptCheck {
    let arguments = ["--norc", "--color=never", "-f", "gcc", "-s", dialect, "-"];
    ask("shellcheck".to_owned(), "shellcheck", &arguments, content, |status| match status {
        0 => CheckState::Passed,
        1 => CheckState::Warned,
        _ => CheckState::NotChecked,
    })
    .await
}

/// Lets a program read the text; `judge` says what its exit code means.
async fn ask(
    by: String,
    name: &str,
    arguments: &[&str],
    content: &str,
    judge: impl Fn(i32) -> CheckState,
) -> ScriptCheck {
    let not_checked = |by, text: String| ScriptCheck { by, state: CheckState::NotChecked, text };
    let Some(program) = installed(name) else {
        return not_checked(by, format!("no such program here: {name}"));
    };
    let read = tokio::time::timeout(limits::SCRIPT_CHECK_WITHIN, read_by(&program, arguments, content)).await;
    match read {
        Err(_) => not_checked(by, format!("it took longer than {} s", limits::SCRIPT_CHECK_WITHIN.as_secs())),
        Ok(Err(error)) => not_checked(by, format!("{name} cannot be asked: {error}")),
        Ok(Ok((status, text))) => match status.code() {
            None => not_checked(by, format!("{name} did not come to an end by itself ({status})")),
            Some(code) if NOT_RUN.contains(&code) => not_checked(by, text),
            Some(code) => ScriptCheck { by, state: judge(code), text },
        },
    }
}

fn installed(name: &str) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(is_program)
}

/// How the program ended that was given the text, and what it said. It is killed when nobody waits for it any more.
async fn read_by(program: &Path, arguments: &[&str], content: &str) -> std::io::Result<(ExitStatus, String)> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", BOUNDED, "check"])
        .arg(program)
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async move {
        if let Some(stdin) = &mut stdin {
            // It need not read all of it.
            let _ = stdin.write_all(content.as_bytes()).await;
        }
        drop(stdin);
    };
    let ((), said, complained, status) = tokio::join!(feed, said(stdout), said(stderr), child.wait());
    let mut text = said;
    text.push_str(&complained);
    Ok((status?, text.trim_end().to_owned()))
}

/// The beginning of what comes; the rest is read and thrown away.
async fn said(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let mut bytes = Vec::new();
    let most = u64::try_from(limits::SCRIPT_CHECK_OUTPUT_BYTES).unwrap_or(u64::MAX);
    // What cannot be read is as if it had not been said.
    let _ = (&mut pipe).take(most).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    // A NUL is what a database and a terminal do not take.
    String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn state(content: &str) -> (String, CheckState, String) {
        let script = Script { content: content.to_owned(), interpreter: None, args: Vec::new() };
        let ScriptCheck { by, state, text } = syntax(&script).await;
        (by, state, text)
    }

    #[tokio::test]
    async fn a_text_is_read_and_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("ran");
        for (content, by, want) in [
            (format!("#!/bin/sh\ntouch {}\n", mark.display()), "sh -n", CheckState::Passed),
            ("#!/bin/sh\nif true; then\n".to_owned(), "sh -n", CheckState::Failed),
            (format!("#!/usr/bin/env bash\nx=$(touch {})\n", mark.display()), "bash -n", CheckState::Passed),
            ("#!/bin/bash\ncase x in\n".to_owned(), "bash -n", CheckState::Failed),
            (format!("#!/usr/bin/python3\nopen({mark:?}, 'w')\n"), "python3 compile", CheckState::Passed),
            ("#!/usr/bin/python3\ndef x(:\n".to_owned(), "python3 compile", CheckState::Failed),
            ("#!/usr/bin/python3.99\n".to_owned(), "python3.99 compile", CheckState::NotChecked),
            (
                format!("#!/usr/bin/perl\nBEGIN {{ open(F, '>{}') }}\n", mark.display()),
                "syntax",
                CheckState::NotChecked,
            ),
            (format!("#!{}\n", mark.display()), "syntax", CheckState::NotChecked),
        ] {
            let (asked, got, text) = state(&content).await;
            let is_here = !text.starts_with("no such program here");
            assert_eq!(asked, by, "{content}");
            if is_here {
                assert_eq!(got, want, "{content}: {text}");
            } else {
                assert_eq!(got, CheckState::NotChecked, "{content}");
            }
            assert!(!mark.exists(), "{content}");
        }
        let (_, _, text) = state("#!/bin/sh\n\nfi\n").await;
        assert!(text.contains('3') && text.len() < 200, "{text}");
    }

    #[tokio::test]
    async fn who_reads_too_long_or_says_too_much_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let write = format!("cat >{}", file.display());
        let (status, _) = read_by(Path::new("/bin/sh"), &["-c", &write], "text").await.expect("a shell");
        assert!(!status.success() && std::fs::read(&file).map_or(0, |text| text.len()) == 0, "{status}");
        let loud = "head -c 1000000 /dev/zero; exit 3";
        let (status, said) = read_by(Path::new("/bin/sh"), &["-c", loud], "").await.expect("a shell");
        assert_eq!(status.code(), Some(3));
        assert!(said.len() <= limits::SCRIPT_CHECK_OUTPUT_BYTES * 3, "{}", said.len());
        let large = "x".repeat(limits::SCRIPT_BYTES);
        let (status, _) = read_by(Path::new("/bin/sh"), &["-c", "exit 0"], &large).await.expect("a shell");
        assert!(status.success());
    }
}
