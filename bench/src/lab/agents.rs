//! Real agents: processes of the agent's own program, enrolled and connected like on hosts.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use model::api::enroll_token::CreateEnrollToken;
use tokio::time::sleep;

use super::api::Api;
use crate::process::{Process, quiet, silent};

/// How long an agent may take to end; none of its runs is left by then.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long enrolling one agent may be tried: the controller lets only some in each second.
const ENROLL_WITHIN: Duration = Duration::from_secs(30);
const AGAIN_AFTER: Duration = Duration::from_millis(300);

/// Agents that run, by number.
#[derive(Debug)]
pub(crate) struct Agents {
    program: PathBuf,
    folder: PathBuf,
    controller: String,
    processes: Vec<Process>,
}

impl Agents {
    pub(crate) fn new(program: PathBuf, folder: PathBuf, controller: String) -> Self {
        Self { program, folder, controller, processes: Vec::new() }
    }

    /// The name of the `index`th agent.
    pub(crate) fn name(index: usize) -> String {
        format!("real-{index}")
    }

    pub(crate) fn count(&self) -> usize {
        self.processes.len()
    }

    pub(crate) fn pid(&self, index: usize) -> Option<u32> {
        self.processes.get(index).map(Process::pid)
    }

    /// Enrolls and starts one more.
    ///
    /// # Errors
    /// When it cannot be enrolled or started.
    pub(crate) async fn add(&mut self, api: &Api) -> anyhow::Result<()> {
        let name = Self::name(self.processes.len());
        let folder = self.folder.join(&name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let config = folder.join("agent.toml");
        std::fs::write(folder.join("policy.toml"), "[sandbox]\ndefault = 'none'\nunconfined = 'all'\n")?;
        let text = format!("policy = '{}'\n[log]\nlevel = 'warn'\n", folder.join("policy.toml").display());
        std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        self.enroll(api, &name, &folder, &config).await?;
        let mut command = self.command("run", &folder, &config);
        command.arg("--kill-jobs");
        let process = Process::start(command, &name, &folder.join("log"), PATIENCE)?;
        self.processes.push(process);
        Ok(())
    }

    async fn enroll(&self, api: &Api, name: &str, folder: &Path, config: &Path) -> anyhow::Result<()> {
        let wanted = CreateEnrollToken {
            labels: [("bench".to_owned(), "real".to_owned())].into(),
            ..Default::default()
        };
        let token = api.enroll_token(&wanted).await?.token;
        let begun = Instant::now();
        loop {
            let mut command = self.command("enroll", folder, config);
            command.args(["--controller", &self.controller, "--name", name]).env("OPSC_AGENT_TOKEN", &token);
            let done = tokio::task::spawn_blocking(move || command.output())
                .await?
                .with_context(|| format!("cannot run {}", self.program.display()))?;
            if done.status.success() {
                return Ok(());
            }
            let why = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            ensure!(begun.elapsed() < ENROLL_WITHIN, "agent '{name}' cannot be enrolled: {why}");
            sleep(AGAIN_AFTER).await;
        }
    }

    fn command(&self, verb: &str, folder: &Path, config: &Path) -> Command {
        let mut command = silent(&self.program);
        quiet(&mut command).arg(verb).arg("--config").arg(config).arg("--data").arg(folder.join("data"));
        command
    }

    /// Fails when one of them has ended.
    ///
    /// # Errors
    /// With its last words.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::check)
    }

    /// Ends them all, at the same time.
    pub(crate) fn stop(&mut self) {
        self.processes.iter_mut().for_each(Process::ask);
        self.processes.clear();
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.stop();
    }
}
