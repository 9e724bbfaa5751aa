//! The files of the journal's database, and how they come to the disk.
//!
//! What sled calls flushed it has, on Linux, only handed to the disk (`sync_file_range`): where in the file system it is found,
//! how long the file is by now, and what the disk itself holds back, are not written with it. After a power failure it would be
//! gone, up to several seconds of it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// The file that grows with each write, and the folder of values that are too large for it.
const LOG: &str = "db";
const BLOBS: &str = "blobs";

#[derive(Debug)]
pub(super) struct Files {
    log: File,
    blobs: PathBuf,
}

impl Files {
    /// Of a database that is open: whatever it has made is on the disk, with its name.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                File::open(entry.path())?.sync_all()?;
            }
        }
        for named in [Some(folder), folder.parent()].into_iter().flatten() {
            File::open(named)?.sync_all()?;
        }
        Ok(Self { log: File::open(folder.join(LOG))?, blobs: folder.join(BLOBS) })
    }

    /// Blocks until all that was handed to the disk stays there, whatever happens to its power.
    pub(super) fn sync(&self) -> io::Result<()> {
        let mut has_blobs = false;
        for blob in fs::read_dir(&self.blobs)? {
            match File::open(blob?.path()) {
                Ok(blob) => blob.sync_all()?,
                // The database has no more use for it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            has_blobs = true;
        }
        if has_blobs {
            File::open(&self.blobs)?.sync_all()?;
        }
        self.log.sync_data()
    }
}
