//! The messages between executor and link as they are written into frames.

use model::{
    id::{AgentId, ExecutionId, RunId},
    label::Facts,
    limits,
};

use super::frame::{Frame, FrameError, Kind};
use crate::messages::{AttemptKey, Inventory};

/// Bytes of a message that names an attempt, and of one that is a number.
const KEY_BYTES: usize = 128;
const NUMBER_BYTES: usize = 16;
/// Bytes of what the link says of itself.
const HELLO_BYTES: usize = 16 * 1024;
/// Bytes of what the link needs to begin: the configuration and a little more.
const SETUP_BYTES: usize = 256 * 1024;
/// Bytes of an inventory: some ten thousand attempts.
const INVENTORY_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of a report or a signed order beside what gRPC carries of them.
const REPORT_BYTES: usize = limits::GRPC_MESSAGE_BYTES;

/// What the link's process says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromLink {
    /// First of all, and once: it has given up its privileges, and what of that this host cannot do.
    Hello,
    Order,
    Cancel,
    Settled,
    /// What does the journal know?
    Ask,
}

impl Kind for FromLink {
    fn of(number: u8) -> Option<Self> {
        [Self::Hello, Self::Order, Self::Cancel, Self::Settled, Self::Ask]
            .into_iter()
            .find(|kind| kind.number() == number)
    }

    fn number(self) -> u8 {
        match self {
            Self::Hello => 1,
            Self::Order => 2,
            Self::Cancel => 3,
            Self::Settled => 4,
            Self::Ask => 5,
        }
    }

    fn limit(self) -> usize {
        match self {
            Self::Hello => HELLO_BYTES,
            Self::Order => limits::GRPC_MESSAGE_BYTES,
            Self::Cancel | Self::Settled => KEY_BYTES,
            Self::Ask => NUMBER_BYTES,
        }
    }
}

/// What the executor's process says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromExecutor {
    /// First of all, and once.
    Setup,
    /// The answer to an `Ask`.
    Inventory,
    Report,
    OutputGrew,
    Ended,
    /// The executor has ended, and this was its last word.
    Stop,
}

impl Kind for FromExecutor {
    fn of(number: u8) -> Option<Self> {
        [Self::Setup, Self::Inventory, Self::Report, Self::OutputGrew, Self::Ended, Self::Stop]
            .into_iter()
            .find(|kind| kind.number() == number)
    }

    fn number(self) -> u8 {
        match self {
            Self::Setup => 1,
            Self::Inventory => 2,
            Self::Report => 3,
            Self::OutputGrew => 4,
            Self::Ended => 5,
            Self::Stop => 6,
        }
    }

    fn limit(self) -> usize {
        match self {
            Self::Setup => SETUP_BYTES,
            Self::Inventory => INVENTORY_BYTES,
            Self::Report | Self::Ended => REPORT_BYTES,
            Self::OutputGrew => KEY_BYTES,
            Self::Stop => NUMBER_BYTES,
        }
    }
}

/// What a link's process needs to begin.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Setup {
    /// The agent's configuration, TOML.
    #[prost(string, tag = "1")]
    pub config: String,
    /// Process id of the executor.
    #[prost(uint32, tag = "2")]
    pub executor: u32,
    /// The user and group to become; none: it stays who it is.
    #[prost(message, optional, tag = "3")]
    pub user: Option<User>,
    /// Whose orders the executor believes.
    #[prost(bytes = "vec", tag = "4")]
    pub agent_id: Vec<u8>,
}

impl Setup {
    /// The agent that it is for; none when it names none.
    pub fn agent_id(&self) -> Option<AgentId> {
        AgentId::from_bytes(&self.agent_id).ok()
    }
}

/// A user of the host with its group.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct User {
    #[prost(uint32, tag = "1")]
    pub uid: u32,
    #[prost(uint32, tag = "2")]
    pub gid: u32,
}

/// What the link's process says of itself.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Hello {
    /// What was to confine it and this host cannot do.
    #[prost(string, repeated, tag = "1")]
    pub missing: Vec<String>,
}

/// An attempt.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Key {
    #[prost(bytes = "vec", tag = "1")]
    pub execution_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub run_id: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub attempt: u32,
}

impl From<AttemptKey> for Key {
    fn from(key: AttemptKey) -> Self {
        Self {
            execution_id: key.execution_id.to_bytes(),
            run_id: key.run_id.to_bytes(),
            attempt: key.attempt,
        }
    }
}

impl Key {
    /// The attempt, if it is one.
    pub fn get(&self) -> Option<AttemptKey> {
        Some(AttemptKey {
            execution_id: ExecutionId::from_bytes(&self.execution_id).ok()?,
            run_id: RunId::from_bytes(&self.run_id).ok()?,
            attempt: Some(self.attempt).filter(|attempt| *attempt > 0)?,
        })
    }
}

/// A question for the inventory.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Ask {
    /// Comes back with the answer.
    #[prost(uint64, tag = "1")]
    pub number: u64,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Held {
    #[prost(uint64, tag = "1")]
    pub number: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub journal_epoch: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub fence: u64,
    #[prost(message, repeated, tag = "4")]
    pub held: Vec<Key>,
    #[prost(btree_map = "string, string", tag = "5")]
    pub facts: Facts,
}

impl Held {
    pub fn new(number: u64, inventory: Inventory) -> Self {
        let Inventory { journal_epoch, fence, held, facts } = inventory;
        Self { number, journal_epoch, fence, held: held.into_iter().map(Key::from).collect(), facts }
    }

    /// What it tells; keys that are none are left out.
    pub fn inventory(self) -> Inventory {
        let held = self.held.iter().filter_map(Key::get).collect();
        Inventory { journal_epoch: self.journal_epoch, fence: self.fence, held, facts: self.facts }
    }
}

/// The end of an attempt.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ended {
    #[prost(message, optional, tag = "1")]
    pub key: Option<Key>,
    #[prost(message, optional, tag = "2")]
    pub report: Option<proto::Report>,
}

/// How the link's process is to end.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Stop {
    /// It tries for a while to deliver what there is.
    #[prost(bool, tag = "1")]
    pub deliver: bool,
}

/// What the executor's process has heard.
#[derive(Debug)]
pub enum Heard {
    Hello(Hello),
    Order(proto::Envelope),
    Cancel(AttemptKey),
    Settled(AttemptKey),
    Ask(u64),
}

/// Reads what the link's process said.
///
/// # Errors
/// When it makes no sense.
pub fn heard(frame: &Frame<FromLink>) -> Result<Heard, FrameError> {
    Ok(match frame.kind {
        FromLink::Hello => Heard::Hello(frame.message()?),
        FromLink::Order => Heard::Order(frame.message()?),
        FromLink::Cancel => Heard::Cancel(key(frame)?),
        FromLink::Settled => Heard::Settled(key(frame)?),
        FromLink::Ask => Heard::Ask(frame.message::<Ask>()?.number),
    })
}

/// The attempt that a message of this kind is.
///
/// # Errors
/// When it is none.
pub fn key<K: Kind>(frame: &Frame<K>) -> Result<AttemptKey, FrameError> {
    let key = frame.message::<Key>()?.get();
    key.ok_or_else(|| FrameError::Key { kind: format!("{:?}", frame.kind) })
}
