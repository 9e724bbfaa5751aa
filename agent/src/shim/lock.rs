//! Who owns an attempt: whoever holds the lock on the file `lock` in its folder.
//!
//! The shim takes it before it does anything and holds it until it is gone; the kernel lets go of it however a shim
//! dies. An agent that gets the lock therefore knows that no shim is left, and by marking the folder as given up it
//! makes sure that a shim which was still on its way starts nothing. The file is made by the agent before it starts the shim,
//! which makes none itself: in a folder that is just being removed, mark and all, it finds no lock to take.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

const FILE_NAME: &str = "lock";
const GIVEN_UP_NAME: &str = "given-up";

/// The lock, held until this is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the file, in a folder that is new.
    ///
    /// # Errors
    /// When it is there already, or the folder cannot be used.
    pub fn make(folder: &Path) -> io::Result<()> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(FILE_NAME)).map(drop)
    }

    /// Takes the lock, for a shim; none when somebody else has it.
    ///
    /// # Errors
    /// When the file is not there, or the folder cannot be used.
    pub fn take_made(folder: &Path) -> io::Result<Option<Self>> {
        Self::try_file(OpenOptions::new().write(true).open(folder.join(FILE_NAME))?)
    }

    /// Takes the lock, for an agent that looks after an attempt; none when somebody else has it.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn take(folder: &Path) -> io::Result<Option<Self>> {
        let path = folder.join(FILE_NAME);
        Self::try_file(OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?)
    }

    fn try_file(file: File) -> io::Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Marks the attempt as one that must not be started any more.
    ///
    /// # Errors
    /// When the mark cannot be written.
    pub fn give_up(&self, folder: &Path) -> io::Result<()> {
        File::create(folder.join(GIVEN_UP_NAME)).map(drop)
    }
}

/// Has the attempt been given up?
pub fn is_given_up(folder: &Path) -> bool {
    folder.join(GIVEN_UP_NAME).exists()
}
