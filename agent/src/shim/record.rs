//! The exit record of an attempt: the file `exit`, whose presence says that the attempt is over.
//!
//! Its place on the disk is taken before anything is started, so that a full disk cannot swallow a result.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
};

const FILE_NAME: &str = "exit";
const NEW_FILE_NAME: &str = "exit.new";
const SPARE_FILE_NAME: &str = "spare";
const RESERVED_BYTES: i64 = 8 * 1024;
/// Bytes of the detail in a record, so that the record fits into its place.
pub const DETAIL_BYTES: usize = 4 * 1024;

/// A place for the record.
#[derive(Debug)]
pub struct Place {
    folder: PathBuf,
    file: File,
}

impl Place {
    /// Takes the place, with room for so many bytes of outputs.
    ///
    /// # Errors
    /// When the disk has none, or the folder cannot be written.
    pub fn reserve(folder: &Path, outputs: usize) -> io::Result<Self> {
        let bytes = RESERVED_BYTES + i64::try_from(outputs).unwrap_or(0);
        let file = reserve(&folder.join(NEW_FILE_NAME), bytes)?;
        Ok(Self { folder: folder.to_owned(), file })
    }

    /// Writes the record; it survives a loss of power when this returns.
    ///
    /// # Errors
    /// When the disk fails; there is no record then.
    pub fn write(self, record: &[u8]) -> io::Result<()> {
        self.file.write_all_at(record, 0)?;
        self.file.set_len(record.len() as u64)?;
        self.file.sync_all()?;
        fault::point("shim.record.written");
        std::fs::rename(self.folder.join(NEW_FILE_NAME), self.folder.join(FILE_NAME))?;
        fault::point("shim.record.renamed");
        File::open(&self.folder)?.sync_all()
    }
}

/// Room on the disk that is kept free for the last, small pieces of the segment.
#[derive(Debug)]
pub(super) struct Spare {
    path: PathBuf,
}

impl Spare {
    /// Takes the room.
    ///
    /// # Errors
    /// When the disk has none, or the folder cannot be written.
    pub(super) fn reserve(folder: &Path) -> io::Result<Self> {
        let path = folder.join(SPARE_FILE_NAME);
        reserve(&path, RESERVED_BYTES)?;
        Ok(Self { path })
    }

    /// Gives the room back, to be used at once.
    pub(super) fn release(&self) {
        // Room that stays taken is missed by nobody but a full disk.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Makes a file that has its place on the disk already.
fn reserve(path: &Path, bytes: i64) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        // Not every file system can; what is to come is then written as to any other file.
        Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(file),
        Err(error) => Err(error.into()),
    }
}

/// The bytes of the record, if the attempt in this folder is over.
///
/// # Errors
/// When the file cannot be read.
pub fn read(folder: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(folder.join(FILE_NAME)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Shortens a text to what fits into a record.
pub fn detail(mut text: String) -> String {
    if text.len() > DETAIL_BYTES {
        text.truncate(text.floor_char_boundary(DETAIL_BYTES));
    }
    text
}
