//! The real `opsctl`.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command};

use crate::scene;

/// How long an invocation may take; a hanging one fails its test.
const ENDS_WITHIN: Duration = Duration::from_secs(90);

/// How an invocation ended and what it wrote.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Said {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).expect("the output is UTF-8")
    }

    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    /// Checks the exit code.
    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stdout = String::from_utf8_lossy(&self.stdout);
        let shown: String = stdout.chars().take(2000).collect();
        write!(f, "exit code {}\nstdout: {shown}\nstderr: {}", self.code, self.stderr)
    }
}

/// `opsctl` with the address and token of a controller, and `folder` as its home.
pub fn command(addr: &str, token: &str, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(scene::binary("opsctl"));
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", folder)
        .env("OPSCTL_CONFIG", folder.join("opsctl.toml"))
        .env("OPSC_ADDR", addr)
        .env("OPSC_TOKEN", token)
        .kill_on_drop(true);
    command
}

/// Runs it to its end.
///
/// # Panics
/// When it does not end.
pub async fn run(command: &mut Command, input: &[u8]) -> Said {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("opsctl starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    let feeding = tokio::spawn(async move {
        // It need not read what it is given.
        let _ = stdin.write_all(&input).await;
    });
    let output = tokio::time::timeout(ENDS_WITHIN, child.wait_with_output()).await;
    let output =
        output.unwrap_or_else(|_| panic!("not within {ENDS_WITHIN:?}: the end of {:?}", command.as_std()));
    let output = output.expect("it is our child");
    feeding.await.expect("it does not panic");
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
