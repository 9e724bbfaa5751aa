//! A login in the browser: an OpenID provider lets the person in, and the browser brings a code to a port of ours (as
//! RFC 8252, section 7.3, has it for native programs).
//!
//! The code is worth nothing without the secret that stays here: whoever else sees it gets no session.

use std::{net::Ipv4Addr, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use model::{
    api::auth::{LoginProvider, RedeemLogin, Secret},
    limits,
};
use reqwest::Url;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

use crate::{client::Client, output, session::Session};

/// Bytes of the head of a request that are looked at, and how long it may take.
const HEAD_BYTES: usize = 8 * 1024;
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// Lets a person in by a provider.
///
/// # Errors
/// When there is no such provider, nobody logs in in time, or the person is not admitted.
pub(super) async fn enter(client: &Client, provider: &str, starts_browser: bool) -> Result<Session> {
    let providers: Vec<LoginProvider> = client.get(&["api", "v1", "auth", "providers"], &[]).await?;
    let Some(found) = providers.iter().find(|known| known.name == provider) else {
        let names: Vec<&str> = providers.iter().map(|known| known.name.as_str()).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        bail!("this controller has no login provider '{provider}'; it has: {known}");
    };
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("cannot listen for the browser")?;
    let verifier = BASE64.encode(pki::random::<32>());
    let mut url = Url::parse(&found.login).context("the controller names no address to log in at")?;
    url.query_pairs_mut()
        .append_pair("port", &listener.local_addr()?.port().to_string())
        .append_pair("challenge", &BASE64.encode(pki::sha256(verifier.as_bytes())));
    output::note(&format!("to log in, open this address in a browser on this machine:\n\n  {url}\n"));
    if starts_browser {
        start_browser(&url);
    }
    let code = timeout(limits::OIDC_LOGIN_WITHIN, answer(&listener)).await;
    let code = code.context("nobody has logged in in time")??;
    let request = RedeemLogin { code: Secret::new(code), verifier: Secret::new(verifier) };
    Ok(client.enter(&["api", "v1", "auth", "oidc", "redeem"], &request).await?)
}

/// The desktop's own way; where there is none, the address was shown.
fn start_browser(url: &Url) {
    let program = if cfg!(windows) { "explorer" } else { "xdg-open" };
    let mut command = std::process::Command::new(program);
    command.arg(url.as_str()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // It is not waited for, and ends by itself.
    drop(command.spawn());
}

/// The code that a browser brings. Browsers also open connections that they do not use, and ask for other things.
async fn answer(listener: &TcpListener) -> Result<String> {
    let (sender, mut receiver) = mpsc::channel(1);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("cannot listen for the browser")?;
                let sender = sender.clone();
                tokio::spawn(async move {
                    if let Ok(Some(brought)) = timeout(HEAD_WITHIN, visit(stream)).await.unwrap_or(Ok(None)) {
                        // The first one counts.
                        drop(sender.send(brought).await);
                    }
                });
            }
            Some(brought) = receiver.recv() => return brought.map_err(anyhow::Error::msg),
        }
    }
}

/// Reads one request and answers it with a page; the code or what went wrong, if it brings one of them.
async fn visit(mut stream: TcpStream) -> std::io::Result<Option<Result<String, String>>> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    let brought = brought(&String::from_utf8_lossy(&head));
    let (status, text) = match &brought {
        Some(Ok(_)) => ("200 OK", "You are logged in. You may close this page and go back to the terminal."),
        Some(Err(_)) => ("200 OK", "You are not logged in. The terminal tells why."),
        None => ("404 Not Found", "There is nothing here."),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(brought)
}

/// What a request for `/?code=…` or `/?error=…` brings.
fn brought(head: &str) -> Option<Result<String, String>> {
    let path = head.strip_prefix("GET /?")?.split(' ').next()?;
    let url = Url::parse("http://localhost/").ok().map(|mut url| {
        url.set_query(Some(path));
        url
    })?;
    let value =
        |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    match (value("code"), value("error")) {
        (_, Some(error)) => Some(Err(output::plain(&error))),
        (Some(code), None) => Some(Ok(code)),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_brings_a_code_or_a_reason() {
        for (head, want) in [
            ("GET /?code=a%2Bb HTTP/1.1\r\n\r\n", Some(Ok("a+b"))),
            ("GET /?error=not+you&code=x HTTP/1.1\r\n\r\n", Some(Err("not you"))),
            ("GET /favicon.ico HTTP/1.1\r\n\r\n", None),
            ("GET /?other=1 HTTP/1.1\r\n\r\n", None),
            ("POST /?code=x HTTP/1.1\r\n\r\n", None),
            ("GET / HTTP/1.1", None),
            ("", None),
        ] {
            let want = want.map(|brought| brought.map(str::to_owned).map_err(str::to_owned));
            assert_eq!(brought(head), want, "{head}");
        }
    }
}
