use model::{
    api::output::Stream,
    id::{ExecutionId, RunId},
};
use uuid::Uuid;

use super::*;
use crate::{link::cut::compressor, segment::Writer};

fn attempt(folder: &std::path::Path) -> Attempt {
    let key = AttemptKey {
        execution_id: ExecutionId(Uuid::from_u128(1)),
        run_id: RunId(Uuid::from_u128(2)),
        attempt: 1,
    };
    Attempt::new(key, folder.to_owned())
}

fn all(attempt: &mut Attempt) -> Vec<proto::Chunk> {
    let mut compressor = compressor().unwrap();
    std::iter::from_fn(|| attempt.next(Instant::now(), &mut compressor)).collect()
}

#[test]
fn silence_needs_no_connection() {
    let folder = tempfile::tempdir().unwrap();
    let mut attempt = attempt(folder.path());
    assert!(!attempt.wants_connection(Instant::now()), "no file yet");
    Writer::create(folder.path()).unwrap();
    attempt.grew();
    assert!(!attempt.wants_connection(Instant::now()), "an empty file");
    attempt.end(Some([0, 0]));
    assert!(!attempt.wants_connection(Instant::now()));
    assert!(!attempt.is_settled(), "the final report is not answered");
    attempt.answer();
    assert!(attempt.is_settled());
}

#[test]
fn what_was_sent_is_sent_again_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path()).unwrap();
    let mut attempt = attempt(folder.path());
    for (n, text) in [b"one", b"two", b"six"].into_iter().enumerate() {
        writer.append(Stream::Stdout, n as i64 * 1_000_000, n as u64 * 3, text).unwrap();
    }
    assert!(attempt.resume(Instant::now()).is_some());
    assert!(attempt.resume(Instant::now()).is_none(), "once a connection");
    assert!(all(&mut attempt).is_empty(), "nothing before the answer");
    attempt.resumed(Instant::now(), Cursor::default(), None);
    let sent = all(&mut attempt);
    assert_eq!(sent.len(), 3);

    // The connection broke after the first was stored; meanwhile more was written close to the last.
    attempt.disconnect();
    writer.append(Stream::Stdout, 2_000_001, 9, b"ten").unwrap();
    attempt.grew();
    assert!(attempt.resume(Instant::now()).is_some());
    attempt.resumed(Instant::now(), Cursor { next_seq: 1, offsets: [3, 0] }, None);
    let again = all(&mut attempt);
    assert_eq!(again[..2], sent[1..]);
    assert_eq!(again[2].data.as_ref(), b"ten");

    attempt.end(Some([12, 0]));
    attempt.answer();
    assert!(all(&mut attempt).is_empty());
    assert!(!attempt.is_settled());
    attempt.stored(Cursor { next_seq: 4, offsets: [12, 0] });
    assert!(attempt.is_settled());
}

#[test]
fn a_controller_that_went_back_gets_everything_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path()).unwrap();
    writer.append(Stream::Stdout, 0, 0, b"one").unwrap();
    writer.append(Stream::Stderr, 0, 0, b"two").unwrap();
    let mut attempt = attempt(folder.path());
    attempt.resume(Instant::now()).unwrap();
    attempt.resumed(Instant::now(), Cursor::default(), None);
    let first = all(&mut attempt);
    attempt.stored(Cursor { next_seq: 2, offsets: [3, 3] });
    attempt.disconnect();
    attempt.grew();
    // It was restored from a backup.
    attempt.stage = Stage::Resuming;
    attempt.resumed(Instant::now(), Cursor::default(), None);
    assert_eq!(all(&mut attempt), first);
    // And one that holds the middle of a record.
    attempt.disconnect();
    attempt.resumed(Instant::now(), Cursor { next_seq: 1, offsets: [1, 0] }, None);
    let rest: Vec<_> =
        all(&mut attempt).into_iter().map(|chunk| (chunk.seq, chunk.offset, chunk.data.to_vec())).collect();
    assert_eq!(rest, [(1, 1, b"ne".to_vec()), (2, 0, b"two".to_vec())]);
}

#[test]
fn output_that_is_gone_is_told_as_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let mut attempt = attempt(&folder.path().join("gone"));
    attempt.end(Some([10, 0]));
    assert!(attempt.wants_connection(Instant::now()));
    attempt.resume(Instant::now()).unwrap();
    attempt.resumed(Instant::now(), Cursor { next_seq: 3, offsets: [4, 0] }, None);
    let chunks = all(&mut attempt);
    assert_eq!(
        chunks.iter().map(|chunk| (chunk.seq, chunk.offset, chunk.gap)).collect::<Vec<_>>(),
        [(3, 4, 6)]
    );
    attempt.answer();
    attempt.stored(Cursor { next_seq: 4, offsets: [10, 0] });
    assert!(attempt.is_settled());
}

#[test]
fn rejected_output_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path()).unwrap();
    writer.append(Stream::Stdout, 0, 0, b"one").unwrap();
    let mut attempt = attempt(folder.path());
    attempt.resume(Instant::now()).unwrap();
    attempt.reject();
    attempt.grew();
    assert!(!attempt.wants_connection(Instant::now()));
    attempt.end(Some([3, 0]));
    attempt.answer();
    assert!(attempt.is_settled());
}

/// Whether this process has the attempt's file open.
fn is_open(folder: &std::path::Path) -> bool {
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok()).any(|path| path.starts_with(folder))
}

#[test]
fn a_file_is_open_only_while_it_is_shipped() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path()).unwrap();
    writer.append(Stream::Stdout, 0, 0, &[b'x'; 1000]).unwrap();
    writer.append(Stream::Stderr, 0, 0, b"two").unwrap();
    drop(writer);
    let mut attempt = attempt(folder.path());
    assert!(attempt.wants_connection(Instant::now()));
    assert!(!is_open(folder.path()), "no connection yet");
    attempt.resume(Instant::now()).unwrap();
    attempt.resumed(Instant::now(), Cursor::default(), None);
    let mut compressor = compressor().unwrap();
    let first = attempt.next(Instant::now(), &mut compressor).unwrap();
    assert!(is_open(folder.path()));
    attempt.disconnect();
    assert!(!is_open(folder.path()), "the connection is gone");

    attempt.resume(Instant::now()).unwrap();
    attempt.resumed(Instant::now(), Cursor { next_seq: 1, offsets: [1000, 0] }, None);
    let rest = all(&mut attempt);
    assert_eq!((first.length, rest.len(), rest[0].data.as_ref()), (1000, 1, &b"two"[..]));
    assert!(is_open(folder.path()), "there may be more");
    attempt.end(Some([1000, 3]));
    assert!(all(&mut attempt).is_empty());
    assert!(!is_open(folder.path()), "there is no more");
}

#[test]
fn a_file_that_cannot_be_read_is_left_alone_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(crate::segment::FILE_NAME);
    std::fs::create_dir(&path).unwrap();
    let mut attempt = attempt(folder.path());
    attempt.end(Some([3, 0]));
    let now = Instant::now();
    assert!(!attempt.wants_connection(now), "a connection would be of no use");
    let until = attempt.blind_until().unwrap();
    assert!(attempt.has_unstored());

    std::fs::remove_dir(&path).unwrap();
    Writer::create(folder.path()).unwrap().append(Stream::Stdout, 0, 0, b"one").unwrap();
    assert!(until <= now || !attempt.wants_connection(now), "not yet");
    attempt.resume(until).unwrap();
    assert_eq!(attempt.blind_until(), None);
    attempt.resumed(until, Cursor::default(), None);
    assert_eq!(all(&mut attempt).len(), 1);
}

#[test]
fn what_could_not_be_let_go_is_let_go_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut attempt = attempt(folder.path());
    attempt.stored_to = LET_GO_BYTES;
    let worth = Some((folder.path().to_owned(), LET_GO_BYTES));
    assert_eq!(attempt.let_go(), worth);
    assert_eq!(attempt.let_go(), None, "one at a time");
    attempt.has_let_go(false);
    assert_eq!(attempt.let_go(), worth, "the disk was full");
    attempt.has_let_go(true);
    assert_eq!(attempt.let_go(), None);
}
