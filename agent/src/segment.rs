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
//!    where reading begins since. Positions stay what they are. That takes no room of its own.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use model::{api::output::Stream, limits};

pub use self::source::{Opened, Source};

mod source;

/// Name of the file in the attempt's folder.
pub const FILE_NAME: &str = "output";

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
        source::prepare(folder)?;
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
    source: Arc<dyn Source>,
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
    /// Reads the file in `folder` from the first record on. A file that is not there reads as one without records.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(folder: &Path) -> io::Result<Self> {
        Self::open_at(Arc::new(folder.to_owned()), 0)
    }

    /// Reads from a position that [`Reader::position`] gave, or from where the file still has something.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open_at(source: Arc<dyn Source>, position: u64) -> io::Result<Self> {
        let mut reader = Self { source, file: None, position, buffer: Vec::new(), used: 0 };
        reader.take_file()?;
        Ok(reader)
    }

    /// Opens the file, if it is there.
    fn take_file(&mut self) -> io::Result<()> {
        if let Some(opened) = self.source.open()? {
            self.position = self.position.max(opened.begins_at);
            self.file = Some(opened.file);
        }
        Ok(())
    }

    /// Where the next record begins in the file.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Lets go of the file and of what was read ahead. The next call opens it again, and reads on at `position`.
    pub fn rest_at(&mut self, position: u64) {
        self.file = None;
        self.position = position;
        self.buffer = Vec::new();
        self.used = 0;
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
        let Some(opened) = self.source.open()?.filter(|opened| opened.begins_at > self.position) else {
            return Err(error);
        };
        self.position = opened.begins_at;
        self.file = Some(opened.file);
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
            self.take_file()?;
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
                    "it is not an output file of this version",
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
        let position = self.position;
        io::Error::new(io::ErrorKind::InvalidData, format!("the record of output at byte {position} {what}"))
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
