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
    Drop(u32),
    Fence(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let state =
        prop_oneof![Just(State::Starting), Just(State::Started), Just(State::Ended), Just(State::Settled)];
    let what = prop_oneof![
        4 => (1..6_u32, state).prop_map(|(attempt, state)| What::Put(attempt, state)),
        1 => (1..6_u32).prop_map(What::Forget),
        1 => (1..6_u32).prop_map(What::Drop),
        1 => (0..20_u64).prop_map(What::Fence),
    ];
    prop_oneof![6 => vec(what, 1..5).prop_map(Step::Write), 1 => Just(Step::Reopen), 1 => Just(Step::Crash)]
}

fn key(attempt: u32) -> AttemptKey {
    let id = |kind| uuid::Uuid::from_u64_pair(u64::from(attempt) << 16, kind);
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
    let (mut entries, mut fence, mut floor) = (BTreeMap::new(), 0, None);
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
                            floor = floor.max(Some(u64::from(attempt)));
                            Change::Forget(key(attempt))
                        }
                        What::Drop(attempt) => {
                            entries.remove(&key(attempt));
                            Change::Drop(key(attempt))
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
        opened = tests::open_again(&folder);
        let known = &opened.known;
        let found: BTreeMap<AttemptKey, State> =
            known.keys().map(|key| (*key, known.get(key).unwrap().state())).collect();
        let states = entries.iter().map(|(key, entry): (_, &Entry)| (*key, entry.state())).collect();
        assert_eq!((found, opened.fence, &opened.epoch), (states, fence, &epoch));
        assert!(known.whole().all(|(key, entry)| entries[key] == *entry));
        assert_eq!(known.floor(), floor);
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
