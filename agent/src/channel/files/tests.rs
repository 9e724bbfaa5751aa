use model::{
    api::output::Stream,
    id::{ExecutionId, RunId},
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use uuid::Uuid;

use super::*;
use crate::segment::{Body, Reader, Writer};

fn key(n: u128) -> AttemptKey {
    AttemptKey {
        execution_id: ExecutionId(Uuid::from_u128(1)),
        run_id: RunId(Uuid::from_u128(n)),
        attempt: 1,
    }
}

/// Attempts' folders below a folder, and the link's way to them.
fn world() -> (tempfile::TempDir, Arc<Files>, thread::JoinHandle<()>) {
    let folder = tempfile::tempdir().unwrap();
    let attempts = folder.path().to_owned();
    let (its, own) = UnixStream::pair().unwrap();
    let thread = serve(own, move |key| attempts.join(key.run_id.0.as_u128().to_string())).unwrap();
    (folder, Arc::new(Files::new(its).unwrap()), thread)
}

#[test]
fn files_are_opened_for_reading_and_only_that() {
    let (world, files, thread) = world();
    let folder = world.path().join("2");
    assert!(files.of(key(2)).open().unwrap().is_none(), "no folder");
    std::fs::create_dir(&folder).unwrap();
    assert!(files.of(key(2)).open().unwrap().is_none(), "no file");
    let mut writer = Writer::create(&folder).unwrap();
    writer.append(Stream::Stdout, 1, 0, b"one").unwrap();
    let opened = files.of(key(2)).open().unwrap().unwrap();
    let flags = fcntl(&opened.file, FcntlArg::F_GETFL).unwrap();
    assert_eq!(OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE, OFlag::O_RDONLY);
    assert!((&opened.file).write_all(b"forged").is_err());
    // While it grows, over the one descriptor.
    let mut reader = Reader::open_at(files.of(key(2)), 0).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().body, Body::Data(b"one".to_vec()));
    writer.append(Stream::Stdout, 2, 3, b"two").unwrap();
    assert_eq!(reader.next().unwrap().unwrap().body, Body::Data(b"two".to_vec()));

    // A folder is no file.
    std::fs::create_dir_all(world.path().join("3").join(crate::segment::FILE_NAME)).unwrap();
    let mut of_folder = Reader::open_at(files.of(key(3)), 0).unwrap();
    assert!(of_folder.next().is_err());
    // Each of them keeps the link's end of the socket.
    drop((reader, of_folder, files));
    thread.join().unwrap();
}

#[test]
fn what_is_let_go_is_let_go_once() {
    let (world, files, _thread) = world();
    let folder = world.path().join("2");
    std::fs::create_dir(&folder).unwrap();
    let mut writer = Writer::create(&folder).unwrap();
    for at in 0..10 {
        writer.append(Stream::Stdout, 1, at * 1000, &[7; 1000]).unwrap();
    }
    let source = files.of(key(2));
    let mut reader = Reader::open_at(Arc::clone(&source), 0).unwrap();
    for _ in 0..4 {
        reader.next().unwrap().unwrap();
    }
    source.let_go(reader.position()).unwrap();
    // Nonsense changes nothing.
    source.let_go(u64::MAX).unwrap();
    files.of(key(9)).let_go(77).unwrap();
    while source.open().unwrap().unwrap().begins_at == 0 {
        thread::yield_now();
    }
    assert_eq!(source.open().unwrap().unwrap().begins_at, reader.position());
    let mut rest = Reader::open_at(source, 0).unwrap();
    assert_eq!(std::iter::from_fn(|| rest.next().unwrap()).count(), 6);
}

#[test]
fn what_cannot_be_let_go_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path()).unwrap();
    for at in 0..10 {
        writer.append(Stream::Stdout, 1, at * 1000, &[7; 1000]).unwrap();
    }
    let source: Arc<dyn Source> = Arc::new(folder.path().to_owned());
    let mut reader = Reader::open_at(Arc::clone(&source), 0).unwrap();
    reader.next().unwrap().unwrap();
    // Where it notes how far it is stands something else.
    let other = folder.path().join("output.from.new");
    std::fs::remove_file(&other).unwrap();
    std::fs::create_dir(&other).unwrap();
    let (notes, noted) = mpsc::sync_channel(1);
    let thread = thread::spawn(move || let_go_all(&noted, Duration::from_millis(1)));
    notes.send((folder.path().to_owned(), reader.position())).unwrap();
    // The second place is free when the first is being dealt with.
    notes.send((folder.path().join("gone"), 1)).unwrap();
    notes.send((folder.path().join("gone"), 1)).unwrap();
    assert_eq!(source.open().unwrap().unwrap().begins_at, 0);
    std::fs::remove_dir(&other).unwrap();
    while source.open().unwrap().unwrap().begins_at == 0 {
        thread::yield_now();
    }
    drop(notes);
    thread.join().unwrap();
}

#[test]
fn nonsense_ends_the_conversation() {
    for nonsense in
        [&b"GET / HTTP/1.0\r\n\r\n"[..], &[1, 1, 0, 0, 0, 0, 0, 0], &[1, 1, 0, 0, 255, 255, 255, 255]]
    {
        let (its, own) = UnixStream::pair().unwrap();
        let thread = serve(own, |_| unreachable!("nobody asked for a file")).unwrap();
        (&its).write_all(nonsense).unwrap();
        thread.join().unwrap();
        let files = Files::new(its).unwrap();
        assert!(Arc::new(files).of(key(1)).open().is_err());
    }
}
