//! Ctrl-C while an execution is started and followed: the first one cancels it, the second one leaves.
//!
//! It is a task of its own, so that a terminal or pager that does not take the output cannot hold the cancel up.

use std::time::Duration;

use model::id::ExecutionId;
use tokio::{signal::ctrl_c, sync::watch::Receiver, time::sleep};

use crate::{client::Client, clock, exit::Exit, output};

/// Pause between two tries to have the controller take the cancel.
const PAUSE: Duration = Duration::from_secs(1);

/// Said when nobody waits for the answer to a start any more.
pub(crate) const LEFT_STARTING: &str =
    "left; the command may have been started: look with: opsctl execution list";

/// Waits for Ctrl-C; returns only when there are no signals to wait for. `execution` is there once its start is
/// answered.
pub(crate) async fn watch(client: Client, mut execution: Receiver<Option<ExecutionId>>) {
    if ctrl_c().await.is_err() {
        return;
    }
    output::note("cancelling; Ctrl-C again leaves without waiting for it");
    let started = execution.clone();
    let cancelling = async {
        // A start that fails ends the whole invocation.
        if let Ok(Some(id)) = execution.wait_for(Option::is_some).await.map(|id| *id) {
            cancel(&client, id).await;
        }
    };
    tokio::select! {
        biased;
        left = ctrl_c() => if left.is_ok() { leave(&client, *started.borrow()) },
        () = cancelling => {}
    }
    if ctrl_c().await.is_ok() {
        leave(&client, *started.borrow());
    }
}

/// Asks until the controller has taken it or refuses.
async fn cancel(client: &Client, execution: ExecutionId) {
    loop {
        match client.cancel(execution).await {
            Ok(_) => return output::note("the cancel is taken; waiting until the hosts confirm it"),
            Err(error) if error.is_transient() => {
                output::note(&format!("cannot cancel yet: {error}"));
                sleep(clock::jittered(PAUSE)).await;
            }
            Err(error) => return output::note(&format!("cannot cancel: {error}")),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the follower may hang on a dead connection; nothing is left to wind down"
)]
fn leave(client: &Client, execution: Option<ExecutionId>) -> ! {
    match execution {
        Some(id) => output::note(&format!(
            "left; see how it ends with: opsctl --addr {} logs -f {id}",
            client.shown_addr()
        )),
        None => output::note(LEFT_STARTING),
    }
    std::process::exit(Exit::Interrupted as i32)
}
