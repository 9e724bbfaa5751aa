//! Runs that are tried more than once.

use super::*;

/// What became of an attempt.
#[derive(Clone, Copy)]
enum Try {
    Exits(i32),
    Killed,
    Lost,
    Withdrawn,
}

/// A run of the job that was tried so, one try after another, each as long as the other; it ended as the last of them.
fn tried(job: Job, tries: &[Try]) -> Vec<Record> {
    let mut history = vec![
        Record::Asked { at: 0, job },
        Record::Acknowledged { at: 10, number: 1, execution: "execution-1".to_owned() },
    ];
    let (mut at, mut end) = (100, None);
    for (number, one) in (1..).zip(tries) {
        let (state, reason, exit_code) = match one {
            Try::Exits(code) => (AttemptState::Finished, Some(Reason::Exited), Some(*code)),
            Try::Killed => (AttemptState::Finished, Some(Reason::Signaled), None),
            Try::Lost => (AttemptState::Lost, Some(Reason::ShimLost), None),
            Try::Withdrawn => (AttemptState::Withdrawn, None, None),
        };
        let (run, host) = (RUN.to_owned(), "h1".to_owned());
        let (attempt, fence, ended) = (number, 1, Some(at + 500));
        history.push(Record::Offered { at, run, attempt, host, fence, state, reason, exit_code, ended });
        if state != AttemptState::Withdrawn {
            history.push(started(RUN, number));
            for (stream, bytes) in [(STDOUT, 100), (STDERR, 0)] {
                let held = Held { sha256: prefix_hash(1, RUN, number, stream, bytes), ..whole(RUN, bytes) };
                history.push(Record::Output { at, number: 1, run: RUN.to_owned(), attempt, stream, held });
            }
            let state = match (state, exit_code) {
                (AttemptState::Lost, _) => RunState::Unknown,
                (_, Some(0)) => RunState::Succeeded,
                _ => RunState::Failed,
            };
            end = Some((state, reason, exit_code));
        }
        at += 1_000;
    }
    let (state, reason, exit_code) = end.expect("something was tried");
    let (run, host) = (RUN.to_owned(), "h1".to_owned());
    let attempt = i32::try_from(tries.len()).expect("a few");
    history.push(Record::Seen { at, number: 1, run, host, state, reason, attempt, exit_code });
    history.push(Record::FaultsOver { at });
    history.push(Record::Ended { number: 1, execution: "execution-1".to_owned(), ended: true });
    history
}

fn recovers(fails_until: i32, tries: i64) -> Job {
    Job { fails_until, retry: Some(tries), ..job(Kind::Recovers) }
}

fn shim_killed() -> Record {
    fault(0, 10_000, Fault::ShimKilled, "h1", &[RUN])
}

#[test]
fn what_fails_is_tried_again_until_it_succeeds() {
    violates(&tried(recovers(2, 3), &[Try::Exits(3), Try::Exits(3), Try::Exits(0)]), &[]);
    // An attempt that was called off is no try.
    violates(&tried(recovers(1, 2), &[Try::Exits(3), Try::Withdrawn, Try::Exits(0)]), &[]);
    // A try that fails for another reason needs a fault, and is one all the same.
    let killed = tried(recovers(1, 3), &[Try::Exits(3), Try::Killed, Try::Exits(0)]);
    violates(&killed, &["result-kept"]);
    violates(&with(killed, [shim_killed()]), &[]);
}

#[test]
fn nobody_is_tried_too_often_or_too_seldom() {
    let gives_up = Job { fails_until: i32::MAX, retry: Some(3), ..job(Kind::GivesUp) };
    violates(&tried(gives_up.clone(), &[Try::Exits(3); 3]), &[]);
    violates(&tried(gives_up.clone(), &[Try::Exits(3); 4]), &["retries"]);
    violates(&tried(gives_up.clone(), &[Try::Exits(3); 2]), &["retries"]);
    // Whoever edits the command takes the policy from it.
    let forged = fault(1, 2, Fault::RowForged, "postgres", &["execution-1"]);
    violates(&with(tried(gives_up, &[Try::Exits(3); 2]), [forged]), &[]);
    let without_policy = Job { fails_until: i32::MAX, ..job(Kind::Fails) };
    violates(&tried(without_policy.clone(), &[Try::Exits(3)]), &[]);
    violates(&tried(without_policy, &[Try::Exits(3); 2]), &["retries"]);
    // What has succeeded is not tried again.
    violates(&tried(recovers(0, 3), &[Try::Exits(0); 2]), &["retries"]);
}

#[test]
fn a_next_try_that_no_host_takes_in_time_needs_a_fault() {
    let late = change(tried(recovers(1, 3), &[Try::Exits(3)]), |record| {
        if let Record::Seen { at, .. } = record {
            *at = 70_000;
        }
    });
    violates(&late, &["result-kept"]);
    violates(&with(late.clone(), [fault(200, 69_000, Fault::NetworkCut, "h2", &[])]), &["result-kept"]);
    violates(&with(late, [fault(200, 69_000, Fault::NetworkCut, "h1", &[])]), &[]);
}

#[test]
fn only_what_bears_it_is_run_again_after_a_loss() {
    let lost = [Try::Lost, Try::Exits(0)];
    let repeats = Job { idempotent: true, ..job(Kind::Repeats) };
    violates(&tried(repeats.clone(), &lost), &["result-kept"]);
    violates(&with(tried(repeats.clone(), &lost), [shim_killed()]), &[]);
    violates(&with(tried(recovers(0, 3), &lost), [shim_killed()]), &["retries"]);
    violates(&with(tried(repeats, &[Try::Lost]), [shim_killed()]), &["retries"]);
    violates(&with(tried(job(Kind::Succeeds), &[Try::Lost]), [shim_killed()]), &[]);
}

#[test]
fn a_try_waits_until_the_one_before_is_dead() {
    let good = tried(recovers(1, 2), &[Try::Exits(3), Try::Exits(0)]);
    let beside = change(good.clone(), |record| {
        if let Record::Started { attempt: 2, beside, .. } = record {
            beside.push(1);
        }
    });
    violates(&beside, &["one-start"]);
    let early = change(good.clone(), |record| {
        if let Record::Offered { attempt: 1, ended, .. } = record {
            *ended = Some(2_000);
        }
    });
    violates(&early, &["retries"]);
    let mut reversed = good.clone();
    let is_start =
        |record: &Record, number| matches!(record, Record::Started { attempt, .. } if *attempt == number);
    let one = reversed.iter().position(|record| is_start(record, 1)).expect("it started");
    let two = reversed.iter().position(|record| is_start(record, 2)).expect("it started");
    reversed.swap(one, two);
    violates(&reversed, &["one-start"]);
    violates(&with(good, [started(RUN, 2)]), &["one-start"]);
}

#[test]
fn a_run_ends_as_its_last_try() {
    let good = tried(recovers(1, 3), &[Try::Exits(3), Try::Exits(0)]);
    let edit = |edit: fn(&mut Record)| change(good.clone(), edit);
    let older = edit(|record| {
        if let Record::Seen { attempt, .. } = record {
            *attempt = 1;
        }
    });
    violates(&older, &["retries"]);
    let open = edit(|record| {
        if let Record::Offered { attempt: 2, state, .. } = record {
            *state = AttemptState::Started;
        }
    });
    violates(&open, &["retries"]);
    // The tables say that it failed, the run that it succeeded.
    let other = edit(|record| {
        if let Record::Offered { attempt: 2, exit_code, .. } = record {
            *exit_code = Some(3);
        }
    });
    violates(&other, &["retries"]);
}

#[test]
fn a_cancel_between_two_tries_is_one() {
    let cancelled = |cancel_after_ms| {
        let job = Job { fails_until: i32::MAX, retry: Some(3), cancel_after_ms, ..job(Kind::Cancelled) };
        let history = change(tried(job, &[Try::Killed]), |record| {
            if let Record::Seen { state, reason, .. } = record {
                (*state, *reason) = (RunState::Cancelled, Some(Reason::Cancelled));
            }
        });
        with(history, [shim_killed()])
    };
    violates(&cancelled(Some(100)), &[]);
    violates(&cancelled(None), &["retries"]);
}

#[test]
fn each_try_has_its_own_output() {
    let good = tried(recovers(1, 2), &[Try::Exits(3), Try::Exits(0)]);
    let edit = |wanted: i32, edit: fn(&mut Held)| {
        change(good.clone(), move |record| {
            if let Record::Output { attempt, stream: STDOUT, held, .. } = record
                && *attempt == wanted
            {
                edit(held);
            }
        })
    };
    for attempt in [1, 2] {
        violates(&edit(attempt, |held| held.complete = Some(false)), &["whole-output"]);
        violates(&edit(attempt, |held| held.sha256 = prefix_hash(1, RUN, 7, STDOUT, 100)), &["whole-output"]);
    }
    let nobodys = Record::Output {
        at: 1,
        number: 1,
        run: RUN.to_owned(),
        attempt: 9,
        stream: STDOUT,
        held: whole(RUN, 100),
    };
    violates(&with(good, [nobodys]), &["whole-output"]);
}
