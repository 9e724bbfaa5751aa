//! Gives the room of stored output back to the disk.

use std::{io, path::PathBuf, time::Duration};

use crate::{messages::AttemptKey, segment};

/// How long what went wrong is left alone: somebody may make room on a full disk meanwhile.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Lets go of all before `position`. Answers whether that went well; if not, it is time to try again.
pub(super) async fn let_go(key: AttemptKey, folder: PathBuf, position: u64) -> (AttemptKey, bool) {
    let done = tokio::task::spawn_blocking(move || segment::let_go(&folder, position)).await;
    let error = match done.map_err(io::Error::from).flatten() {
        Ok(()) => return (key, true),
        // The folder of a settled attempt is removed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (key, true),
        Err(error) => error,
    };
    tracing::warn!(run.id = %key.run_id, attempt = key.attempt, %error,
        "cannot let go of stored output; it is tried again");
    tokio::time::sleep(AGAIN_AFTER).await;
    (key, false)
}
