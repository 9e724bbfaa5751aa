//! A web server of the outside world: it answers as it is told, and remembers what it was asked.

use std::{
    io::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What it was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// What it says to that.
#[derive(Debug, Clone)]
pub enum Says {
    /// Status, type and body.
    Answer(u16, &'static str, String),
    /// To go elsewhere.
    Elsewhere(String),
    /// Nothing, for as long as anybody waits.
    Nothing,
}

impl Says {
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::Answer(status, "application/json", body.to_string())
    }

    pub fn text(status: u16, body: &str) -> Self {
        Self::Answer(status, "text/plain", body.to_owned())
    }
}

/// The server, on loopback; it ends with this value.
#[derive(Debug)]
pub struct WebServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl WebServer {
    /// `says` gets what is asked, and how many times something was asked before.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(says: impl Fn(&Asked, usize) -> Says + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (says, seen) = (Arc::new(says), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (says, seen) = (Arc::clone(&says), Arc::clone(&seen));
                tokio::spawn(async move {
                    // A client that goes away is no concern of a server.
                    let _ = serve(stream, &*says, &seen).await;
                });
            }
        });
        Self { address, asked, task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All that it was asked, in order.
    ///
    /// # Panics
    /// When a handler has panicked.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no holder of this lock panics").clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    says: &(dyn Fn(&Asked, usize) -> Says + Send + Sync),
    seen: &Mutex<Vec<Asked>>,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    while bytes.len() < head_end + 4 + length {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
    let body = String::from_utf8_lossy(&bytes[head_end + 4..]).into_owned();
    let asked = Asked { method: method.to_owned(), path: path.to_owned(), headers, body };
    let before = {
        let mut seen = seen.lock().expect("no holder of this lock panics");
        seen.push(asked.clone());
        seen.len() - 1
    };
    let mut answer = Vec::new();
    match says(&asked, before) {
        Says::Answer(status, kind, body) => {
            write!(
                answer,
                "HTTP/1.1 {status} Status\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n",
                body.len()
            )?;
            write!(answer, "Connection: close\r\n\r\n{body}")?;
        }
        Says::Elsewhere(to) => {
            write!(
                answer,
                "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )?;
        }
        Says::Nothing => std::future::pending().await,
    }
    stream.write_all(&answer).await?;
    stream.shutdown().await
}
