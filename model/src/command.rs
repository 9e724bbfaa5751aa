//! What a run executes on a host, and the checks that a request must pass before anything is stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Invalid,
    job::outputs,
    limits,
    retry::Retry,
    sandbox::{Container, Limits, Network, Profile, validate_folders},
};

/// What to execute: exactly one of a program with its arguments, a line for the host's shell, or a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Program {
    /// A program and its arguments; no shell looks at them.
    Argv(Vec<String>),
    /// A line that the host's shell (`/bin/sh -c`) runs.
    Shell(String),
    /// A script that is written to a private file and run by its interpreter.
    Script(Script),
}

/// A script with its interpreter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The text, UTF-8.
    pub content: String,
    /// The interpreter with its options, split at spaces; without it the script's `#!` line decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<String>,
    /// Arguments handed to the script.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

/// A program with the circumstances under which it runs. The unit that a manifest digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    pub program: Program,
    /// Variables beside the host's minimal environment (`PATH`, `HOME`, `USER`, `LANG`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory, absolute; by default the home of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// User to run as; by default the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Seconds that the run may take.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: i64,
    /// What happens after a failure; by default nothing is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// It may be run again when nobody knows how it ended; by default such a run ends as `unknown`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idempotent: bool,
    /// Bytes of output that are kept; by default as many as there may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_limit_bytes: Option<u64>,
    /// What happens when it writes more.
    #[serde(default, skip_serializing_if = "OutputLimit::is_default")]
    pub on_output_limit: OutputLimit,
    /// How far it is kept apart from its host; by default as the host's policy says, and where that says nothing
    /// `standard`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Profile>,
    /// What an `isolated` run has of a network.
    #[serde(default, skip_serializing_if = "Network::is_default")]
    pub network: Network,
    /// Folders that an `isolated` run may read beside those of the system and its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<String>,
    /// Folders that a `strict` or `isolated` run may write beside its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub write: Vec<String>,
    /// What it may take of its host.
    #[serde(default, skip_serializing_if = "Limits::is_default")]
    pub limits: Limits,
    /// Run it in a container of this image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Names of what it tells: when it succeeds it has written a JSON object with just these into the file `OPSC_OUTPUTS`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
}

/// What happens to a run that writes more than its limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputLimit {
    /// It goes on; what is beyond is counted and hashed, not kept.
    #[default]
    Truncate,
    /// It is ended.
    Halt,
}

impl OutputLimit {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn default_timeout() -> i64 {
    limits::DEFAULT_TIMEOUT_SECONDS
}

impl Command {
    /// The program under the default circumstances.
    pub const fn new(program: Program) -> Self {
        Self {
            program,
            env: BTreeMap::new(),
            cwd: None,
            user: None,
            timeout_seconds: limits::DEFAULT_TIMEOUT_SECONDS,
            retry: None,
            idempotent: false,
            output_limit_bytes: None,
            on_output_limit: OutputLimit::Truncate,
            sandbox: None,
            network: Network::None,
            read: Vec::new(),
            write: Vec::new(),
            limits: Limits {
                memory_bytes: None,
                pids: None,
                cpu_percent: None,
                io_bytes_per_second: None,
                open_files: None,
                file_bytes: None,
            },
            container: None,
            outputs: Vec::new(),
        }
    }

    /// Checks every field against its limit.
    ///
    /// # Errors
    /// The first field that is wrong, with what is allowed.
    pub fn validate(&self) -> Result<(), Invalid> {
        match &self.program {
            Program::Argv(argv) => validate_argv("command.program.argv", argv)?,
            Program::Shell(line) => {
                text("command.program.shell", line, limits::ARGV_BYTES, "ARGV_BYTES")?;
                if line.trim().is_empty() {
                    return Err(Invalid::new("command.program.shell", "is empty"));
                }
            }
            Program::Script(script) => script.validate()?,
        }
        self.validate_environment()?;
        if let Some(cwd) = &self.cwd {
            text("command.cwd", cwd, limits::PATH_BYTES, "PATH_BYTES")?;
            if !cwd.starts_with('/') {
                return Err(Invalid::new("command.cwd", "is not an absolute path"));
            }
        }
        if let Some(user) = &self.user {
            text("command.user", user, limits::NAME_CHARS, "NAME_CHARS")?;
            if user.is_empty() {
                return Err(Invalid::new("command.user", "is empty"));
            }
        }
        within("command.timeout_seconds", self.timeout_seconds, &limits::TIMEOUT_SECONDS)?;
        if let Some(retry) = &self.retry {
            retry.validate()?;
        }
        self.validate_sandbox()?;
        match self.output_limit_bytes {
            Some(0) => Err(Invalid::new("command.output_limit_bytes", "is 0; at least 1 byte is kept")),
            Some(bytes) if bytes > limits::RUN_OUTPUT_BYTES => {
                let limit = usize::try_from(limits::RUN_OUTPUT_BYTES).unwrap_or(usize::MAX);
                Err(Invalid::over("command.output_limit_bytes", "RUN_OUTPUT_BYTES", limit, "bytes"))
            }
            _ => Ok(()),
        }
    }

    fn validate_sandbox(&self) -> Result<(), Invalid> {
        self.limits.validate()?;
        validate_folders("command.read", &self.read)?;
        validate_folders("command.write", &self.write)?;
        if let Some(container) = &self.container {
            container.validate()?;
        }
        outputs::validate_names("command.outputs", &self.outputs)?;
        let Some(profile) = self.sandbox else { return Ok(()) };
        if self.user.as_deref() == Some("root") && profile != Profile::None {
            let why =
                format!("is root; the sandbox '{profile}' takes an unprivileged user (only 'none' does not)");
            return Err(Invalid::new("command.user", why));
        }
        if self.network != Network::None && profile != Profile::Isolated {
            let why =
                format!("is only for the sandbox 'isolated'; a run in '{profile}' has the host's network");
            return Err(Invalid::new("command.network", why));
        }
        Ok(())
    }

    fn validate_environment(&self) -> Result<(), Invalid> {
        if self.env.len() > limits::ENVIRONMENT_COUNT {
            return Err(Invalid::over(
                "command.env",
                "ENVIRONMENT_COUNT",
                limits::ENVIRONMENT_COUNT,
                "variables",
            ));
        }
        let mut bytes = 0;
        for (name, value) in &self.env {
            let field = format!("command.env.{}", name.chars().take(64).collect::<String>());
            let mut chars = name.chars();
            let starts_well = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
            if !starts_well || !chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return Err(Invalid::new(
                    field,
                    "is not a variable name (letters, digits and '_', not a digit first)",
                ));
            }
            if value.contains('\0') {
                return Err(Invalid::new(field, "contains a NUL character"));
            }
            bytes += name.len() + value.len() + 2;
        }
        if bytes > limits::ENVIRONMENT_BYTES {
            return Err(Invalid::over(
                "command.env",
                "ENVIRONMENT_BYTES",
                limits::ENVIRONMENT_BYTES,
                "bytes",
            ));
        }
        Ok(())
    }

    /// One line that a person recognises the command by: at most 200 characters, no control characters.
    pub fn summary(&self) -> String {
        let full = match &self.program {
            Program::Argv(argv) => argv.join(" "),
            Program::Shell(line) => line.clone(),
            Program::Script(script) => {
                let first = script.content.lines().find(|l| !l.starts_with('#') && !l.trim().is_empty());
                format!("script: {}", first.unwrap_or_default())
            }
        };
        full.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
    }
}

impl Script {
    /// The program that runs it, as its interpreter or its `#!` line says, without its folder; empty where neither says.
    pub fn program(&self) -> &str {
        let first = self.content.lines().next().unwrap_or_default();
        let line = self.interpreter.as_deref().or_else(|| first.strip_prefix("#!")).unwrap_or_default();
        let mut words = line.split_whitespace().map(|word| word.rsplit('/').next().unwrap_or(word));
        let program = words.next().unwrap_or_default();
        if program == "env" { words.find(|word| !word.starts_with('-')).unwrap_or_default() } else { program }
    }

    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        const CONTENT: &str = "command.program.script.content";
        const INTERPRETER: &str = "command.program.script.interpreter";
        if self.content.len() > limits::SCRIPT_BYTES {
            return Err(Invalid::over(CONTENT, "SCRIPT_BYTES", limits::SCRIPT_BYTES, "bytes"));
        }
        if self.content.trim().is_empty() {
            return Err(Invalid::new(CONTENT, "is empty"));
        }
        if self.content.contains('\0') {
            return Err(Invalid::new(CONTENT, "contains a NUL character"));
        }
        match &self.interpreter {
            Some(interpreter) => {
                text(INTERPRETER, interpreter, limits::PATH_BYTES, "PATH_BYTES")?;
                if interpreter.trim().is_empty() {
                    return Err(Invalid::new(INTERPRETER, "is empty"));
                }
            }
            None if !self.content.starts_with("#!") => {
                return Err(Invalid::new(
                    INTERPRETER,
                    "is missing, and the script does not begin with a '#!' line that names one",
                ));
            }
            None => {}
        }
        if self.args.is_empty() { Ok(()) } else { validate_argv("command.program.script.args", &self.args) }
    }
}

fn validate_argv(field: &'static str, argv: &[String]) -> Result<(), Invalid> {
    if argv.is_empty() || argv[0].is_empty() {
        return Err(Invalid::new(field, "is empty"));
    }
    if argv.len() > limits::ARGV_COUNT {
        return Err(Invalid::over(field, "ARGV_COUNT", limits::ARGV_COUNT, "arguments"));
    }
    if argv.iter().map(|a| a.len() + 1).sum::<usize>() > limits::ARGV_BYTES {
        return Err(Invalid::over(field, "ARGV_BYTES", limits::ARGV_BYTES, "bytes"));
    }
    if argv.iter().any(|a| a.contains('\0')) {
        return Err(Invalid::new(field, "contains a NUL character"));
    }
    Ok(())
}

fn text(field: &'static str, value: &str, limit: usize, name: &'static str) -> Result<(), Invalid> {
    if value.len() > limit {
        return Err(Invalid::over(field, name, limit, "bytes"));
    }
    if value.contains('\0') {
        return Err(Invalid::new(field, "contains a NUL character"));
    }
    Ok(())
}

/// Checks that `value` lies within `range`.
///
/// # Errors
/// Names the field and both ends.
pub fn within(field: &'static str, value: i64, range: &std::ops::RangeInclusive<i64>) -> Result<(), Invalid> {
    if range.contains(&value) {
        Ok(())
    } else {
        Err(Invalid::new(field, format!("is {value}; allowed is {} to {}", range.start(), range.end())))
    }
}
