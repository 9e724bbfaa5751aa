//! Containers that nobody looks after any more: made by an engine for a shim that was gone before the engine had answered.
//!
//! They are found by their labels, which say the agent and the attempt, and their names. Who else has containers at this engine, another agent
//! too, is not touched.

use super::{
    engine::{Engine, NAME_PREFIX},
    note::{self, AGENT_LABEL, ATTEMPT_LABEL},
};

/// What came of one sweep.
#[derive(Debug, Default)]
pub struct Swept {
    /// The attempts whose containers were removed.
    pub removed: Vec<String>,
    /// What could not be removed, and why.
    pub kept: Vec<String>,
}

/// Removes the containers of this agent, at the engine behind `socket` (empty: where one usually is), whose attempts are over.
///
/// # Errors
/// When the engine does not answer.
pub async fn sweep(socket: &str, agent: &str, is_over: impl Fn(&str) -> bool) -> Result<Swept, String> {
    let engine = Engine::find(socket).await?;
    let mut swept = Swept::default();
    for found in engine.labelled(AGENT_LABEL, agent).await? {
        let Some(attempt) = found.labels.as_ref().and_then(|labels| labels.get(ATTEMPT_LABEL)) else {
            continue;
        };
        // Who makes an image of a container gives its labels to all that are made of that.
        let name = format!("/{NAME_PREFIX}{attempt}");
        let is_named = found.names.iter().flatten().any(|one| *one == name);
        let Some(id) = found.id.as_deref().filter(|_| is_named && is_over(attempt)) else { continue };
        match note::remove_own(&engine, id, attempt).await {
            Ok(()) => swept.removed.push(attempt.clone()),
            Err(why) => swept.kept.push(format!("{attempt}: {why}")),
        }
    }
    Ok(swept)
}
