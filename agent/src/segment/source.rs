//! Where a reader has the file of an attempt from: the attempt's folder, or somebody who may enter that.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{FILE_HEADER, FILE_NAME};

/// Says where reading begins: a position, little-endian.
const FROM_FILE_NAME: &str = "output.from";
/// The other one, which is written and then takes the first one's place. Both are there from the beginning: a disk that is
/// full gets no room back from who needs room for that.
const OTHER_FROM_FILE_NAME: &str = "output.from.new";

/// The output file of one attempt, for who reads it.
pub trait Source: fmt::Debug + Send + Sync {
    /// Opens the file; none when it is not there.
    ///
    /// # Errors
    /// When it is there and cannot be opened.
    fn open(&self) -> io::Result<Option<Opened>>;

    /// Gives the room of all before `position`, where a record begins, back to the disk. A file system that cannot do
    /// that keeps it until the file is removed.
    ///
    /// # Errors
    /// When the folder cannot be written.
    fn let_go(&self, position: u64) -> io::Result<()>;
}

/// An open file, only to be read.
#[derive(Debug)]
pub struct Opened {
    pub file: File,
    /// Where the first record is that was not let go; 0 when none was.
    pub begins_at: u64,
}

/// The attempt's own folder.
impl Source for PathBuf {
    fn open(&self) -> io::Result<Option<Opened>> {
        match File::open(self.join(FILE_NAME)) {
            Ok(file) => Ok(Some(Opened { file, begins_at: begins_at(self)? })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn let_go(&self, position: u64) -> io::Result<()> {
        let begin = FILE_HEADER.len() as u64;
        let known = begins_at(self)?;
        let file = OpenOptions::new().write(true).open(self.join(FILE_NAME))?;
        if position > file.metadata()?.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the position is behind the file's end"));
        }
        if position > known.max(begin) {
            begin_at(self, position)?;
        }
        // Once more too when that is known already: the room may not have been given back then.
        let position = position.max(known);
        let Some(length) = position.checked_sub(begin).filter(|length| *length > 0) else { return Ok(()) };
        let (begin, length) = (i64::try_from(begin), i64::try_from(length));
        let (Ok(begin), Ok(length)) = (begin, length) else { return Ok(()) };
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(&file, hole, begin, length) {
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Makes what [`begin_at`] needs.
pub(super) fn prepare(folder: &Path) -> io::Result<()> {
    [FROM_FILE_NAME, OTHER_FROM_FILE_NAME]
        .iter()
        .try_for_each(|name| open(&folder.join(name))?.write_all_at(&0_u64.to_le_bytes(), 0))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Remembers that reading begins at `position`.
pub(super) fn begin_at(folder: &Path, position: u64) -> io::Result<()> {
    // On the disk before the room is given back: zeros that nobody knows of would read as damage.
    let (from, other) = (folder.join(FROM_FILE_NAME), folder.join(OTHER_FROM_FILE_NAME));
    let file = open(&other)?;
    file.write_all_at(&position.to_le_bytes(), 0)?;
    file.sync_data()?;
    // A file system that cannot exchange, or only one file there: it is made anew the next time.
    if renameat_with(CWD, &other, CWD, &from, RenameFlags::EXCHANGE).is_err() {
        std::fs::rename(&other, &from)?;
    }
    File::open(folder)?.sync_all()
}

fn begins_at(folder: &Path) -> io::Result<u64> {
    match std::fs::read(folder.join(FROM_FILE_NAME)) {
        // One that was cut short says nothing: the file is read from its beginning.
        Ok(bytes) => Ok(bytes.try_into().map_or(0, u64::from_le_bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}
