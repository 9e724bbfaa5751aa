//! What an agent is answered that remembers an older checkpoint than the one before the newest: what the chain has at that
//! number now. So a history that was written anew while the agent was away contradicts it, however many checkpoints it
//! missed.

use model::api::audit::SignedCheckpoint;
use pki::audit::{Checkpoint, LINK, Place};
use proto::{ControllerFrame, Envelope, controller_frame::Frame};

use crate::{
    app::{App, sessions::Connected},
    clock,
    error::{During, Result},
    store::audit_chain,
};

/// Sends the newest checkpoint, and the link from the entry `seq` to it. Where the chain does not have that entry there is
/// nothing to send, and the agent tells so.
///
/// # Errors
/// When the database does not answer; the agent asks again.
pub(crate) async fn link(app: &App, session: &Connected, seq: i64) -> Result<()> {
    let org = session.org_id;
    let Some(place) = app.audit.place(org).filter(|newest| newest.seq > seq) else { return Ok(()) };
    let mut connection = app.db.of(org).acquire().await.during("connection")?;
    let hash = match seq {
        0 => Some(Place::BEGINNING.hash),
        seq => audit_chain::hash_at(&mut connection, org, seq).await?,
    };
    drop(connection);
    let Some(hash) = hash else { return Ok(()) };
    let link = Checkpoint { organization: org, place, at: clock::now(), previous: Some(Place { seq, hash }) };
    let signer = app.ca.signer();
    let SignedCheckpoint { payload, signature, .. } = link.sign_as(LINK, &signer);
    let envelope = Envelope {
        kind: LINK.to_owned(),
        payload: payload.into_bytes(),
        signature: hex::decode(signature).unwrap_or_default(),
        certificate: signer.certificate().to_vec(),
    };
    let frame = ControllerFrame { frame: Some(Frame::Checkpoint(envelope)) };
    for frame in app.audit.frame(org).into_iter().chain([frame]) {
        // Who has no room for it now asks again.
        let _ = session.outbound.try_send(frame);
    }
    Ok(())
}
