//! Histories made by hand: a good one, and for each invariant what breaks it.

use super::{output::prefix_hash, *};
use crate::chaos::{
    self,
    content::{STDERR, STDOUT},
    job::{Aim, Kind},
};

mod retries;

const RUN: &str = "run-1";

fn job(kind: Kind) -> Job {
    Job {
        number: 1,
        kind,
        stdout: 100,
        stderr: 0,
        pieces: 1,
        pause_ms: 0,
        linger_ms: 0,
        fails_until: 0,
        retry: None,
        idempotent: false,
        stubborn: false,
        timeout_seconds: 60,
        start_within_seconds: 60,
        cancel_after_ms: None,
        token: "1-t".to_owned(),
        aim: Aim::Name("h1".to_owned()),
        hosts: vec!["h1".to_owned()],
    }
}

fn seen(at: u64, state: RunState, reason: Option<Reason>, exit_code: Option<i32>) -> Record {
    let (run, host) = (RUN.to_owned(), "h1".to_owned());
    Record::Seen { at, number: 1, run, host, state, reason, attempt: 1, exit_code }
}

fn started(run: &str, attempt: i32) -> Record {
    Record::Started {
        run: run.to_owned(),
        attempt,
        number: 1,
        token: "1-t".to_owned(),
        host: "h1".to_owned(),
        beside: Vec::new(),
    }
}

/// The first attempt of a run, as the tables have it at the end.
fn offered(run: &str, state: AttemptState, reason: Reason, exit_code: Option<i32>) -> Record {
    Record::Offered {
        at: 50,
        run: run.to_owned(),
        attempt: 1,
        host: "h1".to_owned(),
        fence: 1,
        state,
        reason: Some(reason),
        exit_code,
        ended: Some(900),
    }
}

fn held(stream: u8, bytes: u64) -> Record {
    let held = Held {
        bytes,
        sha256: prefix_hash(1, RUN, 1, stream, bytes),
        gap: 0,
        written: Some(bytes),
        complete: Some(true),
        fault: None,
    };
    Record::Output { at: 1_500, number: 1, run: RUN.to_owned(), attempt: 1, stream, held }
}

fn fault(at: u64, until: u64, kind: Fault, victim: &str, subjects: &[&str]) -> Record {
    let subjects = subjects.iter().map(|subject| (*subject).to_owned()).collect();
    Record::Fault { at, until, kind, victim: victim.to_owned(), proof: "seen".to_owned(), subjects }
}

/// A job of this kind whose run, with one attempt, ended so.
fn history(kind: Kind, end: Record) -> Vec<Record> {
    let Record::Seen { state, reason: Some(reason), exit_code, .. } = end else { panic!("it has no reason") };
    let attempt = if state == RunState::Unknown { AttemptState::Lost } else { AttemptState::Finished };
    vec![
        Record::Begun { seed: 1, seconds: 1, hosts: vec!["h1".to_owned()] },
        Record::Asked { at: 0, job: job(kind) },
        Record::Acknowledged { at: 10, number: 1, execution: "execution-1".to_owned() },
        seen(100, RunState::Active, None, None),
        end,
        held(STDOUT, 100),
        held(STDERR, 0),
        Record::Used { at: 1_600, who: "h1".to_owned(), memory_kib: 1_000, disk_kib: 1_000 },
        Record::FaultsOver { at: 2_000 },
        started(RUN, 1),
        offered(RUN, attempt, reason, exit_code),
        Record::Ended { number: 1, execution: "execution-1".to_owned(), ended: true },
        Record::Left { at: 3_000, host: "h1".to_owned(), folders: Vec::new() },
        Record::Probed { host: "h1".to_owned(), succeeded: true },
    ]
}

fn good() -> Vec<Record> {
    history(Kind::Succeeds, seen(1_000, RunState::Succeeded, Some(Reason::Exited), Some(0)))
}

fn ended(kind: Kind, state: RunState, reason: Reason) -> Vec<Record> {
    history(kind, seen(1_000, state, Some(reason), None))
}

/// Checks that these invariants are violated, and no other.
#[track_caller]
fn violates(history: &[Record], want: &[&str]) {
    let found = check(history, &chaos::promise());
    let invariants: BTreeSet<&str> = found.iter().map(|violation| violation.invariant).collect();
    assert_eq!(invariants, want.iter().copied().collect(), "{found:#?}");
}

fn with(mut history: Vec<Record>, more: impl IntoIterator<Item = Record>) -> Vec<Record> {
    history.extend(more);
    history
}

fn change(mut history: Vec<Record>, change: impl Fn(&mut Record)) -> Vec<Record> {
    history.iter_mut().for_each(change);
    history
}

fn without(mut history: Vec<Record>, is: impl Fn(&Record) -> bool) -> Vec<Record> {
    history.retain(|record| !is(record));
    history
}

/// As if the run had ended without an attempt.
fn never_tried(history: Vec<Record>) -> Vec<Record> {
    change(history, |record| {
        if let Record::Seen { attempt, .. } = record {
            *attempt = 0;
        }
    })
}

#[test]
fn what_is_good_violates_nothing() {
    violates(&good(), &[]);
    violates(&ended(Kind::Cancelled, RunState::Cancelled, Reason::Cancelled), &[]);
    violates(&ended(Kind::TimesOut, RunState::TimedOut, Reason::TimeLimit), &[]);
    let expired = without(ended(Kind::Expires, RunState::Expired, Reason::StartExpired), |record| {
        matches!(record, Record::Started { .. } | Record::Output { .. } | Record::Offered { .. })
    });
    violates(&never_tried(expired), &[]);
}

#[test]
fn one_start() {
    violates(&with(good(), [started(RUN, 1)]), &["one-start"]);
    violates(&with(good(), [started(RUN, 2)]), &["one-start"]);
    violates(&without(good(), |record| matches!(record, Record::Started { .. })), &["one-start"]);
    // Called off, and started all the same.
    let withdrawn = change(ended(Kind::Cancelled, RunState::Cancelled, Reason::Cancelled), |record| {
        if let Record::Offered { state, .. } = record {
            *state = AttemptState::Withdrawn;
        }
    });
    violates(&withdrawn, &["one-start"]);
    let other = Record::Acknowledged { at: 20, number: 1, execution: "execution-2".to_owned() };
    violates(&with(good(), [other]), &["one-start"]);
}

#[test]
fn no_forged_start() {
    violates(&with(good(), [started("run-2", 1)]), &["no-forged-start"]);
    let forged = change(good(), |record| {
        if let Record::Started { token, .. } = record {
            "forged".clone_into(token);
        }
    });
    violates(&forged, &["no-forged-start"]);
    let elsewhere = change(good(), |record| {
        if let Record::Started { host, .. } = record {
            "h2".clone_into(host);
        }
    });
    violates(&elsewhere, &["no-forged-start"]);
    let silent = fault(1, 2, Fault::RowForged, "postgres", &["inserted-run/run-9"]);
    violates(&with(good(), [silent.clone()]), &["no-forged-start"]);
    violates(&with(good(), [silent, Record::Audited { run: "run-9".to_owned() }]), &[]);
}

#[test]
fn fences_do_not_go_back() {
    let other = "run-0";
    let fenced = |first: i64, then: i64| {
        let more = [
            Record::Seen {
                at: 900,
                number: 1,
                run: other.to_owned(),
                host: "h1".to_owned(),
                state: RunState::Succeeded,
                reason: Some(Reason::Exited),
                attempt: 1,
                exit_code: Some(0),
            },
            started(other, 1),
            offered(other, AttemptState::Finished, Reason::Exited, Some(0)),
            Record::Output {
                at: 1,
                number: 1,
                run: other.to_owned(),
                attempt: 1,
                stream: STDOUT,
                held: whole(other, 100),
            },
            Record::Output {
                at: 1,
                number: 1,
                run: other.to_owned(),
                attempt: 1,
                stream: STDERR,
                held: whole_of(STDERR, other, 0),
            },
        ];
        change(with(good(), more), |record| {
            if let Record::Offered { at, run, fence, .. } = record {
                (*at, *fence) = if run == other { (50, first) } else { (60, then) };
            }
        })
    };
    violates(&fenced(5, 9), &[]);
    violates(&fenced(9, 5), &["no-forged-start"]);
    violates(&with(fenced(9, 5), [fault(40, 70, Fault::JournalLost, "h1", &[])]), &[]);
    // Of two attempts one of which never started nothing follows.
    let only_offered =
        without(fenced(9, 5), |record| matches!(record, Record::Started { run, .. } if run == other));
    violates(&only_offered, &["one-start"]);
}

fn whole(run: &str, bytes: u64) -> Held {
    whole_of(STDOUT, run, bytes)
}

fn whole_of(stream: u8, run: &str, bytes: u64) -> Held {
    let sha256 = prefix_hash(1, run, 1, stream, bytes);
    Held { bytes, sha256, gap: 0, written: Some(bytes), complete: Some(true), fault: None }
}

#[test]
fn final_is_final() {
    let again = seen(1_200, RunState::Unknown, Some(Reason::AgentLost), None);
    violates(&with(good(), [again]), &["final"]);
    violates(&with(good(), [seen(1_200, RunState::Active, None, None)]), &["final"]);
    violates(&with(good(), [seen(1_200, RunState::Succeeded, Some(Reason::Exited), Some(0))]), &[]);
}

#[test]
fn results_are_kept() {
    let open = without(good(), |record| matches!(record, Record::Seen { state: RunState::Succeeded, .. }));
    violates(&open, &["result-kept"]);
    let late = change(good(), |record| {
        if let Record::Seen { at, state: RunState::Succeeded, .. } = record {
            *at = 100_000;
        }
    });
    violates(&late, &["result-kept"]);
    let lost = change(good(), |record| {
        if let Record::Ended { ended, .. } = record {
            *ended = false;
        }
    });
    violates(&lost, &["result-kept"]);
    let unacknowledged = without(good(), |record| matches!(record, Record::Acknowledged { .. }));
    violates(&unacknowledged, &["result-kept"]);
    let more = change(good(), |record| {
        if let Record::Asked { job, .. } = record {
            job.hosts.push("h2".to_owned());
        }
    });
    violates(&more, &["result-kept"]);
}

#[test]
fn what_is_unknown_has_a_fault_that_explains_it() {
    let lost = |reason| {
        without(ended(Kind::Succeeds, RunState::Unknown, reason), |r| matches!(r, Record::Output { .. }))
    };
    let shim = lost(Reason::ShimLost);
    violates(&shim, &["result-kept"]);
    violates(&with(shim.clone(), [fault(500, 501, Fault::ShimKilled, "h1", &["another"])]), &["result-kept"]);
    violates(&with(shim, [fault(500, 501, Fault::ShimKilled, "h1", &[RUN])]), &[]);
    let journal = lost(Reason::JournalLost);
    violates(&with(journal.clone(), [fault(500, 600, Fault::AgentKilled, "h1", &[])]), &["result-kept"]);
    violates(&with(journal.clone(), [fault(500, 600, Fault::JournalLost, "h2", &[])]), &["result-kept"]);
    violates(&with(journal, [fault(500, 600, Fault::JournalLost, "h1", &[])]), &[]);
    let agent = lost(Reason::AgentLost);
    violates(&agent, &["result-kept"]);
    violates(&with(agent.clone(), [fault(0, 5_000, Fault::NetworkCut, "h2", &[])]), &["result-kept"]);
    violates(&with(agent, [fault(0, 5_000, Fault::NetworkCut, "h1", &[])]), &[]);
}

#[test]
fn another_end_than_was_meant_is_explained_or_wrong() {
    violates(&ended(Kind::Succeeds, RunState::Cancelled, Reason::Cancelled), &["result-kept"]);
    let failed = history(Kind::Succeeds, seen(1_000, RunState::Failed, Some(Reason::Exited), Some(1)));
    violates(&failed, &["result-kept"]);
    let refused = without(ended(Kind::Succeeds, RunState::Failed, Reason::ManifestMismatch), |record| {
        matches!(record, Record::Output { .. } | Record::Started { .. } | Record::Offered { .. })
    });
    let refused = never_tried(refused);
    violates(&refused, &["no-forged-start", "result-kept"]);
    let forged = fault(1, 2, Fault::RowForged, "postgres", &["execution-1"]);
    violates(&with(refused, [forged, Record::Audited { run: RUN.to_owned() }]), &[]);
}

#[test]
fn output_is_whole() {
    let edit = |edit: fn(&mut Held)| {
        change(good(), move |record| {
            if let Record::Output { held, stream: STDOUT, .. } = record {
                edit(held);
            }
        })
    };
    violates(&edit(|held| "00".clone_into(&mut held.sha256)), &["whole-output"]);
    violates(&edit(|held| held.complete = Some(false)), &["whole-output"]);
    violates(&edit(|held| held.fault = Some("a hole".to_owned())), &["whole-output"]);
    // Short, and the host says so too: then it lies about what the process wrote.
    let short = change(good(), |record| {
        if let Record::Output { held, stream: STDOUT, .. } = record {
            *held = whole(RUN, 60);
        }
    });
    violates(&short, &["whole-output"]);
    violates(&without(good(), |record| matches!(record, Record::Output { .. })), &["whole-output"]);
    // A gap is allowed when it is told with its size.
    violates(&edit(|held| (held.bytes, held.gap, held.written) = (60, 40, Some(100))), &[]);
    violates(&edit(|held| (held.bytes, held.gap, held.written) = (60, 30, Some(100))), &["whole-output"]);
    // What a cancelled run had written must be its beginning.
    let cancelled = ended(Kind::Cancelled, RunState::Cancelled, Reason::Cancelled);
    let beginning = |held: Held| {
        change(cancelled.clone(), move |record| {
            if let Record::Output { held: old, stream: STDOUT, .. } = record {
                *old = held.clone();
            }
        })
    };
    violates(&beginning(whole(RUN, 60)), &[]);
    violates(
        &beginning(Held { sha256: prefix_hash(1, RUN, 1, STDOUT, 59), ..whole(RUN, 60) }),
        &["whole-output"],
    );
}

#[test]
fn kills_are_confirmed() {
    let alive = |at| Record::Alive { at, runs: vec![RUN.to_owned()] };
    for (kind, state, reason) in [
        (Kind::Cancelled, RunState::Cancelled, Reason::Cancelled),
        (Kind::TimesOut, RunState::TimedOut, Reason::TimeLimit),
    ] {
        violates(&with(ended(kind, state, reason), [alive(900)]), &[]);
        violates(&with(ended(kind, state, reason), [alive(1_001)]), &["confirmed-kill"]);
    }
}

#[test]
fn use_is_bounded() {
    let used = |memory_kib, disk_kib| Record::Used { at: 1, who: "h1".to_owned(), memory_kib, disk_kib };
    violates(&with(good(), [used(10_000_000, 1)]), &["bounded"]);
    violates(&with(good(), [used(1, 10_000_000)]), &["bounded"]);
}

#[test]
fn nothing_waits_for_ever() {
    let left = Record::Left { at: 1, host: "h1".to_owned(), folders: vec!["run-1-1".to_owned()] };
    violates(&with(good(), [left]), &["no-endless-wait"]);
    violates(
        &with(good(), [Record::Probed { host: "h1".to_owned(), succeeded: false }]),
        &["no-endless-wait"],
    );
    let fell = Record::Fell { at: 1, who: "h1".to_owned(), how: "a panic".to_owned() };
    violates(&with(good(), [fell]), &["no-endless-wait"]);
}

#[test]
fn a_fault_without_a_proof_is_none() {
    let claimed = change(vec![fault(1, 2, Fault::NetworkCut, "h1", &[])], |record| {
        if let Record::Fault { proof, .. } = record {
            proof.clear();
        }
    });
    violates(&with(good(), claimed), &["history"]);
    violates(&without(good(), |record| matches!(record, Record::FaultsOver { .. })), &["history"]);
}
