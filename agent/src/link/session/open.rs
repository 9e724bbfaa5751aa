//! One open session: what goes in, what goes out, and when it ends.

use std::{net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use model::{
    label::{Facts, accept_facts},
    limits,
};
use proto::{AgentFrame, ControllerFrame, agent_frame, controller_frame, session_client::SessionClient};
use rustls::ClientConfig;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::{
    Online, Session, Standing,
    outbox::{Outbox, Pace},
};
use crate::{
    clock,
    link::{
        backoff::around,
        connect::{Address, Connection},
        enroll::{EnrollError, PROTOCOL, renew},
        facts,
        identity::Identity,
        report::{ReportKind, attempt_key},
        session::{chain, end_of},
        shipper,
        witness::{Alarm, Step},
    },
    messages::{Inventory, ToExecutor},
};

/// How often facts are collected again.
const FACTS_EVERY: Duration = Duration::from_secs(60);
/// How often the age of the certificate is looked at; a host that slept has other hours than its timers.
const RENEWAL_CHECK: Duration = Duration::from_secs(60);
/// A certificate is never renewed sooner, however short its life.
const LEAST_RENEWAL_AGE: Duration = Duration::from_millis(500);
/// Bounds of what the controller may ask for as an interval.
const INTERVAL: std::ops::RangeInclusive<u64> = 100..=3_600_000;

/// How a session came to its end.
#[derive(Debug)]
pub(super) enum End {
    /// There is a new certificate.
    Renewed,
    Goodbye(proto::Goodbye),
    /// The controller does not talk to this agent.
    Denied(String),
    Lost(String),
    /// The agent stops.
    ExecutorGone,
}

type Renewal = Pin<Box<dyn Future<Output = Result<Identity, EnrollError>> + Send>>;

/// The state of an open session.
struct Open {
    outbox: Outbox,
    pace: Pace,
    /// A frame that goes before the reports.
    urgent: Option<agent_frame::Frame>,
    /// What there is to tell of the audit's alarm goes before that.
    alarm: Option<proto::Alarm>,
    /// And then what is asked about it.
    asks: Option<proto::Witnessed>,
    facts: Facts,
    /// Those of them that the executor found.
    host_facts: Facts,
    local_ip: IpAddr,
    /// With whom.
    address: Address,
    heard: Instant,
}

/// What is found here, and what the executor found.
fn all_facts(ip: IpAddr, of_executor: &Facts) -> Facts {
    let mut facts = facts::collect(Some(ip));
    facts.extend(accept_facts(of_executor.clone()));
    facts
}

impl Session {
    /// Holds one session until it ends.
    pub(super) async fn hold(
        &mut self,
        address: &Address,
        tls: Arc<ClientConfig>,
        connection: Connection,
    ) -> End {
        let Connection { channel, local_ip } = connection;
        // Before the executor is asked: whoever says a later one, knows later of what it holds.
        let since_boot = clock::since_boot_micros();
        let (reply, inventory) = oneshot::channel();
        if self.executor.send(ToExecutor::Inventory(reply)).await.is_err() {
            return End::ExecutorGone;
        }
        let Ok(inventory) = inventory.await else { return End::ExecutorGone };
        let host_facts = inventory.facts.clone();
        let facts = all_facts(local_ip, &host_facts);
        let (outbound, frames) = mpsc::channel(limits::OUTBOUND_FRAMES);
        if outbound
            .try_send(frame(agent_frame::Frame::Hello(self.hello(inventory, facts.clone(), since_boot))))
            .is_err()
        {
            return End::Lost("the first frame could not be sent".to_owned());
        }
        fault::point("link.hello.sending");
        let (inbound, welcome) = match greet(channel.clone(), frames, self.silence).await {
            Ok(greeted) => greeted,
            Err(end) => return end,
        };
        if welcome.protocol != PROTOCOL {
            return End::Lost(format!(
                "the controller speaks protocol {}, this agent {PROTOCOL}",
                welcome.protocol
            ));
        }
        fault::point("link.welcome.received");
        self.silence = period(welcome.silence_ms, self.silence);
        self.learn(address, &welcome.controllers);
        self.witness.begin(welcome.shows_links);
        tracing::info!(agent.id = %self.agent_id(), controller = %address, session.epoch = welcome.session_epoch,
            "session opened");
        let behind = welcome.now.saturating_sub(clock::now_micros());
        let seconds = behind.unsigned_abs() / 1_000_000;
        let standing = if seconds > self.clock_skew.as_secs() {
            let direction = if behind > 0 { "behind" } else { "ahead of" };
            let text = format!(
                "this host's clock is {seconds} s {direction} the controller's; orders are refused until it is right"
            );
            tracing::error!(agent.id = %self.agent_id(), controller = %address, "{text}");
            format!("{address}, but {text}")
        } else {
            address.to_string()
        };
        self.standing.send_replace(Standing::new(true, standing));
        self.online.send_replace(Some(Online {
            address: address.clone(),
            tls,
            channel: channel.clone(),
            metrics_every: period(welcome.metrics_ms, limits::METRICS_EVERY),
            silence: self.silence,
        }));
        let open = Open {
            outbox: Outbox::new(),
            pace: Pace::new(Instant::now()),
            urgent: None,
            alarm: self.witness.alarm().map(Alarm::frame),
            asks: None,
            facts,
            host_facts,
            local_ip,
            address: address.clone(),
            heard: Instant::now(),
        };
        self.converse(open, outbound, inbound, channel, period(welcome.heartbeat_ms, limits::HEARTBEAT_EVERY))
            .await
    }

    fn hello(&self, inventory: Inventory, facts: Facts, since_boot: u64) -> proto::Hello {
        proto::Hello {
            protocol_min: PROTOCOL,
            protocol_max: PROTOCOL,
            agent_version: facts::VERSION.to_owned(),
            boot_id: facts::boot_id().unwrap_or_default(),
            journal_epoch: inventory.journal_epoch,
            fence: inventory.fence,
            since_boot,
            slots: self.slots,
            facts: facts.into_iter().collect(),
            held: inventory
                .held
                .into_iter()
                .map(|key| proto::Held {
                    execution_id: key.execution_id.to_bytes(),
                    run_id: key.run_id.to_bytes(),
                    attempt: key.attempt,
                })
                .collect(),
        }
    }

    async fn converse(
        &mut self,
        mut open: Open,
        outbound: mpsc::Sender<AgentFrame>,
        mut inbound: Streaming<ControllerFrame>,
        channel: Channel,
        heartbeat_every: Duration,
    ) -> End {
        let mut spool = self.spool.watch();
        let now = Instant::now();
        let mut heartbeat = interval_at(now + heartbeat_every, heartbeat_every);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut facts_due = interval_at(now + FACTS_EVERY, FACTS_EVERY);
        facts_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let renew_at_age = around(self.identity.life() / 2, 0.1).max(LEAST_RENEWAL_AGE);
        let mut renewal_check = self.next_renewal_check(renew_at_age);
        let mut renewal: Option<Renewal> = None;
        open.outbox.fill(&self.spool).await;
        loop {
            let speaks = open.alarm.is_some() || open.asks.is_some() || open.urgent.is_some();
            let wants = speaks || !open.outbox.is_empty();
            let pause = if wants { open.pace.wait(Instant::now()) } else { Duration::ZERO };
            tokio::select! {
                received = inbound.message() => {
                    open.heard = Instant::now();
                    match received {
                        Ok(Some(ControllerFrame { frame: Some(frame) })) => {
                            if let Some(end) = self.receive(&mut open, frame).await {
                                return end;
                            }
                        }
                        Ok(Some(_)) => {}
                        Ok(None) => return End::Lost("the controller closed it".to_owned()),
                        Err(status) => return end_of(&status),
                    }
                }
                permit = outbound.reserve(), if wants && pause.is_zero() => {
                    let Ok(permit) = permit else { return End::Lost("the connection is closed".to_owned()) };
                    let alarm = open.alarm.take().map(agent_frame::Frame::Alarm);
                    let of_audit = alarm.or_else(|| open.asks.take().map(agent_frame::Frame::Witnessed));
                    let next = of_audit.or_else(|| open.urgent.take()).or_else(|| open.outbox.pop().map(agent_frame::Frame::Report));
                    if let Some(next) = next {
                        open.pace.spend();
                        fault::point("link.frame.sending");
                        permit.send(frame(next));
                        fault::point("link.frame.sent");
                    }
                }
                () = tokio::time::sleep(pause), if !pause.is_zero() => {}
                changed = spool.changed() => {
                    if changed.is_err() {
                        return End::ExecutorGone;
                    }
                    open.outbox.fill(&self.spool).await;
                }
                _ = heartbeat.tick() => {
                    if let Some(end) = silent(&open, self.silence) {
                        return end;
                    }
                    self.look_after_alarm(&mut open);
                    let active = u32::try_from(*self.active.borrow()).unwrap_or(u32::MAX);
                    let beat = proto::Heartbeat { sent_at: clock::now_micros(), active };
                    open.urgent.get_or_insert(agent_frame::Frame::Heartbeat(beat));
                }
                _ = facts_due.tick() => {
                    let facts = all_facts(open.local_ip, &open.host_facts);
                    if facts != open.facts {
                        open.facts.clone_from(&facts);
                        let update = proto::FactsUpdate { facts: facts.into_iter().collect() };
                        open.urgent = Some(agent_frame::Frame::Facts(update));
                    }
                }
                () = sleep_until(renewal_check), if renewal.is_none() => {
                    if self.identity.age() >= renew_at_age {
                        let (channel, identity) = (channel.clone(), self.identity.clone());
                        renewal = Some(Box::pin(async move { renew(channel, &identity).await }));
                    } else {
                        renewal_check = self.next_renewal_check(renew_at_age);
                    }
                }
                renewed = async { renewal.as_mut().expect("guarded").await }, if renewal.is_some() => {
                    renewal = None;
                    let adopted = renewed.and_then(|identity| Ok(self.adopt(identity)?));
                    match adopted {
                        Ok(()) => return End::Renewed,
                        Err(error) => {
                            let retry = self.renewal_retry();
                            tracing::warn!(agent.id = %self.agent_id(), expires_at = %self.identity.expires_at,
                                retry_ms = retry.as_millis(), "the certificate is not renewed yet: {}", chain(&error));
                            renewal_check = Instant::now() + retry;
                        }
                    }
                }
            }
        }
    }

    /// Handles one frame of the controller; what ends the session comes back.
    async fn receive(&mut self, open: &mut Open, frame: controller_frame::Frame) -> Option<End> {
        match frame {
            controller_frame::Frame::Order(envelope) => {
                fault::point("link.order.received");
                self.tell_executor(ToExecutor::Order(envelope)).await;
                None
            }
            controller_frame::Frame::Cancel(cancel) => {
                fault::point("link.cancel.received");
                match attempt_key(&cancel.execution_id, &cancel.run_id, cancel.attempt) {
                    Ok(key) => self.tell_executor(ToExecutor::Cancel(key)).await,
                    Err(error) => tracing::warn!(%error, "the controller cancelled nothing"),
                }
                None
            }
            controller_frame::Frame::Ack(ack) => self.acknowledge(open, ack).await,
            controller_frame::Frame::Goodbye(goodbye) => Some(End::Goodbye(goodbye)),
            controller_frame::Frame::Controllers(announced) => {
                self.learn(&open.address.clone(), &announced.controllers);
                None
            }
            controller_frame::Frame::Checkpoint(checkpoint) => {
                let step = self.witness.see(&self.identity, self.clock_skew, &checkpoint);
                self.tell(open, step);
                None
            }
            controller_frame::Frame::Welcome(_) => None,
        }
    }

    /// Tells what the witness has to say.
    fn tell(&self, open: &mut Open, step: Step) {
        match step {
            Step::Nothing => {}
            Step::Alarm => open.alarm = self.witness.alarm().map(Alarm::frame),
            Step::Gap(gap) => open.alarm = Some(*gap),
            Step::Ask(seq) => open.asks = Some(proto::Witnessed { seq }),
        }
    }

    /// Tells of an alarm that was due, or of one that a person has forgotten.
    fn look_after_alarm(&mut self, open: &mut Open) {
        let step = self.witness.tick(Instant::now());
        self.tell(open, step);
        if self.witness.was_forgotten() {
            open.alarm = Some(proto::Alarm::default());
        }
    }

    /// An executor that has ended, because the agent stops, hears nothing any more. The session goes on for the reports
    /// that are left, and an order that nobody answers is the controller's to end.
    async fn tell_executor(&self, message: ToExecutor) {
        if self.executor.send(message).await.is_err() {
            tracing::debug!("the executor has ended and was not told");
        }
    }

    /// The spool hears of an answer before the shipper: an end that the executor says again in between is then
    /// appended anew, and answered anew.
    async fn acknowledge(&self, open: &mut Open, ack: proto::ReportAck) -> Option<End> {
        let about = open.outbox.answered(ack.seq)?;
        let key = about.key;
        match ack.verdict() {
            proto::Verdict::Stored | proto::Verdict::Duplicate => {}
            proto::Verdict::Rejected => {
                tracing::warn!(run.id = %key.run_id, attempt = key.attempt, report = ?about.kind, reason = ack.reason,
                    "the controller rejected a report");
            }
            proto::Verdict::Unspecified => {
                tracing::warn!(
                    seq = ack.seq,
                    "the controller answered a report with nothing; it is sent again later"
                );
                return None;
            }
        }
        fault::point("link.ack.received");
        self.spool.answered(ack.seq).await;
        open.outbox.fill(&self.spool).await;
        fault::point("link.ack.passed_on");
        match about.kind {
            // Nothing was started, so there is no output to wait for.
            ReportKind::Refused => {
                self.tell_executor(ToExecutor::Settled(key)).await;
                None
            }
            kind if kind.is_final() => {
                let told = self.shipper.send(shipper::Command::FinalAnswered(key)).await;
                told.err().map(|_| End::ExecutorGone)
            }
            _ => None,
        }
    }

    fn next_renewal_check(&self, renew_at_age: Duration) -> Instant {
        Instant::now() + renew_at_age.saturating_sub(self.identity.age()).min(RENEWAL_CHECK)
    }

    /// Wait after a renewal that failed: a tenth of what is left of the certificate, within bounds.
    fn renewal_retry(&self) -> Duration {
        let left = self.identity.life().saturating_sub(self.identity.age());
        around((left / 10).clamp(Duration::from_secs(1), Duration::from_secs(300)), 0.3)
    }
}

/// Opens the stream and waits for the Welcome.
async fn greet(
    channel: Channel,
    frames: mpsc::Receiver<AgentFrame>,
    silence: Duration,
) -> Result<(Streaming<ControllerFrame>, proto::Welcome), End> {
    let mut client = SessionClient::new(channel)
        .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES)
        .max_encoding_message_size(limits::GRPC_MESSAGE_BYTES);
    let greeting = async {
        let mut inbound =
            client.open(ReceiverStream::new(frames)).await.map_err(|status| end_of(&status))?.into_inner();
        match inbound.message().await.map_err(|status| end_of(&status))?.and_then(|frame| frame.frame) {
            Some(controller_frame::Frame::Welcome(welcome)) => Ok((inbound, welcome)),
            Some(controller_frame::Frame::Goodbye(goodbye)) => Err(End::Goodbye(goodbye)),
            Some(_) => Err(End::Lost("the controller did not begin with a welcome".to_owned())),
            None => Err(End::Lost("the controller closed it without a word".to_owned())),
        }
    };
    let late = || End::Lost("the controller did not welcome this agent in time".to_owned());
    timeout(silence, greeting).await.unwrap_or_else(|_| Err(late()))
}

/// A controller that owes an answer and says nothing is none. One that owes nothing may be silent: HTTP/2 pings show
/// that it is there.
fn silent(open: &Open, patience: Duration) -> Option<End> {
    let owed_since = open.outbox.oldest()?;
    let silence = owed_since.max(open.heard).elapsed();
    (silence > patience)
        .then(|| End::Lost(format!("the controller has not answered for {} seconds", silence.as_secs())))
}

const fn frame(frame: agent_frame::Frame) -> AgentFrame {
    AgentFrame { frame: Some(frame) }
}

/// An interval that the controller asked for, within bounds; `usual` when it asked for none.
fn period(asked_ms: u32, usual: Duration) -> Duration {
    if asked_ms == 0 {
        usual
    } else {
        Duration::from_millis(u64::from(asked_ms).clamp(*INTERVAL.start(), *INTERVAL.end()))
    }
}
