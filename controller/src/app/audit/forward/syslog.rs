//! Syslog messages (RFC 5424). A message's text is the entry as a line of JSON; the facility is 13, log audit.

use std::{io, time::Duration};

use jiff::Timestamp;
use model::api::audit::ExportEntry;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket, UnixDatagram},
    time::timeout,
};

use crate::config::Syslog;

/// How long a server may take for a batch.
const WITHIN: Duration = Duration::from_secs(10);
/// Facility 13, and the severities notice and alert.
const NOTICE: u8 = 13 * 8 + 5;
const ALERT: u8 = 13 * 8 + 1;
/// Characters that a message's id may have.
const ID: usize = 32;

/// Sends the entries, one message each.
pub(super) async fn send(server: &Syslog, entries: Vec<ExportEntry>) -> io::Result<()> {
    timeout(WITHIN, Box::pin(deliver(server, entries)))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn deliver(server: &Syslog, entries: Vec<ExportEntry>) -> io::Result<()> {
    let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    match server {
        Syslog::Tcp(address) => {
            let mut stream = TcpStream::connect(address).await?;
            let mut bytes = Vec::new();
            for entry in entries {
                let message = message(&host, &entry);
                bytes.extend_from_slice(format!("{} ", message.len()).as_bytes());
                bytes.extend_from_slice(message.as_bytes());
            }
            stream.write_all(&bytes).await?;
            // The server has read all when it ends its side too; one that broke off has not.
            stream.shutdown().await?;
            let mut rest = Vec::new();
            stream.take(1).read_to_end(&mut rest).await.map(drop)
        }
        Syslog::Udp(address) => {
            let any =
                tokio::net::lookup_host(address).await?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
            let socket = UdpSocket::bind(if any.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await?;
            socket.connect(any).await?;
            for entry in entries {
                if let Err(error) = socket.send(message(&host, &entry).as_bytes()).await {
                    let short = shortened(error, entry)?;
                    socket.send(message(&host, &short).as_bytes()).await?;
                }
            }
            Ok(())
        }
        Syslog::Unix(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            for entry in entries {
                if let Err(error) = socket.send(message(&host, &entry).as_bytes()).await {
                    let short = shortened(error, entry)?;
                    socket.send(message(&host, &short).as_bytes()).await?;
                }
            }
            Ok(())
        }
    }
}

/// An entry that is too long for a datagram goes without its detail.
fn shortened(error: io::Error, mut entry: ExportEntry) -> io::Result<ExportEntry> {
    if error.raw_os_error() != Some(nix::libc::EMSGSIZE) {
        return Err(error);
    }
    if let Some(entry) = &mut entry.entry {
        entry.detail = json!("too long for a datagram");
    }
    Ok(entry)
}

fn message(host: &str, entry: &ExportEntry) -> String {
    let mut text = super::line(entry.clone());
    text.pop();
    let (at, verb, outcome) =
        entry.entry.as_ref().map_or((Timestamp::UNIX_EPOCH, "missing", "alarm"), |entry| {
            (entry.at, entry.verb.as_str(), entry.outcome.as_str())
        });
    let priority = if outcome == "alarm" { ALERT } else { NOTICE };
    let id: String = verb.chars().filter(char::is_ascii_graphic).take(ID).collect();
    let id = if id.is_empty() { "-" } else { &id };
    let process = std::process::id();
    let text = String::from_utf8_lossy(&text);
    // A byte order mark says that it is UTF-8.
    format!("<{priority}>1 {at:.6} {host} opsconductor {process} {id} - \u{feff}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_the_rfc_wants_it() {
        let entry = ExportEntry { seq: 7, hash: "00".to_owned(), entry: None };
        let message = message("host", &entry);
        let (head, text) = message.split_once('\u{feff}').expect("a mark");
        assert_eq!(
            head,
            format!("<105>1 1970-01-01T00:00:00.000000Z host opsconductor {} missing - ", std::process::id())
        );
        assert_eq!(text, r#"{"record":"entry","seq":7,"hash":"00","entry":null}"#);
    }
}
