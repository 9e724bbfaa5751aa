//! Shipping a line of output, over a connection of its own as real agents do.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use proto::{
    Batch, Chunk, OutputFrame, Resume, WorkOrder, output_client::OutputClient, output_frame::Frame,
    output_reply::Reply,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    connect::{self, Place},
    identity::Identity,
};
use crate::clock;

/// Until the controller has stored the line.
const WITHIN: Duration = Duration::from_secs(30);
const STDOUT: u32 = 1;

/// Ships `line` as all that the order's process wrote, and waits until it is stored.
///
/// # Errors
/// When the controller does not take it.
pub(crate) async fn ship(
    place: Place,
    identity: &Identity,
    order: &WorkOrder,
    line: Vec<u8>,
) -> anyhow::Result<()> {
    timeout(WITHIN, ship_unbounded(place, identity, order, line))
        .await
        .context("the output was not stored in time")?
}

async fn ship_unbounded(
    place: Place,
    identity: &Identity,
    order: &WorkOrder,
    line: Vec<u8>,
) -> anyhow::Result<()> {
    let channel = connect::connect(place, Arc::clone(&identity.tls)).await?;
    let (frames, outbound) = mpsc::channel(2);
    let resume = Resume {
        execution_id: order.execution_id.clone(),
        run_id: order.run_id.clone(),
        attempt: order.attempt,
    };
    frames.send(OutputFrame { frame: Some(Frame::Resume(resume)) }).await?;
    let mut replies = OutputClient::new(channel).ship(ReceiverStream::new(outbound)).await?.into_inner();
    loop {
        match replies.message().await?.and_then(|reply| reply.reply) {
            Some(Reply::Held(held)) if held.next_seq == 0 => {
                let chunk = Chunk {
                    execution_id: order.execution_id.clone(),
                    run_id: order.run_id.clone(),
                    attempt: order.attempt,
                    stream: STDOUT,
                    time: clock::now_micros(),
                    length: u32::try_from(line.len()).context("the line is too long")?,
                    data: line.clone().into(),
                    ..Chunk::default()
                };
                frames.send(OutputFrame { frame: Some(Frame::Batch(Batch { chunks: vec![chunk] })) }).await?;
            }
            Some(Reply::Held(_) | Reply::Stored(_)) => return Ok(()),
            Some(Reply::Rejected(rejection)) => bail!("the output was rejected: {}", rejection.reason),
            None => bail!("the output's stream ended early"),
        }
    }
}
