//! A file to which lines are appended. It is opened for every batch, so that it may be moved away at any time.

use std::{
    fs::OpenOptions,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Appends whole lines, durably; all of them or none.
pub(super) fn append(path: &Path, lines: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    let mut bytes = Vec::with_capacity(lines.len() + 1);
    // Half a line of a process that was killed is ended; its entry comes again, whole.
    if length > 0 {
        let mut last = [0];
        file.seek(SeekFrom::Start(length - 1))?;
        file.read_exact(&mut last)?;
        bytes.extend((last != *b"\n").then_some(b'\n'));
    }
    bytes.extend_from_slice(lines);
    file.write_all(&bytes).and_then(|()| file.sync_data()).inspect_err(|_| {
        // On a full disk half a batch is none.
        let _ = file.set_len(length);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_half_ones_ended() {
        let folder = tempfile::tempdir().expect("there is room");
        let path = folder.path().join("audit.log");
        append(&path, b"a\nb\n").expect("it can be written");
        std::fs::write(&path, "a\nb\nhal").expect("it can be written");
        append(&path, b"half\n").expect("it can be written");
        std::fs::rename(&path, folder.path().join("audit.log.1")).expect("it may be moved away");
        append(&path, b"c\n").expect("it can be written");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("it is there");
        assert_eq!((read("audit.log.1").as_str(), read("audit.log").as_str()), ("a\nb\nhal\nhalf\n", "c\n"));
        append(Path::new("/dev/full"), b"x\n").expect_err("it is full");
    }
}
