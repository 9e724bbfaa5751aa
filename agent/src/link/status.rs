//! What a running agent says about itself to `opsconductor-agent status`: one JSON document to whoever opens the socket
//! in the link's folder, which only the agent's own user can reach.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use model::id::AgentId;
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncWriteExt, net::UnixListener, sync::watch};

use super::{confine::Confinement, session::Standing, spool::SpoolState};

const SOCKET: &str = "status.sock";
/// Bytes of an answer.
const ANSWER_BYTES: u64 = 64 * 1024;

/// Where the figures come from.
#[derive(Debug, Clone)]
pub struct Source {
    pub agent_id: AgentId,
    pub session: watch::Receiver<Standing>,
    pub spool: watch::Receiver<SpoolState>,
    pub active: watch::Receiver<usize>,
    pub executor_pid: u32,
    pub confinement: Confinement,
}

/// How a running agent is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Live {
    pub agent_id: AgentId,
    /// The agent's process, and that of its link.
    pub pid: u32,
    pub link_pid: u32,
    /// How the link is confined.
    pub confinement: Confinement,
    /// Whether there is a session with a controller.
    pub online: bool,
    /// With which controller, or why there is none.
    pub session: String,
    /// Since when.
    pub since: Timestamp,
    /// Reports that the controller has not answered.
    pub unanswered_reports: usize,
    /// Attempts that are accepted and not over.
    pub active: usize,
}

impl Source {
    fn live(&self) -> Live {
        let standing = self.session.borrow().clone();
        Live {
            agent_id: self.agent_id,
            pid: self.executor_pid,
            link_pid: std::process::id(),
            confinement: self.confinement.clone(),
            online: standing.online,
            session: standing.text,
            since: standing.since,
            unanswered_reports: self.spool.borrow().unanswered,
            active: *self.active.borrow(),
        }
    }
}

/// Answers in `folder` for as long as the agent runs. Without a socket (its path may be too long for one) the agent
/// runs all the same.
pub(crate) async fn serve(folder: PathBuf, source: Source) {
    let listener = match listen(&folder.join(SOCKET)) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(path = %folder.join(SOCKET).display(), %error, "the status command will know little");
            None
        }
    };
    loop {
        let Some(listener) = &listener else { return std::future::pending().await };
        let Ok((mut stream, _)) = listener.accept().await else {
            // Out of file descriptors: that passes, and nobody is in a hurry.
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            continue;
        };
        let text = serde_json::to_vec(&source.live()).unwrap_or_default();
        // It fits into the socket's buffer; who does not read it has gone.
        drop(stream.write_all(&text).await);
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Asks the agent that runs on the link's folder; none when there is no such agent.
pub fn ask(folder: &Path) -> Option<Live> {
    let stream = std::os::unix::net::UnixStream::connect(folder.join(SOCKET)).ok()?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).ok()?;
    serde_json::from_reader(io::Read::take(stream, ANSWER_BYTES)).ok()
}
