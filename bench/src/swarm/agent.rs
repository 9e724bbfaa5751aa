//! One simulated agent: a task that connects, opens a session, sends heartbeats, and answers orders.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail};
use model::limits;
use proto::{
    AgentFrame, Envelope, Heartbeat, Hello, Verdict, Welcome, agent_frame, controller_frame::Frame,
    session_client::SessionClient,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{
    Shared,
    connect::{self, Place},
    identity::{Identity, PROTOCOL},
    order, output,
};
use crate::clock;

/// Frames that wait to be sent: the reports of one batch of orders fit.
const FRAMES: usize = 128;
/// The longest pause before a session that was lost or refused is tried again: the worst that a real agent does.
const PAUSE: Duration = limits::RECONNECT_PAUSE;
/// From the open stream to the welcome: the controller opens as many sessions as it can at a time.
const WELCOME_WITHIN: Duration = Duration::from_secs(60);

/// Lives until `stop` is told.
pub(super) async fn live(
    shared: Arc<Shared>,
    identity: Arc<Identity>,
    place: Place,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            ended = session(&shared, &identity, place) => {
                if let Err(error) = ended {
                    shared.failed(&error);
                }
            }
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = sleep(clock::within(PAUSE)) => {}
        }
    }
}

/// Counts a session as connected while it lives.
struct Connected<'a>(&'a Shared);

impl<'a> Connected<'a> {
    fn count(shared: &'a Shared) -> Self {
        shared.counts.connected.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.counts.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Holds one session until it ends, which is always an error: the controller has no reason to end it.
async fn session(shared: &Shared, identity: &Identity, place: Place) -> anyhow::Result<()> {
    let permit = shared.connecting.acquire().await.context("the swarm is gone")?;
    let channel = connect::connect(place, Arc::clone(&identity.tls)).await?;
    let (outbound, frames) = mpsc::channel(FRAMES);
    outbound.send(frame(agent_frame::Frame::Hello(hello(identity)))).await?;
    let mut client = SessionClient::new(channel).max_decoding_message_size(limits::GRPC_MESSAGE_BYTES);
    let (inbound, welcome) = timeout(WELCOME_WITHIN, async {
        let mut inbound = client.open(ReceiverStream::new(frames)).await?.into_inner();
        match inbound.message().await?.and_then(|frame| frame.frame) {
            Some(Frame::Welcome(welcome)) => Ok((inbound, welcome)),
            Some(Frame::Goodbye(goodbye)) => bail!("the controller said goodbye: {}", goodbye.code),
            _ => bail!("the controller did not begin with a welcome"),
        }
    })
    .await
    .context("no welcome came")??;
    drop(permit);
    let _connected = Connected::count(shared);
    let conversation = Conversation { shared, identity, place, outbound, seq: 0 };
    conversation.hold(inbound, &welcome).await
}

fn hello(identity: &Identity) -> Hello {
    Hello {
        protocol_min: PROTOCOL,
        protocol_max: PROTOCOL,
        agent_version: super::VERSION.to_owned(),
        boot_id: super::BOOT_ID.to_owned(),
        journal_epoch: identity.journal_epoch.to_vec(),
        slots: limits::DEFAULT_SLOTS,
        facts: [("os", "linux"), ("arch", "x86_64"), ("cpus", "2"), ("virtualization", "simulated")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        fence: 0,
        held: Vec::new(),
        since_boot: 0,
    }
}

const fn frame(frame: agent_frame::Frame) -> AgentFrame {
    AgentFrame { frame: Some(frame) }
}

/// An open session.
struct Conversation<'a> {
    shared: &'a Shared,
    identity: &'a Identity,
    place: Place,
    outbound: mpsc::Sender<AgentFrame>,
    /// Number of the last report.
    seq: u64,
}

impl Conversation<'_> {
    async fn hold(
        mut self,
        mut inbound: Streaming<proto::ControllerFrame>,
        welcome: &Welcome,
    ) -> anyhow::Result<()> {
        let every = Duration::from_millis(u64::from(welcome.heartbeat_ms.max(1)));
        // Staggered, so that the agents that connected together do not beat together.
        let mut heartbeat = interval_at(Instant::now() + clock::within(every), every);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                received = inbound.message() => match received?.map(|frame| frame.frame) {
                    Some(Some(Frame::Order(envelope))) => self.obey(&envelope).await?,
                    Some(Some(Frame::Ack(ack))) => {
                        let rejected = ack.verdict() == Verdict::Rejected;
                        let count = if rejected { &self.shared.counts.rejected } else { &self.shared.counts.stored };
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(Some(Frame::Goodbye(goodbye))) => {
                        bail!("the controller said goodbye: {} ({})", goodbye.code, goodbye.detail);
                    }
                    // What is to be cancelled is over already.
                    Some(
                        Some(
                            Frame::Cancel(_) | Frame::Welcome(_) | Frame::Controllers(_) | Frame::Checkpoint(_),
                        )
                        | None,
                    ) => {}
                    None => bail!("the controller closed the session"),
                },
                _ = heartbeat.tick() => {
                    let beat = Heartbeat { sent_at: clock::now_micros(), active: 0 };
                    self.outbound.send(frame(agent_frame::Frame::Heartbeat(beat))).await?;
                }
            }
        }
    }

    async fn obey(&mut self, envelope: &Envelope) -> anyhow::Result<()> {
        let now = clock::now();
        let order = match order::verify(&self.shared.trust, self.identity, envelope, now) {
            Ok(order) => order,
            Err(why) => {
                self.shared.counts.unbelievable.fetch_add(1, Ordering::Relaxed);
                bail!("an order was dropped: {why}");
            }
        };
        let line = order::line(&order).unwrap_or_default();
        let reports = order::reports(self.identity, &order, &line, self.seq + 1, now);
        self.seq += reports.len() as u64;
        for report in reports {
            self.outbound.send(frame(agent_frame::Frame::Report(report))).await?;
        }
        if !line.is_empty() {
            output::ship(self.place, self.identity, &order, line).await?;
        }
        self.shared.counts.finished.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
