//! The reports of the executor, as the wire carries them. Their `seq` is given by the link's spool.

use model::Reason;
use prost::Message as _;
use proto::report::Body;

use crate::{clock, messages::AttemptKey, shim::record};

pub(super) fn accepted(key: AttemptKey) -> proto::Report {
    report(key, Body::Accepted(proto::Accepted { at: clock::now_micros() }))
}

pub(super) fn started(key: AttemptKey, pid: u32, at: i64, boot_id: &str) -> proto::Report {
    report(key, Body::Started(proto::Started { at, pid, boot_id: boot_id.to_owned() }))
}

pub(super) fn refused(key: AttemptKey, reason: Reason, detail: impl Into<String>) -> proto::Report {
    let (at, reason) = (clock::now_micros(), reason.as_str().to_owned());
    report(key, Body::Refused(proto::Refused { at, reason, detail: record::detail(detail.into()) }))
}

pub(super) fn lost(key: AttemptKey, reason: Reason, detail: impl Into<String>) -> proto::Report {
    let (at, reason) = (clock::now_micros(), reason.as_str().to_owned());
    report(key, Body::Lost(proto::Lost { at, reason, detail: record::detail(detail.into()) }))
}

pub(super) fn finished(key: AttemptKey, record: Vec<u8>, signature: Vec<u8>) -> proto::Report {
    report(key, Body::Finished(proto::Finished { record, signature }))
}

fn report(key: AttemptKey, body: Body) -> proto::Report {
    proto::Report {
        seq: 0,
        execution_id: key.execution_id.to_bytes(),
        run_id: key.run_id.to_bytes(),
        attempt: key.attempt,
        body: Some(body),
    }
}

/// Does a final report say that something of the attempt could not be killed?
pub(super) fn is_unkillable(report: &proto::Report) -> bool {
    let Some(Body::Finished(finished)) = &report.body else { return false };
    proto::ExitRecord::decode(finished.record.as_slice())
        .is_ok_and(|record| record.reason == Reason::Unkillable.as_str())
}
