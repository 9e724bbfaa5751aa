//! What carries the messages between the two processes of an agent.
//!
//! The executor's process starts the link's with two connected sockets: as its standard input the one for
//! [`crate::messages`], as its standard output the one over which it asks for output files ([`files`]). Whoever took over
//! the link speaks here, so what comes from it is read as from an enemy:
//!
//! 1. Every message has a kind and a limit of that kind ([`frame`]); room is made only for what is within it.
//! 2. A kind, version, length or content that does not belong here ends that link process, nothing else.
//! 3. The kernel says with every piece who wrote it ([`credentials`]): another process or user is not listened to, and
//!    neither is the link before it has given up its privileges.
//! 4. The executor takes no descriptors. It gives out those of output files, open for reading only.

pub mod credentials;
pub mod files;
pub mod frame;
pub mod wire;

/// Messages that wait.
pub const MESSAGES: usize = 256;
/// Messages of the link that wait in the executor: each may be an order as large as there are.
pub const ASKED: usize = 16;
