//! Frames: how messages lie in the stream of a socket.
//!
//! 1. A frame is a head of eight bytes, then its body. The head: version, kind, two zero bytes, length (little-endian).
//! 2. Every kind has a limit of its own. Room for a body is made after its length was held against that, and not before.
//! 3. After an error nothing more is read: nobody looks for the next frame behind a wrong one.

use std::io::{self, Read};

use prost::Message;

/// Of the messages that the two processes understand. Both come from one binary; it changes with the messages.
pub const VERSION: u8 = 1;
/// Bytes of a head.
pub const HEAD_BYTES: usize = 8;

/// The kinds of messages of one direction of one socket.
pub trait Kind: Copy + std::fmt::Debug {
    /// The kind of this number, if there is one.
    fn of(number: u8) -> Option<Self>;
    fn number(self) -> u8;
    /// The longest body, in bytes.
    fn limit(self) -> usize;
}

/// A message as it lies in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<K> {
    pub kind: K,
    pub body: Vec<u8>,
}

/// What is wrong with what was read, or is to be written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a message is of version {0}, not {VERSION}")]
    Version(u8),
    #[error("a message is of the unknown kind {0}")]
    Kind(u8),
    #[error("the head of a message is wrong")]
    Head,
    #[error("a message of kind {kind} has {length} bytes, over its limit of {limit}")]
    TooLong { kind: String, length: usize, limit: usize },
    #[error("a message of kind {kind} cannot be understood")]
    Content { kind: String, source: prost::DecodeError },
    #[error("a message of kind {kind} names no attempt")]
    Key { kind: String },
    #[error("the stream ends within a message")]
    CutOff,
    #[error("the socket failed")]
    Io(#[from] io::Error),
}

/// Writes a message as a frame.
///
/// # Errors
/// When it is longer than its kind may be.
pub fn encode<K: Kind>(kind: K, message: &impl Message) -> Result<Vec<u8>, FrameError> {
    let length = message.encoded_len();
    let fits = u32::try_from(length).ok().filter(|_| length <= kind.limit());
    let Some(written) = fits else { return Err(too_long(kind, length)) };
    let mut bytes = Vec::with_capacity(HEAD_BYTES + length);
    bytes.extend_from_slice(&[VERSION, kind.number(), 0, 0]);
    bytes.extend_from_slice(&written.to_le_bytes());
    message.encode(&mut bytes).expect("a vector grows");
    Ok(bytes)
}

fn too_long<K: Kind>(kind: K, length: usize) -> FrameError {
    FrameError::TooLong { kind: format!("{kind:?}"), length, limit: kind.limit() }
}

impl<K: Kind> Frame<K> {
    /// The message in the body.
    ///
    /// # Errors
    /// When there is none of this type.
    pub fn message<M: Message + Default>(&self) -> Result<M, FrameError> {
        M::decode(self.body.as_slice())
            .map_err(|source| FrameError::Content { kind: format!("{:?}", self.kind), source })
    }
}

/// Puts frames together from what a stream gives, in pieces of any size.
#[derive(Debug)]
pub struct Parser<K> {
    head: [u8; HEAD_BYTES],
    /// The frame whose head is whole.
    frame: Option<Frame<K>>,
    /// How much of the head, or with a frame of its body, is there.
    filled: usize,
}

impl<K: Kind> Default for Parser<K> {
    fn default() -> Self {
        Self { head: [0; HEAD_BYTES], frame: None, filled: 0 }
    }
}

impl<K: Kind> Parser<K> {
    /// Where the next bytes of the stream belong. Never empty, and never longer than what is left of the frame.
    pub fn room(&mut self) -> &mut [u8] {
        match &mut self.frame {
            None => &mut self.head[self.filled..],
            Some(frame) => &mut frame.body[self.filled..],
        }
    }

    /// So many bytes of [`Self::room`] were read. Gives the frame that is whole now.
    ///
    /// # Errors
    /// When the head is wrong.
    pub fn filled(&mut self, bytes: usize) -> Result<Option<Frame<K>>, FrameError> {
        self.filled += bytes;
        if self.frame.is_none() && self.filled == HEAD_BYTES {
            let (kind, length) = head(self.head)?;
            self.frame = Some(Frame { kind, body: vec![0; length] });
            self.filled = 0;
        }
        Ok(self.frame.take_if(|frame| frame.body.len() == self.filled).inspect(|_| self.filled = 0))
    }

    /// Whether the stream may end here.
    pub fn is_between(&self) -> bool {
        self.frame.is_none() && self.filled == 0
    }

    /// Bytes that it has taken for the frame at hand.
    pub fn reserved(&self) -> usize {
        self.frame.as_ref().map_or(0, |frame| frame.body.capacity())
    }

    /// Reads the next frame from a stream that blocks; none at its end.
    ///
    /// # Errors
    /// When the stream fails, ends within a frame, or holds something else.
    pub fn read(&mut self, stream: &mut impl Read) -> Result<Option<Frame<K>>, FrameError> {
        loop {
            match stream.read(self.room()) {
                Ok(0) if self.is_between() => return Ok(None),
                Ok(0) => return Err(FrameError::CutOff),
                Ok(bytes) => {
                    if let Some(frame) = self.filled(bytes)? {
                        return Ok(Some(frame));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn head<K: Kind>(head: [u8; HEAD_BYTES]) -> Result<(K, usize), FrameError> {
    let [version, number, zeros @ .., a, b, c, d] = head;
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let kind = K::of(number).ok_or(FrameError::Kind(number))?;
    if zeros != [0, 0] {
        return Err(FrameError::Head);
    }
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).map_err(|_| FrameError::Head)?;
    if length > kind.limit() { Err(too_long(kind, length)) } else { Ok((kind, length)) }
}

#[cfg(test)]
mod tests;
