//! An agent that the test plays: it has a certificate and a session, and says what the test tells it to. It runs nothing.

use std::time::Duration;

use model::Reason;
use prost::Message as _;
use proto::{
    AgentFrame, ControllerFrame, ExitRecord, Held, Hello, Verdict, WorkOrder, agent_frame, controller_frame,
    report, session_client::SessionClient,
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    SOON, World,
    door::{self, Puppet},
};

/// Below the silence that an impatient World bears.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(500);

/// An enrolled agent without a session.
#[derive(Debug)]
pub struct Player {
    world: World,
    puppet: Puppet,
    results: pki::ResultKey,
}

/// Its session. Dropped, the stream breaks off.
#[derive(Debug)]
pub struct Playing<'a> {
    player: &'a Player,
    frames: mpsc::Sender<AgentFrame>,
    inbound: tonic::Streaming<ControllerFrame>,
    heart: tokio::task::JoinHandle<()>,
    seq: u64,
}

impl Player {
    /// Enrolls under this name.
    pub async fn enroll(world: &World, name: &str) -> Self {
        let token = world.enroll_token(&json!({})).await;
        let (mut request, key) = door::enroll_request(&token, name);
        let results = pki::ResultKey::generate();
        request.result_key = results.public_key();
        let credentials = door::enroll(world.door(), request).await.expect("the token is good");
        Self { world: world.clone(), puppet: Puppet::new(credentials, key), results }
    }

    /// Opens a session in which it holds the attempts of these orders.
    pub async fn play(&self, held: &[&WorkOrder]) -> Playing<'_> {
        let channel = self.puppet.connect(self.world.door()).await.expect("it is enrolled");
        let (frames, outbound) = mpsc::channel(64);
        let hello = Hello {
            protocol_min: 1,
            protocol_max: 1,
            slots: 4,
            journal_epoch: vec![7; 16],
            held: held
                .iter()
                .map(|order| Held {
                    execution_id: order.execution_id.clone(),
                    run_id: order.run_id.clone(),
                    attempt: order.attempt,
                })
                .collect(),
            ..Hello::default()
        };
        send(&frames, agent_frame::Frame::Hello(hello)).await;
        let answer =
            SessionClient::new(channel).open(ReceiverStream::new(outbound)).await.expect("it is enrolled");
        let heart = tokio::spawn({
            let frames = frames.clone();
            async move {
                let beat =
                    AgentFrame { frame: Some(agent_frame::Frame::Heartbeat(proto::Heartbeat::default())) };
                while frames.send(beat.clone()).await.is_ok() {
                    tokio::time::sleep(HEARTBEAT_EVERY).await;
                }
            }
        });
        let mut playing = Playing { player: self, frames, inbound: answer.into_inner(), heart, seq: 0 };
        playing
            .next(|frame| matches!(frame, controller_frame::Frame::Welcome(_)).then_some(()))
            .await
            .expect("it is welcome");
        playing
    }
}

async fn send(frames: &mpsc::Sender<AgentFrame>, frame: agent_frame::Frame) {
    frames.send(AgentFrame { frame: Some(frame) }).await.expect("the session is open");
}

impl Playing<'_> {
    /// The next frame that `pick` wants; `None` when the session ends before it.
    pub async fn next<T>(&mut self, pick: impl Fn(controller_frame::Frame) -> Option<T>) -> Option<T> {
        let found = tokio::time::timeout(SOON, async {
            loop {
                let frame = self.inbound.message().await.ok()??;
                if let Some(found) = frame.frame.and_then(&pick) {
                    return Some(found);
                }
            }
        });
        found.await.expect("the frame comes, or the session ends")
    }

    /// Says this.
    pub async fn tell(&self, frame: agent_frame::Frame) {
        send(&self.frames, frame).await;
    }

    /// The next order.
    pub async fn order(&mut self) -> WorkOrder {
        let order = self.next(|frame| match frame {
            controller_frame::Frame::Order(order) => Some(order),
            _ => None,
        });
        let order = order.await.expect("an order comes");
        WorkOrder::decode(order.payload.as_slice()).expect("it is an order")
    }

    /// Reports on the order's attempt; how the controller took it.
    pub async fn say(&mut self, order: &WorkOrder, body: report::Body) -> Verdict {
        self.seq += 1;
        let seq = self.seq;
        let report = proto::Report {
            seq,
            execution_id: order.execution_id.clone(),
            run_id: order.run_id.clone(),
            attempt: order.attempt,
            body: Some(body),
        };
        send(&self.frames, agent_frame::Frame::Report(report)).await;
        let ack = self.next(move |frame| match frame {
            controller_frame::Frame::Ack(ack) if ack.seq == seq => Some(ack.verdict()),
            _ => None,
        });
        ack.await.expect("the report is answered")
    }

    /// Says that the attempt was accepted and started.
    pub async fn start(&mut self, order: &WorkOrder) {
        let at = crate::clock::now().as_microsecond();
        let accepted = self.say(order, report::Body::Accepted(proto::Accepted { at })).await;
        assert_eq!(accepted, Verdict::Stored);
        let started = proto::Started { at, pid: 1, boot_id: "boot".to_owned() };
        assert_eq!(self.say(order, report::Body::Started(started)).await, Verdict::Stored);
    }

    /// Says that the attempt exited with this code.
    pub async fn finish(&mut self, order: &WorkOrder, exit_code: i32) -> Verdict {
        self.end(order, Reason::Exited, Some(exit_code)).await
    }

    /// Says that the attempt ended for this reason.
    pub async fn end(&mut self, order: &WorkOrder, reason: Reason, exit_code: Option<i32>) -> Verdict {
        let at = crate::clock::now().as_microsecond();
        let record = ExitRecord {
            execution_id: order.execution_id.clone(),
            run_id: order.run_id.clone(),
            attempt: order.attempt,
            started_at: at,
            ended_at: at,
            reason: reason.as_str().to_owned(),
            exit_code,
            ..ExitRecord::default()
        }
        .encode_to_vec();
        let signature = self.player.results.sign("exit-record", &record);
        self.say(order, report::Body::Finished(proto::Finished { record, signature })).await
    }
}

impl Drop for Playing<'_> {
    fn drop(&mut self) {
        self.heart.abort();
    }
}
