use proptest::prelude::*;

use super::*;
use crate::command::Program;
use AttemptState as S;

fn command(retry: Option<i64>, idempotent: bool) -> Command {
    Command { retry: retry.map(Retry::of), idempotent, ..Command::new(Program::Shell("true".to_owned())) }
}

fn tried(attempts: &[(S, Reason)]) -> Vec<Tried> {
    (1..)
        .zip(attempts)
        .map(|(number, (state, reason))| {
            let exit_code = (*reason == Reason::Exited).then_some(1);
            Tried { number, state: *state, reason: Some(*reason), exit_code }
        })
        .collect()
}

#[test]
fn every_reason_after_one_failure() {
    const RETRIED: [Reason; 12] = [
        Reason::Exited,
        Reason::Signaled,
        Reason::TimeLimit,
        Reason::UnknownUser,
        Reason::BadWorkingDirectory,
        Reason::ProgramNotFound,
        Reason::SpawnFailed,
        Reason::MemoryLimit,
        Reason::PidsLimit,
        Reason::SandboxUnavailable,
        Reason::NoSpace,
        Reason::HostStopping,
    ];
    for reason in Reason::ALL {
        for (state, want) in [(S::Finished, RETRIED.contains(&reason)), (S::Lost, false)] {
            let got = next(&command(Some(2), false), &tried(&[(state, reason)]));
            let again = Next::Again { tries: 1, superseded: None };
            assert_eq!(got == again, want, "{state:?} {reason:?}: {got:?}");
            let got = next(&command(None, false), &tried(&[(state, reason)]));
            assert!(matches!(got, Next::Over(_)), "{state:?} {reason:?}: {got:?}");
        }
    }
}

#[test]
fn every_reason_after_one_loss() {
    const BORNE: [Reason; 4] =
        [Reason::AgentLost, Reason::JournalLost, Reason::ShimLost, Reason::HostRebooted];
    for reason in Reason::ALL {
        let got = next(&command(None, true), &tried(&[(S::Lost, reason)]));
        let again = Next::Again { tries: 1, superseded: Some(1) };
        assert_eq!(got == again, BORNE.contains(&reason), "{reason:?}: {got:?}");
    }
}

#[test]
fn what_succeeded_is_never_tried_again() {
    let done = Tried { number: 1, state: S::Finished, reason: Some(Reason::Exited), exit_code: Some(0) };
    assert!(matches!(next(&command(Some(10), true), &[done]), Next::Over(_)));
}

#[test]
fn only_tries_count_and_all_of_them() {
    use Reason::{AgentBusy, AgentLost, Exited, NotStarted};
    let busy = (S::Refused, AgentBusy);
    let withdrawn = (S::Withdrawn, AgentLost);
    let failed = (S::Finished, Exited);
    let lost = (S::Lost, AgentLost);
    let of = |retry, idempotent, attempts: &[_]| next(&command(retry, idempotent), &tried(attempts));
    assert_eq!(of(None, false, &[]), Next::First);
    assert_eq!(of(None, false, &[busy, withdrawn, (S::Refused, NotStarted)]), Next::First);
    assert_eq!(of(Some(2), false, &[busy, failed, busy]), Next::Again { tries: 1, superseded: None });
    assert!(matches!(of(Some(2), false, &[failed, busy, failed, busy]), Next::Over(_)));
    // What was lost stays to be superseded until a try after it has begun for certain, and beyond.
    assert_eq!(of(None, true, &[lost, withdrawn]), Next::Again { tries: 1, superseded: Some(1) });
    assert_eq!(of(Some(3), true, &[lost, failed]), Next::Again { tries: 2, superseded: Some(1) });
    assert!(matches!(of(Some(3), true, &[lost, failed, lost]), Next::Over(_)));
    assert!(matches!(of(None, true, &[lost; 10]), Next::Over(_)));
    assert!(matches!(of(Some(3), true, &[failed, (S::Started, Exited)]), Next::Over(_)));
}

#[test]
fn limits_are_named() {
    let good = Retry::of(3);
    good.validate().unwrap();
    for (bad, field) in [
        (Retry { attempts: 0, ..good.clone() }, "command.retry.attempts"),
        (Retry { attempts: 11, ..good.clone() }, "command.retry.attempts"),
        (Retry { backoff_seconds: 0, ..good.clone() }, "command.retry.backoff_seconds"),
        (Retry { max_backoff_seconds: i64::MAX, ..good.clone() }, "command.retry.max_backoff_seconds"),
        (Retry { max_backoff_seconds: 4, ..good.clone() }, "command.retry.max_backoff_seconds"),
    ] {
        assert_eq!(bad.validate().unwrap_err().field, field, "{bad:?}");
    }
}

proptest! {
    #[test]
    fn pauses_double_within_their_bounds(base in 1_i64..=3600, more in 0_i64..=3600, tries in 1_u32..=20, dice: u64) {
        let retry = Retry { attempts: 10, backoff_seconds: base, max_backoff_seconds: base + more };
        let whole = (base << (tries - 1).min(30)).min(base + more) as f64;
        let pause = retry.pause(tries, dice).as_secs_f64();
        prop_assert!(pause >= whole / 2.0 - 1e-6 && pause <= whole + 1e-6, "{pause} of {whole}");
    }
}
