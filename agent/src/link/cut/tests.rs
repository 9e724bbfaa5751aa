//! The property: however the output was written, and wherever shipping is interrupted and begun again, the chunks put
//! together are the bytes that were written, in each stream, without hole or overlap.

use std::path::Path;

use model::id::{ExecutionId, RunId};
use uuid::Uuid;

use super::*;
use crate::segment::{FILE_NAME, Writer};

fn key() -> AttemptKey {
    AttemptKey {
        execution_id: ExecutionId(Uuid::from_u128(1)),
        run_id: RunId(Uuid::from_u128(2)),
        attempt: 3,
    }
}

/// What a controller would hold: it takes a chunk only if it goes on exactly where the last one ended.
#[derive(Default, Clone)]
struct Held {
    cursor: Cursor,
    streams: [Vec<Option<u8>>; 2],
}

impl Held {
    fn store(&mut self, cut: &Cut) {
        let chunk = &cut.chunk;
        let lane = lane(Stream::from_number(chunk.stream.try_into().unwrap()).unwrap());
        assert_eq!(chunk.seq, self.cursor.next_seq);
        assert_eq!(chunk.offset, self.cursor.offsets[lane]);
        assert!(chunk.length as usize <= limits::CHUNK_BYTES);
        if chunk.gap > 0 {
            assert_eq!((chunk.length, chunk.data.len()), (0, 0));
            self.streams[lane].extend((0..chunk.gap).map(|_| None));
        } else {
            let data = match chunk.encoding() {
                proto::Encoding::Plain => chunk.data.to_vec(),
                proto::Encoding::Zstd => zstd::bulk::decompress(&chunk.data, limits::CHUNK_BYTES).unwrap(),
            };
            assert_eq!(data.len(), chunk.length as usize);
            self.streams[lane].extend(data.into_iter().map(Some));
        }
        self.cursor.next_seq += 1;
        self.cursor.offsets[lane] = self.streams[lane].len() as u64;
        assert_eq!(self.cursor, cut.after);
    }
}

fn cutter(folder: &Path, held: Cursor, saved: Option<SavedCursor>) -> Cutter {
    Cutter::open(key(), Arc::new(folder.to_owned()), held, saved).unwrap()
}

/// Writes random records and returns what was written.
fn write(folder: &Path, random: &mut fastrand::Rng) -> [Vec<Option<u8>>; 2] {
    let mut writer = Writer::create(folder).unwrap();
    let mut written = [Vec::new(), Vec::new()];
    let mut time = 0;
    for _ in 0..random.usize(0..40) {
        let stream = if random.bool() { Stream::Stdout } else { Stream::Stderr };
        let out = &mut written[lane(stream)];
        time += random.i64(0..30_000);
        if random.u8(0..10) == 0 {
            let length = random.u64(1..5000);
            writer.append_gap(stream, time, out.len() as u64, length).unwrap();
            out.extend((0..length).map(|_| None));
        } else {
            let largest = if random.bool() { 40 } else { limits::CHUNK_BYTES };
            let letters = random.u8(1..=255);
            let data: Vec<u8> = (0..random.usize(1..=largest)).map(|_| random.u8(..letters)).collect();
            writer.append(stream, time, out.len() as u64, &data).unwrap();
            out.extend(data.into_iter().map(Some));
        }
    }
    written
}

#[test]
fn any_output_interrupted_anywhere_is_whole() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = tempfile::tempdir().unwrap();
        let written = write(folder.path(), &mut random);
        let mut held = Held::default();
        let mut saved = None;
        let mut compressor = compressor().unwrap();
        loop {
            // Another start of the agent: of what it cuts only some is stored.
            let mut cutter = cutter(folder.path(), held.cursor, saved.clone());
            let cuts: Vec<_> = std::iter::from_fn(|| cutter.next(&mut compressor).unwrap()).collect();
            let stored = random.usize(0..=cuts.len());
            for cut in &cuts[..stored] {
                held.store(cut);
                if random.bool() {
                    let [stdout_offset, stderr_offset] = cut.after.offsets;
                    saved = Some(SavedCursor { stdout_offset, stderr_offset, position: cut.position });
                }
            }
            if stored == cuts.len() {
                break;
            }
        }
        assert!(held.streams == written, "seed {seed}");
    }
}

#[test]
fn any_cursor_inside_a_record_is_a_beginning() {
    let mut random = fastrand::Rng::with_seed(1);
    let folder = tempfile::tempdir().unwrap();
    let written = write(folder.path(), &mut random);
    let mut compressor = compressor().unwrap();
    for _ in 0..300 {
        let offsets = [0, 1].map(|lane| random.u64(0..=written[lane].len() as u64));
        let mut held = Held { cursor: Cursor { next_seq: 9, offsets }, ..Held::default() };
        for (lane, offset) in offsets.into_iter().enumerate() {
            held.streams[lane] = written[lane][..usize::try_from(offset).unwrap()].to_vec();
        }
        let mut cutter = cutter(folder.path(), held.cursor, None);
        while let Some(cut) = cutter.next(&mut compressor).unwrap() {
            held.store(&cut);
        }
        assert!(held.streams == written);
    }
}

#[test]
fn a_saved_place_that_is_ahead_of_the_controller_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path()).unwrap();
    writer.append(Stream::Stdout, 1, 0, b"one").unwrap();
    let mut compressor = compressor().unwrap();
    let ahead = SavedCursor { stdout_offset: 3, stderr_offset: 0, position: 43 };
    let mut cutter = cutter(folder.path(), Cursor::default(), Some(ahead));
    assert_eq!(cutter.next(&mut compressor).unwrap().unwrap().chunk.data.as_ref(), b"one");
}

#[test]
fn lines_close_in_time_share_a_chunk_and_others_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path()).unwrap();
    writer.append(Stream::Stdout, 0, 0, b"a").unwrap();
    writer.append(Stream::Stdout, 50_000, 1, b"b").unwrap();
    writer.append(Stream::Stdout, 50_001, 2, b"c").unwrap();
    writer.append(Stream::Stderr, 50_001, 0, b"d").unwrap();
    writer.append(Stream::Stdout, 50_001, 3, b"e").unwrap();
    let mut cutter = cutter(folder.path(), Cursor::default(), None);
    let mut compressor = compressor().unwrap();
    let chunks: Vec<_> = std::iter::from_fn(|| cutter.next(&mut compressor).unwrap())
        .map(|cut| (cut.chunk.stream, cut.chunk.time, cut.chunk.data.to_vec()))
        .collect();
    let want: [(u32, i64, &[u8]); 4] =
        [(1, 0, b"ab"), (1, 50_001, b"c"), (2, 50_001, b"d"), (1, 50_001, b"e")];
    assert_eq!(chunks, want.map(|(stream, time, data)| (stream, time, data.to_vec())));
}

#[test]
fn what_the_file_lost_becomes_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path()).unwrap();
    writer.append(Stream::Stdout, 1, 0, b"one").unwrap();
    writer.append(Stream::Stdout, 2, 3, b"two").unwrap();
    let path = folder.path().join(FILE_NAME);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let mut cutter = cutter(folder.path(), Cursor::default(), None);
    let mut compressor = compressor().unwrap();
    let mut held = Held::default();
    held.store(&cutter.next(&mut compressor).unwrap().unwrap());
    assert!(cutter.next(&mut compressor).is_err());
    while let Some(cut) = cutter.missing([6, 5], 9) {
        held.store(&cut);
    }
    assert_eq!(held.cursor.offsets, [6, 5]);
    assert_eq!(held.streams[0].iter().filter(|byte| byte.is_none()).count(), 3);
}
