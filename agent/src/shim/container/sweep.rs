//! Containers that nobody looks after any more: made by an engine for a shim that was gone before the engine had answered.
//!
//! They are found by their labels, which say the agent and the attempt. Who else has containers at this engine, another agent
//! too, is not touched.

use super::{
    engine::Engine,
    note::{self, AGENT_LABEL, ATTEMPT_LABEL},
};

/// Removes the containers of this agent, at the engine behind `socket` (empty: where one usually is), whose attempts are over.
/// Says which were removed.
///
/// # Errors
/// When the engine does not answer, or keeps one.
pub async fn sweep(socket: &str, agent: &str, is_over: impl Fn(&str) -> bool) -> Result<Vec<String>, String> {
    let engine = Engine::find(socket).await?;
    let mut removed = Vec::new();
    for found in engine.labelled(AGENT_LABEL, agent).await? {
        let Some(attempt) = found.labels.as_ref().and_then(|labels| labels.get(ATTEMPT_LABEL)) else {
            continue;
        };
        let Some(id) = found.id.as_deref().filter(|_| is_over(attempt)) else { continue };
        note::remove_own(&engine, id, attempt)
            .await
            .map_err(|why| format!("the container of {attempt}: {why}"))?;
        removed.push(attempt.clone());
    }
    Ok(removed)
}
