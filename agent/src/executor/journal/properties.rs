//! The journal against a map: random writes, reopenings, and crashes after which only what was flushed is there.

use std::{collections::BTreeMap, fs};

use proptest::{collection::vec, prelude::*};

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Writes that are handed over together, and waited for together.
    Write(Vec<What>),
    /// Closed and opened again.
    Reopen,
    /// What is on the disk at this moment is opened elsewhere, and gone on with.
    Crash,
}

#[derive(Debug, Clone)]
enum What {
    Put(u32, State),
    Forget(u32),
    Fence(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let state =
        prop_oneof![Just(State::Starting), Just(State::Started), Just(State::Ended), Just(State::Settled)];
    let what = prop_oneof![
        4 => (1..6_u32, state).prop_map(|(attempt, state)| What::Put(attempt, state)),
        1 => (1..6_u32).prop_map(What::Forget),
        1 => (0..20_u64).prop_map(What::Fence),
    ];
    prop_oneof![6 => vec(what, 1..5).prop_map(Step::Write), 1 => Just(Step::Reopen), 1 => Just(Step::Crash)]
}

fn key(attempt: u32) -> AttemptKey {
    let id = |byte| uuid::Uuid::from_bytes([byte; 16]);
    AttemptKey { execution_id: id(1).into(), run_id: id(2).into(), attempt }
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

fn close(opened: Opened) {
    let Opened { journal, thread, .. } = opened;
    drop(journal);
    thread.join().unwrap();
}

async fn agrees(steps: Vec<Step>) {
    let data = tempfile::tempdir().unwrap();
    let mut number = 0;
    let mut folder = data.path().join("journal-0");
    let mut opened = Journal::open(&folder).unwrap();
    let epoch = opened.epoch.clone();
    let (mut entries, mut fence) = (BTreeMap::new(), 0);
    for step in steps {
        match step {
            Step::Write(whats) => {
                let mut written = Vec::new();
                for what in whats {
                    let change = match what {
                        What::Put(attempt, state) => {
                            let execution_id = key(attempt).execution_id.to_bytes();
                            let entry = Entry { execution_id, state: state.into(), ..Entry::default() };
                            entries.insert(key(attempt), entry.clone());
                            Change::Put(key(attempt), entry.into())
                        }
                        What::Forget(attempt) => {
                            entries.remove(&key(attempt));
                            Change::Forget(key(attempt))
                        }
                        // Its writer only ever raises it.
                        What::Fence(by) => {
                            fence += by;
                            Change::Fence(fence)
                        }
                    };
                    written.push(opened.journal.write(vec![change]));
                }
                for written in written {
                    written.await.unwrap();
                }
                continue;
            }
            Step::Reopen => close(opened),
            Step::Crash => {
                number += 1;
                let next = data.path().join(format!("journal-{number}"));
                copy(&folder, &next);
                close(opened);
                folder = next;
            }
        }
        opened = Journal::open(&folder).unwrap();
        let found: BTreeMap<AttemptKey, Entry> = opened.entries.iter().cloned().collect();
        assert_eq!((&found, opened.fence, &opened.epoch), (&entries, fence, &epoch));
        assert!(opened.set_aside.is_none());
    }
    close(opened);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_journal_is_a_map_that_survives(steps in vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(agrees(steps));
    }
}
