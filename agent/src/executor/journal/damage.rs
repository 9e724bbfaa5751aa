//! A journal of which any byte may be wrong, or all behind it missing: it opens with what it held, or is set aside.

use std::{collections::BTreeMap, fs, ops::Range, sync::mpsc as std_mpsc};

use super::*;

/// Damages that are tried of each kind; all bytes with `OPSC_TESTS_FULL=1`.
const CASES: usize = 40;
/// How long one opening may take, on a machine with much else to do.
const OPENS_WITHIN: Duration = Duration::from_secs(60);

fn key(attempt: u32) -> AttemptKey {
    let id = |byte| uuid::Uuid::from_bytes([byte; 16]);
    AttemptKey { execution_id: id(1).into(), run_id: id(2).into(), attempt }
}

fn entry(state: State) -> Entry {
    let execution_id = key(1).execution_id.to_bytes();
    Entry { execution_id, state: state.into(), at: 5, boot_id: "boot".to_owned(), ..Entry::default() }
}

/// What a journal holds, for comparing.
type Held = (Vec<u8>, u64, BTreeMap<AttemptKey, i32>);

/// Opens and closes it; what it holds, and whether another one was set aside for it.
fn held(folder: &Path) -> (Held, bool) {
    let Opened { journal, thread, epoch, fence, known, set_aside } = tests::open_again(folder);
    drop(journal);
    thread.join().unwrap();
    let entries = known.whole().map(|(key, entry)| (*key, entry.state)).collect();
    ((epoch, fence, entries), set_aside.is_some())
}

/// The files of a folder, by name.
pub(super) fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder).unwrap().flatten() {
        if file.path().is_dir() {
            found.extend(files(&file.path()));
        } else {
            found.push((file.path(), fs::read(file.path()).unwrap()));
        }
    }
    found
}

pub(super) fn is_full() -> bool {
    std::env::var_os("OPSC_TESTS_FULL").is_some_and(|value| value == "1")
}

/// Some places of a range, spread evenly.
fn some(places: &[usize]) -> Vec<usize> {
    let step = if is_full() { 1 } else { places.len().div_ceil(CASES).max(1) };
    places.iter().step_by(step).copied().collect()
}

/// Where a file says something: the runs of zeros that are only room are left out.
fn spoken(bytes: &[u8]) -> Vec<usize> {
    const ROOM: usize = 32;
    let is_room = |range: Range<usize>| bytes[range].iter().all(|byte| *byte == 0);
    (0..bytes.len()).filter(|at| !is_room(*at..(*at + ROOM).min(bytes.len()))).collect()
}

#[tokio::test]
async fn a_damaged_journal_is_what_it_was_or_is_set_aside() {
    let data = tempfile::tempdir().unwrap();
    let original = data.path().join("original");
    let opened = Journal::open(&original).unwrap();
    for attempt in 1..=4 {
        opened.journal.write(vec![Change::Put(key(attempt), entry(State::Starting).into())]).await.unwrap();
        opened
            .journal
            .write(vec![Change::Put(key(attempt), entry(State::Started).into()), Change::Fence(7)])
            .await
            .unwrap();
    }
    let Opened { journal, thread, .. } = opened;
    drop(journal);
    thread.join().unwrap();
    let (whole, _) = held(&original);
    assert_eq!(whole.2.len(), 4);

    let files = files(&original);
    let mut cases = 0;
    for (damaged, bytes) in &files {
        let flips =
            some(&spoken(bytes)).into_iter().flat_map(|at| [(at, 1_u8), (at, 255)]).map(|(at, by)| {
                let mut bytes = bytes.clone();
                bytes[at] = bytes[at].wrapping_add(by);
                (format!("byte {at} + {by}"), bytes)
            });
        let cuts = some(&spoken(bytes)).into_iter().map(|at| (format!("cut at {at}"), bytes[..at].to_vec()));
        for (what, changed) in flips.chain(cuts) {
            let case = tempfile::tempdir_in(data.path()).unwrap();
            let folder = case.path().join("journal");
            for (path, bytes) in &files {
                let to = folder.join(path.strip_prefix(&original).unwrap());
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::write(to, if path == damaged { &changed } else { bytes }).unwrap();
            }
            let what = format!("{}: {what}", damaged.strip_prefix(&original).unwrap().display());
            let (done, opened) = std_mpsc::channel();
            thread::spawn(move || {
                let _ = done.send(held(&folder));
            });
            let (now, is_set_aside) =
                opened.recv_timeout(OPENS_WITHIN).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(is_set_aside != (now.0 == whole.0), "{what}: an epoch is kept, or a new one begins");
            assert!(is_set_aside || now == whole, "{what}: {now:?}");
            cases += 1;
        }
    }
    assert!(cases > CASES, "{cases} damages were tried");
}
