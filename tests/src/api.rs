//! The HTTP API as a program sees it.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use model::api::{
    Page,
    execution::{Execution, Run},
    output::{Data, OutputPage, OutputPiece, Stream},
    problem::Problem,
};
use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::eventually;

/// How long one answer may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// How long an execution of a test may take.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// A client with or without a credential.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// Checks that the request was accepted.
    #[track_caller]
    pub fn accepted(self) -> Self {
        assert!((200..300).contains(&self.status), "{}: {}", self.status, self.text());
        self
    }

    /// Checks that the request was refused, as a problem document, with this status and code.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Problem {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.text());
        let problem: Problem = self.json();
        assert_eq!((problem.status, problem.code.as_str()), (status, code), "{problem:?}");
        assert!(!problem.request_id.is_empty(), "{problem:?}");
        problem
    }

    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    #[track_caller]
    pub fn value(&self) -> Value {
        self.json()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An execution that has ended, with its runs in the order of their targets' names.
#[derive(Debug)]
pub struct Finished {
    pub execution: Execution,
    pub runs: Vec<Run>,
}

impl Finished {
    pub fn id(&self) -> String {
        self.execution.id.to_string()
    }

    /// The only run.
    #[track_caller]
    pub fn run(&self) -> &Run {
        assert_eq!(self.runs.len(), 1, "{:?}", self.runs);
        &self.runs[0]
    }
}

fn client(from: Option<IpAddr>) -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .redirect(reqwest::redirect::Policy::none())
        .local_address(from)
        .build()
        .expect("the client is configured well")
}

impl Api {
    pub(crate) fn new(address: SocketAddr, token: Option<String>) -> Self {
        pki::install_provider();
        Self { http: client(None), base: format!("http://{address}"), token }
    }

    /// The same, from another address of this machine.
    pub fn from(self, address: IpAddr) -> Self {
        Self { http: client(Some(address)), ..self }
    }

    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// A request with the credential.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends it and reads the whole answer.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        self.try_send(request).await.expect("the controller answers")
    }

    /// As [`Self::send`]; `None` when the connection breaks.
    pub async fn try_send(&self, request: RequestBuilder) -> Option<Answer> {
        let response = request.timeout(ANSWERS_WITHIN).send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Some(Answer { status, headers, body: response.bytes().await.ok()?.to_vec() })
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// As [`Self::get`], while the controller may be down.
    pub async fn try_get(&self, path: &str) -> Option<Answer> {
        self.try_send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(body)).await
    }

    /// A POST without a body.
    pub async fn act(&self, path: &str) -> Answer {
        self.send(self.request(Method::POST, path)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Starts an execution: `targets` and `command` as the API takes them.
    pub async fn start(&self, targets: Value, command: Value) -> Execution {
        let body = json!({ "targets": targets, "command": command });
        self.post("/api/v1/executions", &body).await.accepted().json()
    }

    /// Starts a shell line on one agent.
    pub async fn start_shell(&self, agent: &str, line: &str) -> Execution {
        self.start(json!({ "names": [agent] }), json!({ "program": { "shell": line } })).await
    }

    /// Runs a shell line on one agent to its end.
    pub async fn shell(&self, agent: &str, line: &str) -> Finished {
        let execution = self.start_shell(agent, line).await;
        self.finished(execution.id).await
    }

    /// Runs a command on one agent to its end.
    pub async fn exec(&self, agent: &str, command: Value) -> Finished {
        let execution = self.start(json!({ "names": [agent] }), command).await;
        self.finished(execution.id).await
    }

    pub async fn execution(&self, id: impl ToString) -> Execution {
        self.get(&format!("/api/v1/executions/{}", id.to_string())).await.accepted().json()
    }

    /// The runs, in the order of their targets' names.
    pub async fn runs(&self, id: impl ToString) -> Vec<Run> {
        let path = format!("/api/v1/executions/{}/runs?limit=1000", id.to_string());
        let page: Page<Run> = self.get(&path).await.accepted().json();
        let mut runs = page.items;
        runs.sort_by(|a, b| a.target.cmp(&b.target));
        runs
    }

    /// Waits until an execution has ended.
    pub async fn finished(&self, id: impl ToString) -> Finished {
        self.finished_within(id, ENDS_WITHIN).await
    }

    /// As [`Self::finished`], where that may take longer.
    pub async fn finished_within(&self, id: impl ToString, within: Duration) -> Finished {
        let id = id.to_string();
        let execution = eventually(within, &format!("the end of the execution {id}"), async || {
            let answer = self
                .try_get(&format!("/api/v1/executions/{id}"))
                .await
                .filter(|answer| answer.status == 200)?;
            Some(answer.json::<Execution>()).filter(|execution| execution.state.is_terminal())
        })
        .await;
        let runs = self.runs(&id).await;
        Finished { execution, runs }
    }

    /// Waits until an execution has ended and all of its output is there.
    pub async fn whole(&self, id: impl ToString) -> Finished {
        let id = id.to_string();
        self.finished(&id).await;
        eventually(ENDS_WITHIN, &format!("the whole output of the execution {id}"), async || {
            let runs = self.runs(&id).await;
            runs.iter().all(|run| run.output.complete == Some(true)).then_some(())
        })
        .await;
        self.finished(&id).await
    }

    /// All pieces of output that the query wants, `limit` at a time.
    pub async fn pieces(&self, id: impl ToString, query: &str, limit: usize) -> Vec<OutputPiece> {
        let (id, mut after, mut pieces) = (id.to_string(), 0, Vec::new());
        loop {
            let path = format!("/api/v1/executions/{id}/output?limit={limit}&after={after}{query}");
            let page: OutputPage = self.get(&path).await.accepted().json();
            assert!(page.items.len() <= limit, "{} of {limit}", page.items.len());
            after = page.next_after;
            let is_last = page.items.is_empty() || page.end;
            pieces.extend(page.items);
            if is_last {
                return pieces;
            }
        }
    }

    /// The bytes of one stream of one target.
    pub async fn output(&self, id: impl ToString, target: &str, stream: Stream) -> Vec<u8> {
        let query = format!("&target={target}&stream={}", stream.as_str());
        bytes(&self.pieces(id, &query, 1000).await)
    }

    /// The standard output of the only target, as text.
    pub async fn stdout(&self, finished: &Finished) -> String {
        let whole = self.whole(finished.id()).await;
        let bytes = self.output(whole.id(), &whole.run().target, Stream::Stdout).await;
        String::from_utf8(bytes).expect("the output is UTF-8")
    }
}

/// The bytes of pieces of one stream, which must follow one another.
#[track_caller]
pub fn bytes(pieces: &[OutputPiece]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        assert_eq!(
            usize::try_from(piece.offset),
            Ok(bytes.len()),
            "a hole or a repeat at position {}",
            piece.position
        );
        match &piece.data {
            Data::Gap(missing) => panic!("a gap of {missing} bytes at {}", bytes.len()),
            data => bytes.extend(plain(data)),
        }
    }
    bytes
}

/// The bytes of one piece; of a gap there are none.
pub fn plain(data: &Data) -> Vec<u8> {
    match data {
        Data::Text(text) => text.clone().into_bytes(),
        Data::Base64(text) => BASE64_STANDARD.decode(text).expect("it is base64"),
        Data::Gap(_) => Vec::new(),
    }
}
