//! The live output of an execution, across broken connections.
//!
//! Invariants:
//! 1. Pieces come in the order of their positions, each once: a new connection goes on behind the last piece that was
//!    given out, and what comes again all the same is passed over.
//! 2. It ends with [`Event::End`] or an error, never silently.

use std::{collections::VecDeque, time::Duration};

use model::{
    api::{
        output::{OutputEnd, OutputPiece},
        problem::Problem,
    },
    id::ExecutionId,
};
use reqwest::Response;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    client::{Client, Error},
    clock, output, sse,
};

/// A connection on which nothing comes for so long, not even a keep-alive, counts as broken.
const SILENCE: Duration = Duration::from_secs(60);
/// The first and the longest pause between two connections.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that still speaks after this time is a good one, even if there is no output to bring.
const LASTED: Duration = Duration::from_secs(10);
/// How long the controller may be away.
const GIVE_UP: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(crate) enum Event {
    Piece(OutputPiece),
    End(OutputEnd),
    /// The connection broke and a new one could not be made at once, or brought an error; it is tried again.
    Lost(Error),
    /// Something comes again after [`Event::Lost`].
    Back,
}

#[derive(Debug)]
pub(crate) struct Follower<'a> {
    client: &'a Client,
    execution: ExecutionId,
    query: Vec<(&'static str, String)>,
    /// Position of the last piece that was given out, or of where to begin.
    last: Option<i64>,
    connection: Option<Response>,
    parser: sse::Parser,
    events: VecDeque<sse::Event>,
    /// What comes behind [`Event::Back`].
    next: Option<Event>,
    /// When the connection was made.
    connected: Instant,
    /// Connections tried since the last good one.
    attempts: u32,
    /// When a connection last proved good: by a piece, by the end, or by lasting.
    heard: Instant,
    /// [`Event::Lost`] was given out, and [`Event::Back`] not yet.
    away: bool,
}

impl<'a> Follower<'a> {
    /// Follows what `query` selects of `execution`, from behind the position `after` or from the beginning.
    pub(crate) fn new(
        client: &'a Client,
        execution: ExecutionId,
        query: Vec<(&'static str, String)>,
        after: Option<i64>,
    ) -> Self {
        Self {
            client,
            execution,
            query,
            last: after,
            connection: None,
            parser: sse::Parser::default(),
            events: VecDeque::new(),
            next: None,
            connected: Instant::now(),
            attempts: 0,
            heard: Instant::now(),
            away: false,
        }
    }

    /// What comes next.
    ///
    /// # Errors
    /// When the controller refuses, cannot be understood, or is away for more than five minutes.
    pub(crate) async fn next(&mut self) -> Result<Event, Error> {
        if let Some(event) = self.next.take() {
            return Ok(event);
        }
        loop {
            while let Some(event) = self.events.pop_front() {
                match self.understand(&event)? {
                    Some(event @ Event::Lost(_)) => return Ok(event),
                    Some(event) if self.prosper() => {
                        self.next = Some(event);
                        return Ok(Event::Back);
                    }
                    Some(event) => return Ok(event),
                    None => {}
                }
            }
            let Some(connection) = &mut self.connection else {
                if let Some(event) = self.connect().await? {
                    return Ok(event);
                }
                continue;
            };
            match timeout(SILENCE, connection.chunk()).await {
                Ok(Ok(Some(bytes))) => {
                    let fed = self.parser.feed(&bytes, &mut self.events);
                    fed.map_err(|error| self.client.undecodable(&error))?;
                    if self.connected.elapsed() > LASTED && self.prosper() {
                        return Ok(Event::Back);
                    }
                }
                Ok(Ok(None) | Err(_)) | Err(_) => self.connection = None,
            }
        }
    }

    /// The connection is a good one; whether it was said to be away.
    fn prosper(&mut self) -> bool {
        self.attempts = 0;
        self.heard = Instant::now();
        std::mem::take(&mut self.away)
    }

    /// The connection is of no use because of `error`, which is said once.
    fn lose(&mut self, error: Error) -> Result<Option<Event>, Error> {
        self.connection = None;
        if !error.is_transient() || self.heard.elapsed() > GIVE_UP {
            return Err(error);
        }
        Ok((!std::mem::replace(&mut self.away, true)).then_some(Event::Lost(error)))
    }

    /// Tries once to connect, after the pause that is due.
    async fn connect(&mut self) -> Result<Option<Event>, Error> {
        if self.heard.elapsed() > GIVE_UP {
            return Err(self.client.fruitless("the output breaks off again and again before anything comes"));
        }
        if self.attempts > 0 {
            let pause = FIRST_PAUSE.saturating_mul(1 << (self.attempts - 1).min(16)).min(LONGEST_PAUSE);
            sleep(clock::jittered(pause)).await;
        }
        self.attempts += 1;
        match self.client.open_output(self.execution, &self.query, self.last).await {
            Ok(connection) => {
                self.connection = Some(connection);
                self.connected = Instant::now();
                self.parser = sse::Parser::default();
                Ok(None)
            }
            Err(error) => self.lose(error),
        }
    }

    fn understand(&mut self, event: &sse::Event) -> Result<Option<Event>, Error> {
        match event.name.as_str() {
            "output" => {
                let piece: OutputPiece =
                    serde_json::from_slice(&event.data).map_err(|error| self.client.undecodable(&error))?;
                if self.last.is_some_and(|last| piece.position <= last) {
                    return Ok(None);
                }
                self.last = Some(piece.position);
                Ok(Some(Event::Piece(piece)))
            }
            "end" => {
                let end =
                    serde_json::from_slice(&event.data).map_err(|error| self.client.undecodable(&error))?;
                Ok(Some(Event::End(end)))
            }
            "error" => {
                let problem: Problem =
                    serde_json::from_slice(&event.data).map_err(|error| self.client.undecodable(&error))?;
                self.lose(Error::Problem(Box::new(problem)))
            }
            _ => Ok(None),
        }
    }
}

/// Hands every piece of an execution's output behind `after` to `sink`, tells the person when the connection is away and back, and
/// ends with the execution.
///
/// # Errors
/// As [`Follower::next`], and those of `sink`.
pub(crate) async fn to_end(
    client: &Client,
    execution: ExecutionId,
    query: Vec<(&'static str, String)>,
    after: Option<i64>,
    mut sink: impl FnMut(OutputPiece) -> anyhow::Result<()>,
) -> anyhow::Result<OutputEnd> {
    let mut follower = Follower::new(client, execution, query, after);
    loop {
        match follower.next().await? {
            Event::Piece(piece) => sink(piece)?,
            Event::End(end) => return Ok(end),
            Event::Lost(error) => output::note(&format!("{error}; trying again")),
            Event::Back => output::note("connected again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::execution::{ExecutionState, RunCounts};

    use super::*;
    use crate::context::Connection;

    fn client() -> Client {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let addr = "http://127.0.0.1:9".parse().unwrap();
        Client::new(&Connection { addr, credential: None, context: None, ca_file: None }).unwrap()
    }

    fn event(name: &str, data: &str) -> sse::Event {
        sse::Event { name: name.to_owned(), data: data.as_bytes().to_vec() }
    }

    fn error(status: u16, code: &str) -> sse::Event {
        let problem = format!(
            r#"{{"type": "urn:opsconductor:problem:{code}", "title": "t", "status": {status}, "code": "{code}",
                "detail": "why", "request_id": "r"}}"#
        );
        event("error", &problem)
    }

    #[tokio::test]
    async fn an_error_that_may_pass_is_said_once_and_tried_again() {
        let client = client();
        let mut follower =
            Follower::new(&client, ExecutionId::from_bytes(&[7; 16]).unwrap(), Vec::new(), None);
        // A connection was tried; that it brings errors does not make it a good one.
        follower.attempts = 3;
        follower.events.extend([error(503, "database_unavailable")]);
        assert!(
            matches!(follower.next().await, Ok(Event::Lost(Error::Problem(problem))) if problem.status == 503)
        );
        assert_eq!(follower.attempts, 3);
        assert!(matches!(follower.understand(&error(503, "database_unavailable")), Ok(None)), "said once");

        let end = OutputEnd {
            state: ExecutionState::Succeeded,
            runs: RunCounts::default(),
            left_out: 0,
            aborted: false,
        };
        follower.events.extend([event("end", &serde_json::to_string(&end).unwrap())]);
        assert!(matches!(follower.next().await, Ok(Event::Back)));
        assert!(matches!(follower.next().await, Ok(Event::End(_))));
        assert_eq!(follower.attempts, 0);
    }

    #[test]
    fn an_error_that_stays_ends_it() {
        let client = client();
        let mut follower =
            Follower::new(&client, ExecutionId::from_bytes(&[7; 16]).unwrap(), Vec::new(), None);
        let refused = follower.understand(&error(403, "forbidden")).unwrap_err();
        assert_eq!(crate::exit::Exit::of_error(&refused.into()), crate::exit::Exit::Denied);
        assert!(matches!(follower.understand(&event("error", "{}")), Err(Error::Decode { .. })));
    }
}
