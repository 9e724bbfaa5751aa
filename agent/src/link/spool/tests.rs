use std::fs;

use model::id::{ExecutionId, RunId};
use proto::report::Body;
use uuid::Uuid;

use super::*;

fn key(n: u128) -> AttemptKey {
    AttemptKey {
        execution_id: ExecutionId(Uuid::from_u128(1)),
        run_id: RunId(Uuid::from_u128(n)),
        attempt: 1,
    }
}

fn report(n: u128, body: Body) -> proto::Report {
    let key = key(n);
    proto::Report {
        seq: 0,
        execution_id: key.execution_id.to_bytes(),
        run_id: key.run_id.to_bytes(),
        attempt: key.attempt,
        body: Some(body),
    }
}

pub(super) fn accepted(n: u128) -> proto::Report {
    report(n, Body::Accepted(proto::Accepted { at: 7 }))
}

pub(super) fn finished(n: u128) -> proto::Report {
    report(n, Body::Finished(proto::Finished { record: vec![1, 2, 3], signature: vec![4; 64] }))
}

/// Numbers of the unanswered reports, counted from `base`.
async fn seqs(spool: &Spool, base: u64) -> Vec<u64> {
    spool.unanswered(0, 1000).await.iter().map(|report| report.seq - base).collect()
}

/// A new spool, its thread, and the number before its first.
pub(super) fn open(folder: &Path) -> (Spool, thread::JoinHandle<()>, u64) {
    let (spool, thread) = Spool::open(folder).unwrap();
    let base = spool.watch().borrow().ready;
    (spool, thread, base)
}

pub(super) fn close(spool: Spool, thread: thread::JoinHandle<()>) {
    drop(spool);
    thread.join().unwrap();
}

#[tokio::test]
async fn reports_come_back_in_order_after_a_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("spool");
    let (spool, thread, base) = open(&folder);
    for n in 0..300 {
        spool.append(accepted(n)).await;
        spool.append(finished(n)).await;
    }
    assert_eq!(seqs(&spool, base).await, (1..=600).collect::<Vec<_>>());
    assert_eq!(
        spool.unanswered(base + 10, 3).await.iter().map(|report| report.seq - base).collect::<Vec<_>>(),
        [11, 12, 13]
    );
    for seq in 1..=599 {
        spool.answered(base + seq).await;
    }
    close(spool, thread);

    assert_eq!(count(&folder).unwrap(), 1);
    let (spool, thread, next) = open(&folder);
    let left = spool.unanswered(0, 10).await;
    assert_eq!(left, [proto::Report { seq: base + 600, ..finished(299) }]);
    assert!(next >= base + 600, "numbers are given once");
    spool.append(accepted(1000)).await;
    assert_eq!(spool.unanswered(base + 600, 10).await, [proto::Report { seq: next + 1, ..accepted(1000) }]);
    close(spool, thread);
}

#[tokio::test]
async fn a_repetition_keeps_its_number_until_it_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, thread, base) = open(&folder.path().join("spool"));
    spool.append(finished(1)).await;
    spool.append(accepted(2)).await;
    spool.append(finished(1)).await;
    assert_eq!(seqs(&spool, base).await, [1, 2]);
    spool.answered(base + 1).await;
    spool.answered(base + 77).await;
    spool.append(finished(1)).await;
    assert_eq!(seqs(&spool, base).await, [2, 3]);
    assert_eq!(*spool.watch().borrow(), SpoolState { ready: base + 3, unanswered: 2 });
    close(spool, thread);
}

#[tokio::test]
async fn a_report_without_an_attempt_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, thread, base) = open(&folder.path().join("spool"));
    spool.append(proto::Report::default()).await;
    assert!(seqs(&spool, base).await.is_empty());
    close(spool, thread);
}

#[tokio::test]
async fn a_damaged_database_is_set_aside() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("spool");
    let (spool, thread, _) = open(&folder);
    for n in 0..100 {
        spool.append(finished(n)).await;
    }
    close(spool, thread);
    for file in fs::read_dir(&folder).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
        let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
        fs::write(file.path(), vec![0xa5; length]).unwrap();
    }

    let (spool, thread, base) = open(&folder);
    assert!(seqs(&spool, base).await.is_empty());
    spool.append(finished(1)).await;
    assert_eq!(seqs(&spool, base).await, [1]);
    close(spool, thread);
    let names: Vec<_> =
        fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().any(|name| name.to_string_lossy().starts_with("spool.damaged-")), "{names:?}");
}

#[tokio::test]
async fn what_cannot_be_written_is_kept_in_memory() {
    let parent = tempfile::tempdir().unwrap();
    // A file where the folder should be: it cannot be opened, and it is not damage.
    let folder = parent.path().join("file").join("spool");
    fs::write(parent.path().join("file"), b"").unwrap();
    let (spool, thread, base) = open(&folder);
    spool.append(finished(1)).await;
    spool.append(accepted(2)).await;
    assert_eq!(seqs(&spool, base).await, [1, 2]);
    spool.answered(base + 1).await;
    assert_eq!(seqs(&spool, base).await, [2]);
    close(spool, thread);
}

#[test]
fn a_report_that_is_gone_is_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut owner = Owner::new(folder.path().join("spool"));
    owner.append(finished(1));
    owner.append(finished(2));
    owner.flush();
    let seq = owner.last_seq - 1;
    owner.store.as_ref().unwrap().remove(seq).unwrap();
    assert_eq!(owner.read(0, 10), [proto::Report { seq: seq + 1, ..finished(2) }]);
    assert_eq!(owner.state().unanswered, 1);
    owner.append(finished(1));
    assert_eq!(owner.read(seq + 1, 10), [proto::Report { seq: seq + 2, ..finished(1) }]);
}

#[tokio::test]
async fn cursors_are_kept_until_they_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("spool");
    let (spool, thread, _) = open(&folder);
    let cursor = SavedCursor { stdout_offset: 10, stderr_offset: 20, position: 30 };
    spool.save_cursor(key(1), cursor.clone()).await;
    spool.save_cursor(key(2), cursor.clone()).await;
    spool.forget_cursor(key(2)).await;
    close(spool, thread);
    let (spool, thread, _) = open(&folder);
    assert_eq!(spool.cursor(key(1)).await, Some(cursor));
    assert_eq!(spool.cursor(key(2)).await, None);
    close(spool, thread);
}
