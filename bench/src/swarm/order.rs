//! What simulated agents do with an order: verify it like a real executor, run nothing, and sign a result.

use jiff::Timestamp;
use model::{Reason, limits};
use prost::Message as _;
use proto::{Envelope, ExitRecord, Report, StreamTotals, WorkOrder, command::Program, report::Body};

use super::identity::{Identity, Trust};

const ORDER: &str = "work-order";
const EXIT_RECORD: &str = "exit-record";
/// A program of this name is not run but imitated: its arguments become a line of output.
const ECHO: &str = "echo";
/// A program of this name is said to have exited with 1; all others with 0.
const FALSE: &str = "false";
/// The process id that is reported of a process that never was.
const PID: u32 = 1;

/// Reads an order after its signature, addressee, window and journal epoch have been checked.
///
/// # Errors
/// What does not hold.
pub(crate) fn verify(
    trust: &Trust,
    identity: &Identity,
    envelope: &Envelope,
    now: Timestamp,
) -> Result<WorkOrder, &'static str> {
    if envelope.kind != ORDER {
        return Err("the envelope is no order");
    }
    trust
        .verifier
        .verify(ORDER, &envelope.payload, &envelope.signature, &envelope.certificate, now)
        .map_err(|_| "the signature does not hold")?;
    let order = WorkOrder::decode(envelope.payload.as_slice()).map_err(|_| "the order cannot be parsed")?;
    let for_us = order.trust_domain == trust.trust_domain
        && order.org_id == identity.org_id.0.as_bytes()
        && order.agent_id == identity.agent_id.0.as_bytes();
    let micros = now.as_microsecond();
    let skew = i64::try_from(limits::CLOCK_SKEW.as_micros()).unwrap_or(i64::MAX);
    if !for_us {
        Err("the order is for somebody else")
    } else if order.journal_epoch != identity.journal_epoch {
        Err("the order was made for another journal")
    } else if order.issued_at.saturating_sub(micros) > skew || micros > order.start_by {
        Err("the order is outside of its time")
    } else {
        Ok(order)
    }
}

/// The program with its arguments.
fn argv(order: &WorkOrder) -> Option<(&String, &[String])> {
    let Some(Program::Argv(argv)) = &order.command.as_ref()?.program else { return None };
    argv.argv.split_first()
}

/// The line of output that the order asks for, with its newline.
pub(crate) fn line(order: &WorkOrder) -> Option<Vec<u8>> {
    let (program, words) = argv(order)?;
    (program == ECHO).then(|| format!("{}\n", words.join(" ")).into_bytes())
}

/// What is reported of an order that was obeyed: accepted, started, and finished with the signed exit record. The
/// reports are numbered from `seq` on.
pub(crate) fn reports(
    identity: &Identity,
    order: &WorkOrder,
    line: &[u8],
    seq: u64,
    now: Timestamp,
) -> [Report; 3] {
    let at = now.as_microsecond();
    let record = ExitRecord {
        execution_id: order.execution_id.clone(),
        run_id: order.run_id.clone(),
        attempt: order.attempt,
        started_at: at,
        ended_at: at,
        reason: Reason::Exited.as_str().to_owned(),
        exit_code: Some(i32::from(argv(order).is_some_and(|(program, _)| program == FALSE))),
        stdout: Some(totals(line)),
        stderr: Some(totals(&[])),
        ..ExitRecord::default()
    }
    .encode_to_vec();
    let signature = identity.result_key.sign(EXIT_RECORD, &record);
    let report = |after: u64, body| Report {
        seq: seq + after,
        execution_id: order.execution_id.clone(),
        run_id: order.run_id.clone(),
        attempt: order.attempt,
        body: Some(body),
    };
    [
        report(0, Body::Accepted(proto::Accepted { at })),
        report(1, Body::Started(proto::Started { at, pid: PID, boot_id: super::BOOT_ID.to_owned() })),
        report(2, Body::Finished(proto::Finished { record, signature })),
    ]
}

fn totals(bytes: &[u8]) -> StreamTotals {
    let length = bytes.len() as u64;
    StreamTotals { bytes: length, stored: length, sha256: pki::sha256(bytes).to_vec() }
}
