use std::{collections::BTreeSet, ffi::OsString, os::unix::fs::DirEntryExt as _};

use super::*;

fn let_go(folder: &Path, position: u64) -> io::Result<()> {
    folder.to_owned().let_go(position)
}

fn data(stream: Stream, time: i64, offset: u64, bytes: &[u8]) -> Record {
    Record { stream, time, offset, body: Body::Data(bytes.to_vec()) }
}

fn all(reader: &mut Reader) -> Vec<Record> {
    std::iter::from_fn(|| reader.next().unwrap()).collect()
}

#[test]
fn what_was_written_is_read_while_the_file_grows() {
    let folder = tempfile::tempdir().unwrap();
    let mut reader = Reader::open(folder.path()).unwrap();
    assert_eq!(reader.next().unwrap(), None, "no file yet");
    let mut writer = Writer::create(folder.path()).unwrap();
    assert_eq!(reader.next().unwrap(), None);
    let long = vec![7; limits::CHUNK_BYTES];
    writer.append(Stream::Stdout, 1, 0, &long).unwrap();
    writer.append(Stream::Stderr, 2, 0, b"\0\xff").unwrap();
    let first = [data(Stream::Stdout, 1, 0, &long), data(Stream::Stderr, 2, 0, b"\0\xff")];
    assert_eq!(all(&mut reader), first);
    let position = reader.position();
    writer.append_gap(Stream::Stdout, 3, 65536, 1 << 40).unwrap();
    let gap = Record { stream: Stream::Stdout, time: 3, offset: 65536, body: Body::Gap(1 << 40) };
    assert_eq!(all(&mut reader), std::slice::from_ref(&gap));
    assert_eq!(all(&mut Reader::open_at(Arc::new(folder.path().to_owned()), position).unwrap()), [gap]);
    assert!(Writer::create(folder.path()).is_err(), "a second writer");
}

#[test]
fn an_incomplete_record_is_not_there_yet() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path()).unwrap();
    writer.append(Stream::Stdout, 1, 0, b"one").unwrap();
    writer.append(Stream::Stdout, 2, 3, b"two").unwrap();
    let path = folder.path().join(FILE_NAME);
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let mut reader = Reader::open(folder.path()).unwrap();
        let complete = usize::from(cut >= 8 + 35);
        assert_eq!(all(&mut reader).len(), complete, "cut at {cut}");
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(all(&mut reader).len(), 2 - complete, "cut at {cut}, then whole");
    }
}

#[test]
fn what_is_let_go_takes_no_room_and_is_not_read() {
    let attempts = tempfile::tempdir().unwrap();
    let folder = attempts.path().join("one");
    std::fs::create_dir(&folder).unwrap();
    let mut writer = Writer::create(&folder).unwrap();
    let long = vec![7; limits::CHUNK_BYTES];
    for at in 0..16 {
        writer.append(Stream::Stdout, 1, at * limits::CHUNK_BYTES as u64, &long).unwrap();
    }
    let mut reader = Reader::open(&folder).unwrap();
    let mut positions = vec![reader.position()];
    while reader.next().unwrap().is_some() {
        positions.push(reader.position());
    }
    let before = bytes_on_disk(attempts.path()).unwrap();
    let_go(&folder, positions[12]).unwrap();
    // Not back again.
    let_go(&folder, positions[3]).unwrap();
    let after = bytes_on_disk(attempts.path()).unwrap();
    assert!(before >= 16 * limits::CHUNK_BYTES as u64, "{before}");
    assert!(
        after == before || after <= 5 * limits::CHUNK_BYTES as u64,
        "{after}: a hole, where there are holes"
    );
    assert_eq!(all(&mut Reader::open(&folder).unwrap()).len(), 4);
    assert_eq!(all(&mut Reader::open_at(Arc::new(folder.clone()), positions[3]).unwrap()).len(), 4);
    assert_eq!(all(&mut Reader::open_at(Arc::new(folder.clone()), positions[14]).unwrap()).len(), 2);
    writer.append(Stream::Stderr, 2, 0, b"more").unwrap();
    assert_eq!(
        all(&mut Reader::open_at(Arc::new(folder.clone()), positions[16]).unwrap()),
        [data(Stream::Stderr, 2, 0, b"more")]
    );
}

/// The folder of an attempt with 16 long records, and where each begins; the end too.
fn long_output() -> (tempfile::TempDir, Vec<u64>) {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path()).unwrap();
    let long = vec![7; limits::CHUNK_BYTES];
    for at in 0..16 {
        writer.append(Stream::Stdout, 1, at * limits::CHUNK_BYTES as u64, &long).unwrap();
    }
    let mut reader = Reader::open(folder.path()).unwrap();
    let mut positions = vec![reader.position().max(FILE_HEADER.len() as u64)];
    while reader.next().unwrap().is_some() {
        positions.push(reader.position());
    }
    (folder, positions)
}

#[test]
fn letting_go_makes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path()).unwrap();
    let names = || {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        entries
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.file_name(), entry.ino())
            })
            .collect::<BTreeSet<_>>()
    };
    let files =
        |names: &BTreeSet<(OsString, u64)>| names.iter().map(|(_, file)| *file).collect::<BTreeSet<_>>();
    let before = names();
    for at in 0..4 {
        writer.append(Stream::Stdout, 1, at * 10, &[7; 10]).unwrap();
        let_go(folder.path(), writer.end).unwrap();
        assert_eq!(files(&names()), files(&before), "the same files, whatever they are called");
    }
}

#[test]
fn a_reader_before_what_is_let_go_meanwhile_goes_on_behind_it() {
    for read_ahead in 0..4 {
        for back_to in [None, Some(0), Some(1)] {
            let (folder, positions) = long_output();
            let mut reader = Reader::open(folder.path()).unwrap();
            for _ in 0..read_ahead {
                reader.next().unwrap().unwrap();
            }
            let_go(folder.path(), positions[12]).unwrap();
            if let Some(record) = back_to {
                reader.rest_at(positions[record]);
            }
            let offsets: Vec<u64> = all(&mut reader)
                .into_iter()
                .map(|record| {
                    assert_eq!(record.body, Body::Data(vec![7; limits::CHUNK_BYTES]));
                    record.offset / limits::CHUNK_BYTES as u64
                })
                .collect();
            assert!(offsets.ends_with(&[12, 13, 14, 15]), "{read_ahead} {back_to:?}: {offsets:?}");
            assert!(offsets.is_sorted() && reader.next().unwrap().is_none());
        }
    }
}

#[test]
fn room_that_was_not_given_back_is_given_back_the_next_time() {
    let blocks = |folder: &Path| std::fs::metadata(folder.join(FILE_NAME)).unwrap().blocks();
    let (at_once, positions) = long_output();
    let before = blocks(at_once.path());
    let_go(at_once.path(), positions[12]).unwrap();
    let (later, positions) = long_output();
    // The position came onto the disk, and then the agent died.
    source::begin_at(later.path(), positions[12]).unwrap();
    let_go(later.path(), positions[12]).unwrap();
    let (at_once, later) = (blocks(at_once.path()), blocks(later.path()));
    assert!(later <= at_once + before / 4, "{later} and {at_once} of {before}");
}

#[test]
fn damage_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path()).unwrap();
    writer.append(Stream::Stdout, 1, 0, b"one").unwrap();
    let path = folder.path().join(FILE_NAME);
    let whole = std::fs::read(&path).unwrap();
    // All but the length, whose damage may also make the record incomplete.
    for at in (0..whole.len()).filter(|at| !(32..40).contains(at)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        let error = Reader::open(folder.path()).unwrap().next().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "byte {at}");
    }
}
