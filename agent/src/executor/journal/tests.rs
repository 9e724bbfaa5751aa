use super::*;

fn key(attempt: u32) -> AttemptKey {
    let id = |byte| uuid::Uuid::from_bytes([byte; 16]);
    AttemptKey { execution_id: id(1).into(), run_id: id(2).into(), attempt }
}

fn entry(state: State) -> Entry {
    let execution_id = key(1).execution_id.to_bytes();
    Entry { execution_id, state: state.into(), at: 5, boot_id: "boot".to_owned(), ..Entry::default() }
}

fn close(opened: Opened) {
    let Opened { journal, thread, .. } = opened;
    drop(journal);
    thread.join().unwrap();
}

/// Opens one that was closed just now: the database lets go of its folder a moment later.
pub(super) fn open_again(folder: &Path) -> Opened {
    loop {
        match Journal::open(folder) {
            Err(JournalError::InUse { .. }) => thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("journal");
    let first = Journal::open(&folder).unwrap();
    assert!(first.known.is_empty());
    let journal = first.journal.clone();
    let both = tokio::join!(
        journal.write(vec![Change::Put(key(1), entry(State::Starting).into()), Change::Fence(7)]),
        journal.write(vec![Change::Put(key(2), entry(State::Refused).into()), Change::Fence(6)]),
    );
    both.0.unwrap();
    both.1.unwrap();
    journal.write(vec![Change::Put(key(1), entry(State::Started).into())]).await.unwrap();
    journal.write(vec![Change::Forget(key(2))]).await.unwrap();
    let epoch = first.epoch.clone();
    assert!(
        matches!(Journal::open(&folder), Err(JournalError::InUse { .. })),
        "a journal in use is left alone"
    );
    drop(journal);
    close(first);

    let again = open_again(&folder);
    assert_eq!(again.known.whole().collect::<Vec<_>>(), [(&key(1), &entry(State::Started))]);
    assert_eq!(again.known.keys().count(), 1);
    assert_eq!(again.known.floor(), Some(key(2).execution_id.millis()));
    assert_eq!((again.epoch, again.fence, again.set_aside), (epoch, 7, None));
}

#[tokio::test]
async fn a_damaged_journal_is_set_aside_and_a_new_epoch_begins() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("journal");
    let first = Journal::open(&folder).unwrap();
    first.journal.write(vec![Change::Put(key(1), entry(State::Started).into())]).await.unwrap();
    let epoch = first.epoch.clone();
    close(first);
    for file in std::fs::read_dir(&folder).unwrap().flatten().filter(|file| file.path().is_file()) {
        let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
        std::fs::write(file.path(), vec![0xa5; length]).unwrap();
    }

    let again = open_again(&folder);
    assert!(again.known.is_empty());
    assert_ne!(again.epoch, epoch);
    assert!(again.set_aside.is_some_and(|aside| aside.is_dir()));
}

/// A file system of one MiB, as long as it lives; none where this user may not mount.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let (kind, size) = (Some("tmpfs"), Some("size=1m"));
        nix::mount::mount(kind, at.path(), kind, nix::mount::MsFlags::empty(), size).ok()?;
        Some(Self(at))
    }

    fn fill(&self) {
        let full = std::fs::write(self.0.path().join("filler"), vec![0; 2 * 1024 * 1024]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        std::fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

/// Writes entries until the disk is full, and gives the first that failed.
async fn write_until_full(journal: &Journal) -> u32 {
    for attempt in 2.. {
        let big = Entry { boot_id: "x".repeat(100_000), ..entry(State::Ended) };
        if let Err(error) = journal.write(vec![Change::Put(key(attempt), big.into())]).await {
            assert!(error.is_no_space(), "{error:?}");
            return attempt;
        }
    }
    unreachable!("a disk has an end");
}

#[tokio::test]
async fn a_full_disk_is_got_over() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("SKIPPED: this user may not mount a small disk");
        return;
    };
    let folder = disk.0.path().join("journal");
    let first = Journal::open(&folder).unwrap();
    let journal = first.journal.clone();
    journal.write(vec![Change::Put(key(1), entry(State::Starting).into())]).await.unwrap();
    disk.fill();
    let failed = write_until_full(&journal).await;
    assert!(
        journal.write(vec![Change::Put(key(1), entry(State::Ended).into()), Change::Fence(9)]).await.is_err(),
        "it stays full"
    );
    journal.write(vec![Change::Put(key(failed), entry(State::Settled).into())]).await.unwrap_err();
    disk.free();
    // Of what failed only the newest counts.
    while journal.write(Vec::new()).await.is_err() {
        tokio::task::yield_now().await;
    }
    let epoch = first.epoch.clone();
    drop(journal);
    close(first);
    let again = open_again(&folder);
    assert_eq!((again.epoch, again.fence), (epoch, 9));
    let found = |attempt| again.known.get(&key(attempt)).map(Entry::state);
    assert_eq!(found(1), Some(State::Ended));
    assert_eq!(found(failed), Some(State::Settled));
}

#[tokio::test]
async fn a_journal_that_is_replaced_while_in_use_ends_its_thread() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("SKIPPED: this user may not mount a small disk");
        return;
    };
    let folder = disk.0.path().join("journal");
    let opened = Journal::open(&folder).unwrap();
    disk.fill();
    write_until_full(&opened.journal).await;
    std::fs::remove_dir_all(&folder).unwrap();
    disk.free();
    opened.journal.gone().await;
    assert!(matches!(opened.journal.write(Vec::new()).await, Err(JournalError::Gone)));
    close(opened);
}

#[test]
fn what_the_system_cannot_do_is_no_damage() {
    let fault = |kind| Fault::from(sled::Error::Io(io::Error::from(kind)));
    assert!(matches!(fault(io::ErrorKind::InvalidData), Fault::Damaged));
    assert!(matches!(fault(io::ErrorKind::StorageFull), Fault::Io(_)));
    let many = io::Error::from_raw_os_error(libc::EMFILE);
    assert!(matches!(Fault::from(sled::Error::Io(many)), Fault::Io(_)));
}

/// As much as is remembered at most, with `OPSC_TESTS_FULL=1`; a fiftieth of it otherwise.
#[tokio::test]
async fn a_journal_at_its_bound_is_small() {
    let count = if damage::is_full() { Keep::ALL.over } else { Keep::ALL.over / 50 };
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("journal");
    let first = Journal::open(&folder).unwrap();
    let attempts: Vec<AttemptKey> = (0..count as u64)
        .map(|made| {
            let id = uuid::Uuid::from_u64_pair(made << 16, made);
            AttemptKey { execution_id: id.into(), run_id: id.into(), attempt: 1 }
        })
        .collect();
    for some in attempts.chunks(1000) {
        let put = |entry: fn(AttemptKey) -> Entry| {
            some.iter().map(|key| Change::Put(*key, entry(*key).into())).collect()
        };
        first.journal.write(put(|_| entry(State::Starting))).await.unwrap();
        first.journal.write(put(|key| Entry::bare(key, State::Settled, false))).await.unwrap();
    }
    close(first);
    let begun = Instant::now();
    let again = open_again(&folder);
    assert_eq!(again.known.keys().count(), count);
    let bytes: usize = damage::files(&folder).iter().map(|(_, bytes)| bytes.len()).sum();
    println!("{count} attempts: opened within {:?}, {bytes} bytes on the disk", begun.elapsed());
    close(again);
    assert!(bytes < count * 256 + 8 * 1024 * 1024, "{bytes} bytes for {count} attempts");
}
