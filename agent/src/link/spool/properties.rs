//! The spool against a map: random reports, answers, reopenings, and crashes after which what was handed out is there.

use std::fs;

use proptest::{collection::vec, prelude::*};
use proto::report::Body;

use super::{tests::*, *};

#[derive(Debug, Clone)]
enum Step {
    /// A report of this attempt; one that ends it, or not.
    Append(u128, bool),
    /// The answer to one of the unanswered reports.
    Answer(usize),
    Reopen,
    /// What is on the disk at this moment is opened elsewhere, and gone on with.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..8_u128, any::<bool>()).prop_map(|(run, is_final)| Step::Append(run, is_final)),
        4 => any::<usize>().prop_map(Step::Answer),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

fn is_final(report: &proto::Report) -> bool {
    matches!(report.body, Some(Body::Finished(_)))
}

async fn agrees(steps: Vec<Step>) {
    let data = tempfile::tempdir().unwrap();
    let mut number = 0;
    let mut folder = data.path().join("spool-0");
    let (mut spool, mut thread, _) = open(&folder);
    let mut unanswered: BTreeMap<u64, proto::Report> = BTreeMap::new();
    // Answered since something was last flushed: a crash may bring these back.
    let mut undone: BTreeMap<u64, proto::Report> = BTreeMap::new();
    let mut highest = 0;
    for step in steps {
        match step {
            Step::Append(run, ends) => {
                let report = if ends { finished(run) } else { accepted(run) };
                spool.append(report.clone()).await;
                let known =
                    unanswered.values().any(|other| report_id(other).unwrap() == report_id(&report).unwrap());
                let all = spool.unanswered(0, 1000).await;
                if !known {
                    let new = all.last().unwrap();
                    assert!(new.seq > highest, "numbers are given once");
                    highest = new.seq;
                    unanswered.insert(new.seq, proto::Report { seq: new.seq, ..report });
                    if ends {
                        undone.clear();
                    }
                }
            }
            Step::Answer(which) => {
                let Some(seq) = unanswered.keys().nth(which % unanswered.len().max(1)).copied() else {
                    continue;
                };
                spool.answered(seq).await;
                let report = unanswered.remove(&seq).unwrap();
                undone.insert(seq, report);
            }
            Step::Reopen => {
                close(spool, thread);
                (spool, thread, _) = open(&folder);
                undone.clear();
            }
            Step::Crash => {
                // Asking is waiting for all that came before.
                spool.unanswered(0, 1).await;
                number += 1;
                let next = data.path().join(format!("spool-{number}"));
                copy(&folder, &next);
                close(spool, thread);
                folder = next;
                (spool, thread, _) = open(&folder);
                let found: BTreeMap<u64, proto::Report> =
                    spool.unanswered(0, 1000).await.into_iter().map(|report| (report.seq, report)).collect();
                // The executor says again what is missing, as far as it is no end.
                for (seq, report) in unanswered.iter().filter(|(_, report)| is_final(report)) {
                    assert_eq!(found.get(seq), Some(report), "an end is lost");
                }
                for (seq, report) in &found {
                    let was = unanswered.get(seq).or_else(|| undone.get(seq));
                    assert_eq!(was, Some(report), "nobody said this");
                }
                unanswered = found;
                undone.clear();
            }
        }
        let found = spool.unanswered(0, 1000).await;
        assert!(found.iter().eq(unanswered.values()), "{found:?} is not {unanswered:?}");
    }
    close(spool, thread);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap().flatten() {
        let to = to.join(file.file_name());
        if file.path().is_dir() {
            copy(&file.path(), &to);
        } else {
            fs::copy(file.path(), to).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_spool_is_a_queue_that_survives(steps in vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(agrees(steps));
    }
}
