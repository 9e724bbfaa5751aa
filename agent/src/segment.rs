//! The output of one attempt: an append-only file that the shim writes while the link reads it.
//!
//! 1. A file is an eight-byte header, then records. A record is a 32-byte head (all numbers little-endian: check,
//!    stream, kind, two zero bytes, time in µs, offset in the stream, length) and, for data, its bytes.
//! 2. A data record holds what one `read(2)` of a pipe gave, at most [`limits::CHUNK_BYTES`]. Both streams are in the
//!    one file, in the order in which they were read. A gap record has a length and no bytes.
//! 3. The check is a CRC-32 over all of the record behind it. An incomplete record at the end is not there yet; a
//!    complete one with a wrong check is an error.
//! 4. Complete records never change. An incomplete one may be cut off again (its disk was full).
//! 5. What the controller has stored is let go: its room goes back to the disk, and the file beside it, `output.from`, says
//!    where reading begins since. Positions stay what they are.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use model::{api::output::Stream, limits};
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
};

/// Name of the file in the attempt's folder.
pub const FILE_NAME: &str = "output";

/// Says where reading begins: a position, little-endian.
const FROM_FILE_NAME: &str = "output.from";
const NEW_FROM_FILE_NAME: &str = "output.from.new";
/// Bytes of a unit of [`std::os::unix::fs::MetadataExt::blocks`].
const BLOCK_BYTES: u64 = 512;
const FILE_HEADER: [u8; 8] = *b"OPSCSEG\x01";
const HEAD_BYTES: usize = 32;
const KIND_DATA: u8 = 0;
const KIND_GAP: u8 = 1;
/// How much the reader takes from the file at once: at least one whole record.
const READ_BYTES: usize = 2 * (HEAD_BYTES + limits::CHUNK_BYTES);

/// One piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub stream: Stream,
    /// When its first byte was read, in microseconds since 1970 UTC.
    pub time: i64,
    /// Of its first byte, in its stream.
    pub offset: u64,
    pub body: Body,
}

/// What a record holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Data(Vec<u8>),
    /// So many bytes were written by the process and are not kept.
    Gap(u64),
}

/// Appends records; there is one writer of a file, ever.
#[derive(Debug)]
pub struct Writer {
    file: File,
    /// Where the last complete record ends.
    end: u64,
    buffer: Vec<u8>,
}

impl Writer {
    /// Makes the file.
    ///
    /// # Errors
    /// When it is there already, or cannot be made.
    pub fn create(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE_NAME);
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&FILE_HEADER)?;
        Ok(Self { file, end: FILE_HEADER.len() as u64, buffer: Vec::new() })
    }

    /// Appends bytes of a stream, at most [`limits::CHUNK_BYTES`].
    ///
    /// # Errors
    /// Nothing of the record is in the file then; the same call may be made again.
    pub fn append(&mut self, stream: Stream, time: i64, offset: u64, data: &[u8]) -> io::Result<()> {
        debug_assert!(data.len() <= limits::CHUNK_BYTES, "a record holds one chunk");
        self.write(stream, KIND_DATA, time, offset, data.len() as u64, data)
    }

    /// Appends a hole of `length` bytes.
    ///
    /// # Errors
    /// As for [`Writer::append`].
    pub fn append_gap(&mut self, stream: Stream, time: i64, offset: u64, length: u64) -> io::Result<()> {
        self.write(stream, KIND_GAP, time, offset, length, &[])
    }

    /// Waits until all that was appended is on the disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(
        &mut self,
        stream: Stream,
        kind: u8,
        time: i64,
        offset: u64,
        length: u64,
        data: &[u8],
    ) -> io::Result<()> {
        let stream = if stream == Stream::Stdout { 1 } else { 2 };
        self.buffer.clear();
        self.buffer.extend_from_slice(&[0, 0, 0, 0, stream, kind, 0, 0]);
        self.buffer.extend_from_slice(&time.to_le_bytes());
        self.buffer.extend_from_slice(&offset.to_le_bytes());
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(data);
        let check = crc32fast::hash(&self.buffer[4..]);
        self.buffer[..4].copy_from_slice(&check.to_le_bytes());
        match self.file.write_all(&self.buffer) {
            Ok(()) => {
                self.end += self.buffer.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.file.set_len(self.end)?;
                Err(error)
            }
        }
    }
}

/// Reads records, also while the file grows.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    /// None until the file is there.
    file: Option<File>,
    /// Where the next record begins.
    position: u64,
    /// Bytes of the file from `position` on, as far as they have been taken from it.
    buffer: Vec<u8>,
    /// How many bytes at the beginning of `buffer` are used up.
    used: usize,
}

impl Reader {
    /// Reads from the first record on. A file that is not there reads as one without records.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(folder: &Path) -> io::Result<Self> {
        Self::open_at(folder, 0)
    }

    /// Reads from a position that [`Reader::position`] gave, or from where the file still has something.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open_at(folder: &Path, position: u64) -> io::Result<Self> {
        let path = folder.join(FILE_NAME);
        let file = open_if_there(&path)?;
        let position = position.max(begins_at(folder)?);
        Ok(Self { path, file, position, buffer: Vec::new(), used: 0 })
    }

    /// Where the next record begins in the file.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Lets go of the file and of what was read ahead. The next call opens it again, and reads on at `position`.
    pub fn rest_at(&mut self, position: u64) {
        *self =
            Self { path: std::mem::take(&mut self.path), file: None, position, buffer: Vec::new(), used: 0 };
    }

    /// The next record; none when there is no complete one yet. Then the call may be made again later.
    ///
    /// # Errors
    /// When the file cannot be read, or the record is damaged.
    #[expect(clippy::should_implement_trait, reason = "an end that may go away is no iterator's end")]
    pub fn next(&mut self) -> io::Result<Option<Record>> {
        match self.take() {
            Ok(Some(record)) => return Ok(Some(record)),
            // What was incomplete may have been cut off and written anew: it is read again.
            Ok(None) => self.fill()?,
            Err(error) => self.skip_let_go(error)?,
        }
        match self.take() {
            Err(error) => {
                self.skip_let_go(error)?;
                self.take()
            }
            taken => taken,
        }
    }

    /// What was let go since this reader looked reads as zeros, which match no check: reading goes on behind it. Any other
    /// damage is the error that it was.
    fn skip_let_go(&mut self, error: io::Error) -> io::Result<()> {
        let folder = self.path.parent().expect("the file is in an attempt's folder");
        let begin = begins_at(folder)?;
        if begin <= self.position {
            return Err(error);
        }
        self.position = begin;
        self.fill()
    }

    /// Takes a record out of the buffer, if it holds a whole one.
    fn take(&mut self) -> io::Result<Option<Record>> {
        let bytes = &self.buffer[self.used..];
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let length = number(24);
        let data = match head[5] {
            KIND_GAP => &rest[..0],
            KIND_DATA => {
                let length = usize::try_from(length).ok().filter(|l| *l <= limits::CHUNK_BYTES);
                let length = length.ok_or_else(|| self.damaged("has an impossible length"))?;
                match rest.get(..length) {
                    Some(data) => data,
                    None => return Ok(None),
                }
            }
            _ => return Err(self.damaged("is of an unknown kind")),
        };
        let mut check = crc32fast::Hasher::new();
        check.update(&head[4..]);
        check.update(data);
        if check.finalize().to_le_bytes() != head[..4] {
            return Err(self.damaged("does not match its check"));
        }
        let stream =
            Stream::from_number(head[4].into()).ok_or_else(|| self.damaged("has an unknown stream"))?;
        let time = i64::from_le_bytes(number(8).to_le_bytes());
        let offset = number(16);
        let body = if head[5] == KIND_GAP { Body::Gap(length) } else { Body::Data(data.to_vec()) };
        let taken = HEAD_BYTES + data.len();
        self.used += taken;
        self.position += taken as u64;
        Ok(Some(Record { stream, time, offset, body }))
    }

    /// Reads the file from `position` on.
    fn fill(&mut self) -> io::Result<()> {
        self.buffer.clear();
        self.used = 0;
        if self.file.is_none() {
            self.file = open_if_there(&self.path)?;
        }
        let Some(file) = &self.file else { return Ok(()) };
        if self.position < FILE_HEADER.len() as u64 {
            let mut header = [0; FILE_HEADER.len()];
            if read_at(file, &mut header, 0)? < header.len() {
                return Ok(());
            }
            if header != FILE_HEADER {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("'{}' is not an output file of this version", self.path.display()),
                ));
            }
            self.position = FILE_HEADER.len() as u64;
        }
        self.buffer.resize(READ_BYTES, 0);
        let filled = read_at(file, &mut self.buffer, self.position)?;
        self.buffer.truncate(filled);
        Ok(())
    }

    fn damaged(&self, what: &str) -> io::Error {
        let (path, position) = (self.path.display(), self.position);
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the record at byte {position} of '{path}' {what}"),
        )
    }
}

/// Gives the room of all before `position`, where a record begins, back to the disk. A file system that cannot do that
/// keeps it until the file is removed.
///
/// # Errors
/// When the folder cannot be written.
pub fn let_go(folder: &Path, position: u64) -> io::Result<()> {
    let begin = FILE_HEADER.len() as u64;
    let known = begins_at(folder)?;
    if position > known.max(begin) {
        begin_at(folder, position)?;
    }
    // Once more too when that is known already: the room may not have been given back then.
    let position = position.max(known);
    let Some(length) = position.checked_sub(begin).filter(|length| *length > 0) else { return Ok(()) };
    let file = OpenOptions::new().write(true).open(folder.join(FILE_NAME))?;
    let (Ok(begin), Ok(length)) = (i64::try_from(begin), i64::try_from(length)) else { return Ok(()) };
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match fallocate(&file, hole, begin, length) {
        Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Remembers that reading begins at `position`.
fn begin_at(folder: &Path, position: u64) -> io::Result<()> {
    // On the disk before the room is given back: zeros that nobody knows of would read as damage.
    let new = folder.join(NEW_FROM_FILE_NAME);
    let mut from = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    from.write_all(&position.to_le_bytes())?;
    from.sync_data()?;
    std::fs::rename(&new, folder.join(FROM_FILE_NAME))?;
    File::open(folder)?.sync_all()
}

/// Where the first record is that was not let go; 0 when none was.
fn begins_at(folder: &Path) -> io::Result<u64> {
    match std::fs::read(folder.join(FROM_FILE_NAME)) {
        // One that was cut short says nothing: the file is read from its beginning.
        Ok(bytes) => Ok(bytes.try_into().map_or(0, u64::from_le_bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Bytes that the output of all attempts takes on the disk, whose folders are in `attempts`.
///
/// # Errors
/// When the folder cannot be read.
pub fn bytes_on_disk(attempts: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(attempts)? {
        // A folder that goes away meanwhile takes nothing.
        if let Ok(file) = std::fs::metadata(entry?.path().join(FILE_NAME)) {
            // Some file systems take room ahead, which is nobody's output.
            bytes += file.len().min(file.blocks() * BLOCK_BYTES);
        }
    }
    Ok(bytes)
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Fills `buffer` from `position` on; less only at the end of the file.
fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;
