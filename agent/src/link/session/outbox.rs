//! Which report is sent next: a window of unanswered ones over the spool.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use model::limits;
use tokio::time::Instant;

use crate::link::{
    report::{ReportId, report_id},
    spool::Spool,
};

/// Reports that are read ahead or wait for their answer.
const WINDOW: usize = 256;
/// Share of the controller's frame limit that is used; who exceeds the limit is sent away.
const RATE_SHARE: f64 = 0.8;

/// The reports of one session.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Highest number read from the spool.
    read: u64,
    waiting: VecDeque<proto::Report>,
    sent: BTreeMap<u64, (ReportId, Instant)>,
}

impl Outbox {
    pub(super) const fn new() -> Self {
        Self { read: 0, waiting: VecDeque::new(), sent: BTreeMap::new() }
    }

    /// Reads from the spool as far as the window allows.
    pub(super) async fn fill(&mut self, spool: &Spool) {
        let room = WINDOW.saturating_sub(self.waiting.len() + self.sent.len());
        if room == 0 {
            return;
        }
        for report in spool.unanswered(self.read, room).await {
            self.read = report.seq;
            self.waiting.push_back(report);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next report, which counts as sent.
    pub(super) fn pop(&mut self) -> Option<proto::Report> {
        let report = self.waiting.pop_front()?;
        if let Ok(id) = report_id(&report) {
            self.sent.insert(report.seq, (id, Instant::now()));
        }
        Some(report)
    }

    /// The report with this number was answered; what it was about.
    pub(super) fn answered(&mut self, seq: u64) -> Option<ReportId> {
        self.sent.remove(&seq).map(|(id, _)| id)
    }

    /// When the oldest unanswered report was sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.sent.first_key_value().map(|(_, (_, at))| *at)
    }
}

/// Keeps the session's frames below the controller's limit: a bucket of tokens that fills with time.
#[derive(Debug)]
pub(super) struct Pace {
    tokens: f64,
    at: Instant,
}

impl Pace {
    const RATE: f64 = limits::AGENT_FRAMES_PER_SECOND as f64 * RATE_SHARE;

    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: Self::RATE / 2.0, at: now }
    }

    /// How long until the next frame may be sent; zero is now.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        self.tokens = (now - self.at).as_secs_f64().mul_add(Self::RATE, self.tokens).min(Self::RATE / 2.0);
        self.at = now;
        if self.tokens >= 1.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64((1.0 - self.tokens) / Self::RATE)
        }
    }

    /// A frame is sent.
    pub(super) fn spend(&mut self) {
        self.tokens -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controllers_limit_is_kept() {
        let begin = Instant::now();
        let mut now = begin;
        let mut pace = Pace::new(now);
        let mut sent: u32 = 0;
        while now - begin < Duration::from_secs(2) {
            let wait = pace.wait(now);
            if wait.is_zero() {
                pace.spend();
                sent += 1;
            } else {
                now += wait.max(Duration::from_millis(1));
            }
        }
        assert!(sent <= limits::AGENT_FRAMES_PER_SECOND * 2 + 10, "{sent}");
        assert!(sent >= limits::AGENT_FRAMES_PER_SECOND, "{sent}");
    }
}
