//! All that the link and the executor say to each other.
//!
//! The link speaks to the network and decides nothing; the executor decides and runs, and believes only signed orders.
//! They are two processes, and share nothing but these messages, which [`crate::channel`] carries, and the output files
//! that the executor opens for the link.

use model::{
    id::{ExecutionId, RunId},
    label::Facts,
};
use tokio::sync::oneshot;

/// One try of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptKey {
    pub execution_id: ExecutionId,
    pub run_id: RunId,
    /// From 1.
    pub attempt: u32,
}

/// From the link to the executor.
#[derive(Debug)]
pub enum ToExecutor {
    /// A signed work order; the executor verifies it before it reads it.
    Order(proto::Envelope),
    /// End this attempt; if its order has not come yet, it must never start.
    Cancel(AttemptKey),
    /// The controller holds the final report and all output of this attempt: its folder and journal entry may go.
    Settled(AttemptKey),
    /// What does the journal know? Asked at the opening of each session, after which every unsettled attempt's
    /// newest report is sent again.
    Inventory(oneshot::Sender<Inventory>),
}

/// What the executor knows when a session opens.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// Sixteen bytes, new whenever the journal begins anew.
    pub journal_epoch: Vec<u8>,
    /// The highest fence that was obeyed.
    pub fence: u64,
    pub held: Vec<AttemptKey>,
    /// What the host can confine runs by.
    pub facts: Facts,
}

/// From the executor to the link.
#[derive(Debug)]
pub enum ToLink {
    /// To be kept in the spool until the controller has answered it. Its `seq` is given by the spool.
    Report(proto::Report),
    /// There is (more) output of this attempt; said at adoption too.
    OutputGrew(AttemptKey),
    /// The attempt is over: its segment files get no further record. `report` is its final one.
    Ended { key: AttemptKey, report: proto::Report },
}
