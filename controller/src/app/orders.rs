//! Work orders: what an agent is told to do, signed when it is sent.

use jiff::Timestamp;
use model::{
    command::{Command, OutputLimit, Program},
    id::{ExecutionId, RunId},
    limits,
    sandbox::{self, Network},
};
use prost::Message;

use super::{App, manifest::Verified, runs::Key, sessions::Connected};

/// What the signature is made over, so that it can stand for nothing else.
const KIND: &str = "work-order";
/// Binds a sealed environment to its purpose.
const SEAL_INFO: &[u8] = b"opsconductor environment";

/// What is special about an attempt's order.
#[derive(Debug, Clone)]
pub(crate) struct Try {
    /// The first that may begin anything: it has to before the manifest's own time is over.
    pub is_first: bool,
    /// The newest attempt whose outcome is not known.
    pub superseded: Option<i32>,
    /// The attempts that may have begun.
    pub begun: Vec<u32>,
}

/// The signed order for one attempt.
///
/// # Errors
/// When the environment cannot be sealed to the agent's key.
pub(crate) fn sign(
    app: &App,
    session: &Connected,
    (execution, run, attempt): Key,
    (verified, authorised): (&Verified, &Command),
    this: &Try,
    now: Timestamp,
) -> Result<proto::Envelope, pki::Error> {
    let attempt = u32::try_from(attempt).unwrap_or(0);
    let window_ends = now.saturating_add(app.info.timing.start_window).unwrap_or(Timestamp::MAX);
    let start_by = if this.is_first { window_ends.min(verified.start_by) } else { window_ends };
    let order = proto::WorkOrder {
        trust_domain: app.ca.authority().trust_domain().to_owned(),
        org_id: verified.org_id.to_bytes(),
        agent_id: session.agent_id.to_bytes(),
        journal_epoch: session.journal_epoch.clone(),
        execution_id: execution.to_bytes(),
        run_id: run.to_bytes(),
        attempt,
        fence: u64::try_from(session.fence).unwrap_or(0),
        issued_at: now.as_microsecond(),
        start_by: start_by.as_microsecond(),
        nonce: pki::random::<16>().to_vec(),
        command: Some(command(&session.seal_key, execution, run, attempt, authorised)?),
        manifest_digest: verified.digest.to_vec(),
        request_id: verified.request_id.clone(),
        actor: verified.actor.clone(),
        begun: this.begun.clone(),
        superseded_attempt: this.superseded.and_then(|number| u32::try_from(number).ok()).unwrap_or(0),
    };
    let payload = order.encode_to_vec();
    let signer = app.ca.signer();
    Ok(proto::Envelope {
        kind: KIND.to_owned(),
        signature: signer.sign(KIND, &payload),
        certificate: signer.certificate().to_vec(),
        payload,
    })
}

fn command(
    seal_key: &[u8],
    execution: ExecutionId,
    run: RunId,
    attempt: u32,
    command: &Command,
) -> Result<proto::Command, pki::Error> {
    use proto::command::Program as Wire;
    let program = match &command.program {
        Program::Argv(argv) => Wire::Argv(proto::Argv { argv: argv.clone() }),
        Program::Shell(line) => Wire::Shell(line.clone()),
        Program::Script(script) => Wire::Script(proto::Script {
            content: script.content.clone(),
            interpreter: script.interpreter.clone().unwrap_or_default(),
            args: script.args.clone(),
        }),
    };
    Ok(proto::Command {
        program: Some(program),
        cwd: command.cwd.clone().unwrap_or_default(),
        user: command.user.clone().unwrap_or_default(),
        timeout_ms: u64::try_from(command.timeout_seconds).unwrap_or(0) * 1000,
        output_limit_bytes: command.output_limit_bytes.unwrap_or(limits::RUN_OUTPUT_BYTES),
        halt_at_output_limit: command.on_output_limit == OutputLimit::Halt,
        environment: environment(seal_key, execution, run, attempt, command)?,
        profile: command.sandbox.map_or(proto::Profile::HostDefault, Into::into).into(),
        loopback: command.network == Network::Loopback,
        read: command.read.clone(),
        write: command.write.clone(),
        limits: limits_of(&command.limits),
        image: command.container.as_ref().map(|container| container.image.clone()).unwrap_or_default(),
        outputs: command.outputs.clone(),
    })
}

fn limits_of(limits: &sandbox::Limits) -> Option<proto::Limits> {
    if *limits == sandbox::Limits::default() {
        return None;
    }
    Some(proto::Limits {
        memory_bytes: limits.memory_bytes.unwrap_or(0),
        pids: limits.pids.unwrap_or(0),
        cpu_percent: limits.cpu_percent.unwrap_or(0),
        io_bytes_per_second: limits.io_bytes_per_second.unwrap_or(0),
        open_files: limits.open_files.unwrap_or(0),
        file_bytes: limits.file_bytes.unwrap_or(0),
    })
}

/// The environment, sealed to the executor's key so that neither link nor spool ever sees it.
fn environment(
    seal_key: &[u8],
    execution: ExecutionId,
    run: RunId,
    attempt: u32,
    command: &Command,
) -> Result<Option<proto::Sealed>, pki::Error> {
    if command.env.is_empty() {
        return Ok(None);
    }
    let variables = command.env.clone().into_iter().collect();
    let plain = proto::Environment { variables }.encode_to_vec();
    let mut aad = execution.to_bytes();
    aad.extend(run.to_bytes());
    aad.extend(attempt.to_be_bytes());
    let sealed = pki::seal::seal(seal_key, SEAL_INFO, &aad, &plain)?;
    Ok(Some(proto::Sealed { encapsulated_key: sealed.encapsulated_key, ciphertext: sealed.ciphertext }))
}
