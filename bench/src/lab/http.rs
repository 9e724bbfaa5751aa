//! A keep-alive HTTP/1.1 connection that costs next to nothing: the requests are bytes made beforehand, and of an answer
//! only the status and the length are looked at. For measuring how much the server can do on shared processors.

use std::net::SocketAddr;

use anyhow::{Context as _, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Bytes of an answer's head.
const HEAD_BYTES: usize = 16 * 1024;

/// A request as it goes over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Request(Vec<u8>);

impl Request {
    pub(crate) fn get(path: &str, token: &str) -> Self {
        Self(
            format!("GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n")
                .into_bytes(),
        )
    }

    /// One that does something, with a body of JSON.
    pub(crate) fn post(path: &str, token: &str, body: &str) -> Self {
        let length = body.len();
        Self(
            format!(
                "POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\
                 Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .into_bytes(),
        )
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// # Errors
    /// When the server cannot be reached.
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot reach {address}"))?;
        stream.set_nodelay(true).context("cannot set up the connection")?;
        Ok(Self { stream, buffer: Vec::with_capacity(HEAD_BYTES) })
    }

    /// Sends a request and reads its whole answer; how many bytes its body has.
    ///
    /// # Errors
    /// When the answer is neither a 200 nor a 201 with a length.
    pub(crate) async fn send(&mut self, request: &Request) -> anyhow::Result<usize> {
        self.stream.write_all(&request.0).await.context("cannot send a request")?;
        self.buffer.clear();
        let head = loop {
            self.read().await?;
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(self.buffer.len() <= HEAD_BYTES, "the answer's head does not end");
        };
        let body = length(&self.buffer[..head])?;
        while self.buffer.len() < head + body {
            self.read().await?;
        }
        ensure!(self.buffer.len() == head + body, "the answer is longer than it says");
        Ok(body)
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        let read = self.stream.read_buf(&mut self.buffer).await.context("cannot read an answer")?;
        ensure!(read > 0, "the server closed the connection");
        Ok(())
    }
}

fn length(head: &[u8]) -> anyhow::Result<usize> {
    let head = std::str::from_utf8(head).context("the answer's head is no text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !["HTTP/1.1 200 ", "HTTP/1.1 201 "].iter().any(|good| status.starts_with(good)) {
        bail!("the server answered '{status}'");
    }
    lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .context("the answer does not say its length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        assert_eq!(length(b"HTTP/1.1 200 OK\r\nA: b\r\ncontent-Length: 12\r\n\r\n").unwrap(), 12);
        for bad in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 404 Not Found\r\ncontent-length: 1\r\n\r\n", ""] {
            assert!(length(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
