//! What the agent tells a new shim: one message on its standard input, so that no variable is ever in an argument
//! list or on a disk.
//!
//! The message is preceded by its version and its length. What arrives cut off, because the agent died, starts nothing.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
};

use model::id::RunId;
use prost::Message as _;
use zeroize::{Zeroize as _, Zeroizing};

const VERSION: u32 = 1;
/// More than the largest order with the largest environment.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// One attempt, as its shim is to run it.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct Spec {
    #[prost(bytes = "vec", tag = "1")]
    pub execution_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub run_id: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub attempt: u32,
    /// Its sealed environment plays no part here.
    #[prost(message, optional, tag = "4")]
    pub command: Option<proto::Command>,
    /// The opened environment.
    #[prost(map = "string, string", tag = "5")]
    pub environment: HashMap<String, String>,
    /// Milliseconds from the request to end to the kill.
    #[prost(uint64, tag = "6")]
    pub kill_grace_ms: u64,
    /// Milliseconds from the first kill until what is left counts as unkillable.
    #[prost(uint64, tag = "7")]
    pub kill_within_ms: u64,
    /// Bytes that the output of all of the host's attempts may take on its disk; 0: as many as it has.
    #[prost(uint64, tag = "8")]
    pub spool_bytes: u64,
    /// Milliseconds for which the process waits when there is no room for its output.
    #[prost(uint64, tag = "9")]
    pub block_for_ms: u64,
    /// The working folder has no symbolic links in it, or is not what was allowed.
    #[prost(bool, tag = "10")]
    pub cwd_is_resolved: bool,
    /// Folders of the agent's, which a run that sees the host's files does not see.
    #[prost(string, repeated, tag = "11")]
    pub hidden: Vec<String>,
    /// The first and the last number of the users that exist for one run only.
    #[prost(uint32, tag = "12")]
    pub first_uid: u32,
    #[prost(uint32, tag = "13")]
    pub last_uid: u32,
    /// The socket of the container engine; empty: where one usually is.
    #[prost(string, tag = "14")]
    pub engine: String,
    /// The agent's id, by which it knows its containers.
    #[prost(string, tag = "15")]
    pub agent: String,
}

impl std::fmt::Debug for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spec").field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

impl Drop for Spec {
    fn drop(&mut self) {
        for value in self.environment.values_mut() {
            value.zeroize();
        }
    }
}

impl Spec {
    /// The name of the attempt's folder and of its control group.
    pub fn attempt_name(&self) -> String {
        let run =
            RunId::from_bytes(&self.run_id).map_or_else(|_| "unknown".to_owned(), |run| run.to_string());
        format!("{run}-{}", self.attempt)
    }

    /// Writes the message with its version and length.
    ///
    /// # Errors
    /// When the other end is gone.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        to.write_all(&self.encode_framed())
    }

    /// The message with its version and length.
    pub fn encode_framed(&self) -> Zeroizing<Vec<u8>> {
        let length = self.encoded_len();
        let mut bytes = Zeroizing::new(Vec::with_capacity(length + 8));
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        self.encode(&mut *bytes).expect("a vector grows");
        bytes
    }

    /// Reads what [`Spec::write`] wrote.
    ///
    /// # Errors
    /// When it is cut off, of another version, or too long.
    pub fn read(mut from: impl Read) -> io::Result<Self> {
        let mut word = [0; 4];
        from.read_exact(&mut word)?;
        if u32::from_be_bytes(word) != VERSION {
            return Err(io::Error::other("the attempt's description is of another version"));
        }
        from.read_exact(&mut word)?;
        let length = usize::try_from(u32::from_be_bytes(word)).unwrap_or(usize::MAX);
        if length > BYTES_MAX {
            return Err(io::Error::other(format!(
                "the attempt's description is larger than {BYTES_MAX} bytes"
            )));
        }
        let mut bytes = Zeroizing::new(vec![0; length]);
        from.read_exact(&mut bytes)?;
        Self::decode(bytes.as_slice()).map_err(io::Error::other)
    }
}
