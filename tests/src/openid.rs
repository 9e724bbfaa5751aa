//! An OpenID provider on loopback: Canaille, which `make setup-tests` installs and `tests/openid/provider.py` runs. Its key
//! is made when it starts; whom it knows, and what they have consented to, lies in the scene's folder.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use reqwest::{Client, RequestBuilder, redirect::Policy};
use serde_json::{Value, json};

use crate::{
    eventually,
    process::{Process, show_log},
    scene,
};

/// How long it may take until it answers: seconds, on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long one answer may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// Pages and redirects that a login may go through.
const MOST_STEPS: usize = 12;

/// A provider that knows one client. Ends when it is dropped.
#[derive(Debug)]
pub struct OpenId {
    issuer: String,
    client_secret: String,
    http: Client,
    process: Process,
    log: PathBuf,
}

impl Drop for OpenId {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_log("OpenID provider", &self.log);
        }
    }
}

impl OpenId {
    /// Its only client, which authenticates itself by `client_secret_basic`.
    pub const CLIENT_ID: &str = "opsconductor";

    /// Starts one whose client has this redirect URI.
    ///
    /// # Panics
    /// When it is not installed, or does not answer.
    pub async fn start(redirect_uri: &str) -> Self {
        pki::install_provider();
        let (folder, port) = (scene::new_folder("openid"), scene::free_port());
        // Other when it is encoded, which OAuth wants before it becomes part of the header.
        let client_secret = format!("{:032x}:%3A", fastrand::u128(..));
        let log = folder.join("provider.log");
        let mut command = Command::new(python());
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("openid/provider.py"))
            .arg(&folder)
            .args([&port.to_string(), Self::CLIENT_ID, &client_secret, redirect_uri])
            .env_clear()
            .env("LC_ALL", "C.UTF-8");
        let mut provider = Self {
            issuer: format!("http://127.0.0.1:{port}"),
            client_secret,
            http: client(),
            process: Process::spawn(&mut command, log.clone()),
            log,
        };
        let discovery = format!("{}/.well-known/openid-configuration", provider.issuer);
        let discovery: Value = eventually(READY_WITHIN, "the OpenID provider answers", async || {
            assert_eq!(provider.process.ended(), None, "the OpenID provider ended by itself");
            provider.http.get(&discovery).send().await.ok()?.json().await.ok()
        })
        .await;
        assert_eq!(discovery["issuer"], provider.issuer);
        provider
    }

    /// `http://127.0.0.1:PORT`, as its discovery document says.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    pub fn client_secret(&self) -> &str {
        &self.client_secret
    }

    /// Makes somebody who can log in there, or gives them another password.
    pub async fn person(&self, name: &str, password: &str) {
        self.tell(&format!("people/{name}"), &json!(password)).await;
    }

    /// Exactly these are in the group from now on.
    pub async fn group(&self, name: &str, members: &[&str]) {
        self.tell(&format!("groups/{name}"), &json!(members)).await;
    }

    async fn tell(&self, path: &str, what: &Value) {
        let request = self.http.put(format!("{}/tests/{path}", self.issuer)).json(what);
        let answer = request.send().await.expect("the OpenID provider answers");
        assert_eq!(answer.status(), 204, "{path} {what}: {}", answer.text().await.unwrap_or_default());
    }

    /// Does from this authorization URL on what a person does in a new browser: logs in, and consents if asked. Where the
    /// provider sends the browser in the end; nobody goes there.
    ///
    /// # Panics
    /// When it shows a page that leads nowhere.
    pub async fn log_in(&self, authorization_url: &str, name: &str, password: &str) -> String {
        self.walk(authorization_url, [("login", name), ("password", password), ("answer", "accept")]).await
    }

    /// As [`Self::log_in`], but the person refuses consent, for which they are asked unless they have given it before.
    pub async fn log_in_and_refuse(&self, authorization_url: &str, name: &str, password: &str) -> String {
        self.walk(authorization_url, [("login", name), ("password", password), ("answer", "deny")]).await
    }

    /// Goes from page to page until one is elsewhere, with an answer to each question that a page may ask.
    async fn walk(&self, from: &str, answers: [(&str, &str); 3]) -> String {
        let mut unasked = answers.to_vec();
        let mut cookies = HashMap::new();
        let mut request = self.http.get(from);
        for _ in 0..MOST_STEPS {
            let page = Page::load(request, &mut cookies).await;
            if let Some(location) = page.location {
                let next = page.url.join(&location).expect("a redirect goes to a URL");
                if next.origin() != page.url.origin() {
                    return location;
                }
                request = self.http.get(next);
                continue;
            }
            // In this order: what is asked for last is named on other pages too.
            let asked =
                unasked.iter().position(|(name, _)| page.html.contains(&format!(r#" name="{name}""#)));
            let asked = asked.unwrap_or_else(|| panic!("{} {}: {}", page.status, page.url, text(&page.html)));
            let mut form = hidden(&page.html);
            form.push(unasked.remove(asked));
            request = self.http.post(page.url).form(&form);
        }
        panic!("more than {MOST_STEPS} pages from {from} on");
    }
}

/// What came back to a browser.
struct Page {
    url: reqwest::Url,
    status: reqwest::StatusCode,
    location: Option<String>,
    html: String,
}

impl Page {
    /// Sends a request with the browser's cookies, and keeps those that come back.
    async fn load(request: RequestBuilder, cookies: &mut HashMap<String, String>) -> Self {
        let sent: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = request.header("cookie", sent.join("; ")).send().await;
        let answer = answer.expect("the OpenID provider answers");
        let text = |header: &reqwest::header::HeaderValue| header.to_str().expect("it is text").to_owned();
        for cookie in answer.headers().get_all("set-cookie").into_iter().map(text) {
            let (name, rest) = cookie.split_once('=').expect("a cookie has a name and a value");
            let value = rest.split(';').next().unwrap_or_default();
            cookies.insert(name.to_owned(), value.to_owned());
        }
        Self {
            url: answer.url().clone(),
            status: answer.status(),
            location: answer.headers().get("location").map(text),
            html: answer.text().await.expect("the page is whole"),
        }
    }
}

/// The names and values of a page's hidden inputs.
fn hidden(html: &str) -> Vec<(&str, &str)> {
    fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
        let (_, value) = tag.split_once(&format!(r#"{name}=""#))?;
        value.split('"').next()
    }
    let inputs = html.split("<input ").skip(1).filter_map(|rest| rest.split('>').next());
    let hidden = inputs.filter(|input| attribute(input, "type") == Some("hidden"));
    hidden.filter_map(|input| Some((attribute(input, "name")?, attribute(input, "value")?))).collect()
}

/// What a page says, without its tags.
fn text(html: &str) -> String {
    let said = html.split('<').filter_map(|piece| piece.split_once('>')).map(|(_, text)| text);
    said.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

fn client() -> Client {
    Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .redirect(Policy::none())
        .timeout(ANSWERS_WITHIN)
        .build()
        .expect("the client is configured well")
}

/// The Python of the environment that `packaging/setup.sh tests` made in the target folder, where this program is too.
fn python() -> PathBuf {
    let own = std::env::current_exe().expect("a process knows its program");
    let found =
        own.ancestors().map(|folder| folder.join("openid/venv/bin/python")).find(|path| path.exists());
    found.expect("the OpenID provider is missing: run `make setup-tests` first")
}
