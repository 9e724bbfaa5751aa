//! The HTTP client of the controller's API: requests and errors. Which answers mean what is in `exit.rs`.

use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822};
use model::{
    api::{
        auth::Tokens,
        execution::{Attempt, Execution, Run},
        job::{OutputGroup, Results},
        output::OutputPage,
        problem::Problem,
        status::Status,
        undo::Changes,
    },
    id::{ExecutionId, RunId},
    limits,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    clock,
    context::{Connection, Credential},
    pages::Pages,
    session::Session,
};

/// How long a connection may take to come about, and a whole answer to arrive.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(60);
/// Pieces of one page of output: at most 64 KiB each.
const OUTPUT_PIECES: usize = 200;
/// How often a start is sent again, with the same key, when it is not known whether it arrived.
const START_ATTEMPTS: u32 = 5;

/// Why the controller did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot reach the controller at {addr}: {reason}")]
    Unreachable {
        addr: String,
        /// The innermost cause; what lies between says nothing to people.
        reason: String,
        /// The request may have arrived.
        sent: bool,
    },
    #[error("{}", describe(.0))]
    Problem(Box<Problem>),
    /// The credential is not enough. What would be, if it is a login, follows in `how`.
    #[error("{why}{}", how.as_deref().unwrap_or_default())]
    LogIn { why: String, how: Option<String> },
    #[error("the login cannot be renewed")]
    Contexts(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{addr} answered with status {status}, but not as a controller does")]
    Foreign { addr: String, status: u16 },
    #[error("the controller at {addr} answered in a way that this program does not understand: {reason}")]
    Decode { addr: String, reason: String },
    #[error("the command may have been started; look with: opsctl execution list")]
    Unanswered(#[source] Box<Error>),
}

impl Error {
    /// The same request may succeed a little later.
    pub(crate) fn is_transient(&self) -> bool {
        let status = match self {
            Self::Unreachable { .. } => return true,
            Self::Decode { .. } | Self::Unanswered(_) | Self::LogIn { .. } | Self::Contexts(_) => {
                return false;
            }
            Self::Problem(problem) if problem.code == "still_running" => return true,
            Self::Problem(problem) => problem.status,
            Self::Foreign { status, .. } => *status,
        };
        status == 429 || status >= 500
    }

    /// The controller may have done what was asked for, and not said so.
    pub(crate) fn is_unanswered(&self) -> bool {
        match self {
            Self::Unreachable { sent, .. } => *sent,
            Self::Decode { .. } | Self::Unanswered(_) => true,
            Self::Foreign { status, .. } => *status >= 500,
            Self::Problem(_) | Self::LogIn { .. } | Self::Contexts(_) => false,
        }
    }

    /// Of a request with a password of somebody who has logged in: it is the password that is wrong.
    pub(crate) fn of_password(self) -> Self {
        match self {
            Self::LogIn { why, .. } => Self::LogIn { why, how: None },
            error => error,
        }
    }

    /// What was wrong with the file of contexts while a session was renewed.
    pub(crate) fn contexts(error: anyhow::Error) -> Self {
        Self::Contexts(error.into())
    }
}

fn describe(problem: &Problem) -> String {
    let mut text = if problem.detail.is_empty() { problem.title.clone() } else { problem.detail.clone() };
    if let Some(field) = problem.field.as_deref().filter(|field| !text.contains(*field)) {
        text = format!("{field}: {text}");
    }
    if problem.status >= 500 && !problem.request_id.is_empty() {
        text = format!("{text} (request {})", problem.request_id);
    }
    text
}

/// When the controller answered, by its own clock.
fn at(response: &Response) -> Option<Timestamp> {
    let date = response.headers().get(header::DATE)?.to_str().ok()?;
    rfc2822::DateTimeParser::new().parse_timestamp(date).ok()
}

/// A connection to one controller. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    credential: Option<Credential>,
}

impl Client {
    /// # Errors
    /// When the certificates of a private CA cannot be read.
    pub(crate) fn new(connection: &Connection) -> anyhow::Result<Self> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("opsctl/", env!("CARGO_PKG_VERSION")));
        if connection.is_loopback() {
            builder = builder.no_proxy();
        }
        if let Some(pem) = connection.read_ca()? {
            builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem)?);
        } else if connection.addr.scheme() == "http" {
            // A host without any CA certificates must still be able to speak plain HTTP.
            builder = builder.tls_certs_only([]);
        }
        let credential = connection.credential.clone();
        Ok(Self { http: builder.build()?, base: connection.addr.clone(), credential })
    }

    pub(crate) fn addr(&self) -> &Url {
        &self.base
    }

    /// Address of the controller, as errors and hints show it.
    pub(crate) fn shown_addr(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// # Errors
    /// As every request.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&'static str, String)],
    ) -> Result<T, Error> {
        let response = self.send(self.request(Method::GET, path).query(query).timeout(ANSWER)).await?;
        self.decode(self.accepted(response).await?).await
    }

    /// # Errors
    /// As every request.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let response = self.send(self.request(Method::POST, path).json(body).timeout(ANSWER)).await?;
        self.decode(self.accepted(response).await?).await
    }

    /// # Errors
    /// As every request.
    pub(crate) async fn put<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let response = self.send(self.request(Method::PUT, path).json(body).timeout(ANSWER)).await?;
        self.decode(self.accepted(response).await?).await
    }

    /// Enters, or goes on: a POST without the credential that answers with the tokens of a session.
    ///
    /// # Errors
    /// As every request.
    pub(crate) async fn enter(&self, path: &[&str], body: &impl Serialize) -> Result<Session, Error> {
        let request = self.request(Method::POST, path).json(body).timeout(ANSWER);
        let response = request.send().await.map_err(|error| self.broken(&error))?;
        let response = self.accepted(response).await?;
        let answered = at(&response);
        let tokens: Tokens = self.decode(response).await?;
        Session::of(tokens, answered, clock::now())
            .ok_or_else(|| self.undecodable(&"there are no tokens in it"))
    }

    /// Goes on in another organization, with the session.
    ///
    /// # Errors
    /// As every request, and when the credential is no session.
    pub(crate) async fn enter_organization(&self, name: &str) -> Result<Session, Error> {
        match &self.credential {
            Some(Credential::Session(keeper)) => keeper.enter(self, name).await,
            _ => Err(self.log_in("this needs a login: an API token is of one organization".to_owned())),
        }
    }

    /// A POST that needs no body.
    ///
    /// # Errors
    /// As every request.
    pub(crate) async fn act<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Error> {
        let response = self.send(self.request(Method::POST, path).timeout(ANSWER)).await?;
        self.decode(self.accepted(response).await?).await
    }

    /// # Errors
    /// As every request.
    pub(crate) async fn delete(&self, path: &[&str]) -> Result<(), Error> {
        let response = self.send(self.request(Method::DELETE, path).timeout(ANSWER)).await?;
        self.accepted(response).await.map(drop)
    }

    /// Starts an execution. When the connection breaks and nobody can know whether the request arrived, it is sent
    /// again with the same key, which starts nothing twice.
    ///
    /// # Errors
    /// As every request; [`Error::Unanswered`] when it may have been started all the same.
    pub(crate) async fn start(&self, path: &[&str], body: &impl Serialize) -> Result<Execution, Error> {
        let key = clock::idempotency_key();
        let mut attempt = 1;
        let mut unanswered = false;
        loop {
            let request =
                self.request(Method::POST, path).header("Idempotency-Key", &key).json(body).timeout(ANSWER);
            let answer = match self.send(request).await {
                Ok(response) => match self.accepted(response).await {
                    Ok(response) => self.decode(response).await,
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            let error = match answer {
                Ok(execution) => return Ok(execution),
                Err(error) => error,
            };
            unanswered |= error.is_unanswered();
            let is_away = attempt == 1 && matches!(error, Error::Unreachable { sent: false, .. });
            if is_away || !error.is_transient() || attempt == START_ATTEMPTS {
                return Err(if unanswered { Error::Unanswered(Box::new(error)) } else { error });
            }
            tokio::time::sleep(clock::jittered(Duration::from_millis(200 << attempt))).await;
            attempt += 1;
        }
    }

    /// # Errors
    /// As every request.
    pub(crate) async fn execution(&self, id: ExecutionId) -> Result<Execution, Error> {
        self.get(&["api", "v1", "executions", &id.to_string()], &[]).await
    }

    /// Asks for the end of all of an execution's runs.
    ///
    /// # Errors
    /// As every request.
    pub(crate) async fn cancel(&self, id: ExecutionId) -> Result<Execution, Error> {
        self.act(&["api", "v1", "executions", &id.to_string(), "cancel"]).await
    }

    /// The runs of an execution, page by page.
    pub(crate) fn runs(&self, id: ExecutionId, limit: Option<u64>) -> Pages<'_, Run> {
        self.pages(&["api", "v1", "executions", &id.to_string(), "runs"], Vec::new(), limit)
    }

    /// Asks an execution of a job to `pause`, to `resume` or to `abort`.
    ///
    /// # Errors
    /// As every request.
    pub(crate) async fn steer(&self, id: ExecutionId, verb: &str) -> Result<Execution, Error> {
        self.act(&["api", "v1", "executions", &id.to_string(), verb]).await
    }

    /// What each step of a job came to on each host; only those hosts in `state`, if it is given.
    ///
    /// # Errors
    /// As every request.
    pub(crate) async fn results(&self, id: ExecutionId, state: Option<&str>) -> Result<Results, Error> {
        let path = ["api", "v1", "executions", &id.to_string(), "results"];
        let mut query = vec![("limit", limits::MAX_PAGE.to_string())];
        query.extend(state.map(|state| ("state", state.to_owned())));
        let mut whole: Results = self.get(&path, &query).await?;
        while let Some(cursor) = whole.next_cursor.take() {
            let query = [query.as_slice(), &[("cursor", cursor)]].concat();
            let page: Results = self.get(&path, &query).await?;
            whole.hosts.extend(page.hosts);
            whole.next_cursor = page.next_cursor;
        }
        Ok(whole)
    }

    /// The hosts on which an execution changed something that was not undone: all of them, or the first of `few`.
    ///
    /// # Errors
    /// As every request.
    pub(crate) async fn changes(&self, id: ExecutionId, few: Option<i64>) -> Result<Changes, Error> {
        let path = ["api", "v1", "executions", &id.to_string(), "undo"];
        let query = [("limit", few.unwrap_or(limits::MAX_PAGE).to_string())];
        let mut whole: Changes = self.get(&path, &query).await?;
        while few.is_none()
            && let Some(cursor) = whole.next_cursor.take()
        {
            let query = [query.as_slice(), &[("cursor", cursor)]].concat();
            let page: Changes = self.get(&path, &query).await?;
            whole.hosts.extend(page.hosts);
            whole.next_cursor = page.next_cursor;
        }
        Ok(whole)
    }

    /// The runs of an execution that came to the same, together.
    ///
    /// # Errors
    /// As every request.
    pub(crate) async fn groups(&self, id: ExecutionId) -> Result<Vec<OutputGroup>, Error> {
        self.get(&["api", "v1", "executions", &id.to_string(), "groups"], &[]).await
    }

    /// The tries of a run, page by page.
    pub(crate) fn attempts(&self, id: ExecutionId, run: RunId) -> Pages<'_, Attempt> {
        let path = ["api", "v1", "executions", &id.to_string(), "runs", &run.to_string(), "attempts"];
        self.pages(&path, Vec::new(), None)
    }

    /// One page of stored output; `query` narrows it down.
    ///
    /// # Errors
    /// As every request.
    pub(crate) async fn output(
        &self,
        id: ExecutionId,
        query: &[(&'static str, String)],
        after: Option<i64>,
    ) -> Result<OutputPage, Error> {
        let mut query = query.to_vec();
        query.push(("limit", OUTPUT_PIECES.to_string()));
        query.extend(after.map(|after| ("after", after.to_string())));
        self.get(&["api", "v1", "executions", &id.to_string(), "output"], &query).await
    }

    /// Opens the stream of an execution's output, behind position `after`. It has no time limit.
    ///
    /// # Errors
    /// As every request.
    pub(crate) async fn open_output(
        &self,
        id: ExecutionId,
        query: &[(&'static str, String)],
        after: Option<i64>,
    ) -> Result<Response, Error> {
        let mut request = self
            .request(Method::GET, &["api", "v1", "executions", &id.to_string(), "output"])
            .query(&[("follow", "true")])
            .query(query)
            .header(header::ACCEPT, "text/event-stream");
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        let answer = tokio::time::timeout(ANSWER, self.send(request)).await;
        let response = answer
            .unwrap_or_else(|_| Err(self.fruitless(&format!("no answer in {} s", ANSWER.as_secs()))))?;
        self.accepted(response).await
    }

    /// All of what is not JSON.
    ///
    /// # Errors
    /// As every request.
    pub(crate) async fn download_all(
        &self,
        path: &[&str],
        query: &[(&'static str, String)],
    ) -> Result<Vec<u8>, Error> {
        let response = self.download(path, query).await?;
        self.body(response).await
    }

    /// Opens a long answer that is read as it comes. It has no time limit.
    ///
    /// # Errors
    /// As every request.
    pub(crate) async fn download(
        &self,
        path: &[&str],
        query: &[(&'static str, String)],
    ) -> Result<Response, Error> {
        let response = self.send(self.request(Method::GET, path).query(query)).await?;
        self.accepted(response).await
    }

    /// A controller that is down says so with status 503 and the same document.
    ///
    /// # Errors
    /// As every request.
    pub(crate) async fn status(&self) -> Result<Status, Error> {
        let response = self.send(self.request(Method::GET, &["status"]).timeout(ANSWER)).await?;
        if response.status() != StatusCode::SERVICE_UNAVAILABLE {
            return self.decode(self.accepted(response).await?).await;
        }
        let status = response.status().as_u16();
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|_| self.refusal(status, &body))
    }

    /// A list, page by page, up to `limit` items.
    pub(crate) fn pages<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: Vec<(&'static str, String)>,
        limit: Option<u64>,
    ) -> Pages<'_, T> {
        Pages::new(self, path, query, limit)
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("an http address has a path").pop_if_empty().extend(path);
        self.http.request(method, url)
    }

    /// Sends it with the credential, which is made fresh before each request, also of those that follow for hours.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let request = match &self.credential {
            Some(Credential::ApiToken(token)) => request.bearer_auth(token.expose()),
            Some(Credential::Session(keeper)) => request.bearer_auth(keeper.access(self).await?.expose()),
            None => request,
        };
        request.send().await.map_err(|error| self.broken(&error))
    }

    /// The error of a connection that did not come about or broke.
    pub(crate) fn broken(&self, error: &reqwest::Error) -> Error {
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let reason = if error.is_timeout() { "no answer in time".to_owned() } else { cause.to_string() };
        Error::Unreachable { addr: self.shown_addr(), reason, sent: !error.is_connect() }
    }

    /// The error of a connection that came about, but to no end.
    pub(crate) fn fruitless(&self, reason: &str) -> Error {
        Error::Unreachable { addr: self.shown_addr(), reason: reason.to_owned(), sent: true }
    }

    /// The error of an answer that cannot be understood.
    pub(crate) fn undecodable(&self, reason: &impl ToString) -> Error {
        Error::Decode { addr: self.shown_addr(), reason: reason.to_string() }
    }

    /// Passes an answer on if its status is one of success.
    async fn accepted(&self, response: Response) -> Result<Response, Error> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.body(response).await?;
        Err(self.refusal(status.as_u16(), &body))
    }

    fn refusal(&self, status: u16, body: &[u8]) -> Error {
        let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
            return Error::Foreign { addr: self.shown_addr(), status };
        };
        let is_session = matches!(self.credential, Some(Credential::Session(_)));
        match problem.code.as_str() {
            "bad_credential" if is_session => self.log_in(describe(&problem)),
            "unauthenticated" | "needs_login" => self.log_in(describe(&problem)),
            _ => Error::Problem(Box::new(problem)),
        }
    }

    /// The error of a session whose context has none any more.
    pub(crate) fn logged_out(&self) -> Error {
        self.log_in("another opsctl has logged out".to_owned())
    }

    fn log_in(&self, why: String) -> Error {
        let line = format!("opsctl --addr {} login --user", self.shown_addr());
        let how = match &self.credential {
            Some(Credential::Session(keeper)) => {
                // Some of the controller's own words end so.
                let again = if why.ends_with("log in again") { " with" } else { "; log in again with" };
                format!("{again}: {line} {} --context {}", keeper.user, keeper.context)
            }
            _ => format!("; log in with: {line} NAME"),
        };
        Error::LogIn { why, how: Some(how) }
    }

    /// An answer without content reads as `null`.
    async fn decode<T: DeserializeOwned>(&self, response: Response) -> Result<T, Error> {
        let is_empty = response.status() == StatusCode::NO_CONTENT;
        let body = if is_empty { b"null".to_vec() } else { self.body(response).await? };
        serde_json::from_slice(&body).map_err(|error| self.undecodable(&error))
    }

    async fn body(&self, response: Response) -> Result<Vec<u8>, Error> {
        response.bytes().await.map(Vec::from).map_err(|error| self.broken(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_without_an_answer_may_have_been_taken() {
        let addr = || "http://x".to_owned();
        let away = |sent| Error::Unreachable { addr: addr(), reason: "reset".to_owned(), sent };
        assert!(away(true).is_unanswered());
        assert!(!away(false).is_unanswered());
        assert!(Error::Foreign { addr: addr(), status: 504 }.is_unanswered(), "a proxy gave up");
        assert!(!Error::Foreign { addr: addr(), status: 404 }.is_unanswered());
        assert!(Error::Decode { addr: addr(), reason: "EOF".to_owned() }.is_unanswered());
        assert!(!Error::Unanswered(Box::new(away(true))).is_transient());
    }
}
