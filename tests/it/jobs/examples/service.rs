//! A service that runs on several hosts and answers over HTTP whether it is well. All of it is one server here: what a host
//! asks at its own loopback address is that host's service, and `systemctl` of the host asks the same server to restart it.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
};

use opsconductor_tests::scene;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::host::Host;

/// The name by which each host knows its own.
const NAME: &str = "service.test";
/// How often it is not well after a restart.
const STARTING: u32 = 2;

#[derive(Default)]
struct State {
    /// What happened: `HOST restart`, `HOST well`, `HOST ill`.
    diary: Vec<String>,
    /// By its host: how often it will still say that it is not well.
    ill: HashMap<u8, u32>,
    /// Hosts where it never gets well behind a restart.
    broken: Vec<u8>,
}

pub(super) struct Service {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Service {
    pub(super) async fn start() -> Self {
        let port = scene::free_port();
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.expect("the port is free");
        let state = Arc::new(Mutex::new(State::default()));
        let serving = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&serving)));
            }
        });
        Self { port, state }
    }

    /// It runs on this host, as number `number`; its `systemctl` restarts it.
    pub(super) fn on(&self, host: &Host, number: u8) {
        host.write("/etc/hosts", &format!("127.0.0.1 localhost\n127.0.1.{number} {NAME}\n"));
        host.program(
            "systemctl",
            &format!("case $1 in restart) exec curl -fsS -X POST {} ;; esac", self.url()),
        );
    }

    /// Where each host asks its own.
    pub(super) fn url(&self) -> String {
        format!("http://{NAME}:{}/health", self.port)
    }

    /// Behind its next restart it never gets well there.
    pub(super) fn breaks_on(&self, number: u8) {
        self.lock().broken.push(number);
    }

    pub(super) fn diary(&self) -> Vec<String> {
        self.lock().diary.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let Ok(IpAddr::V4(at)) = stream.local_addr().map(|address| address.ip()) else { return };
    let number = at.octets()[3];
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let is_well =
        state.lock().unwrap_or_else(PoisonError::into_inner).asked(number, head.starts_with(b"POST"));
    let status = if is_well { "200 OK" } else { "503 Service Unavailable" };
    // Who asked may be gone.
    let _ = stream
        .write_all(format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").as_bytes())
        .await;
}

impl State {
    fn asked(&mut self, number: u8, to_restart: bool) -> bool {
        if to_restart {
            let starting = if self.broken.contains(&number) { u32::MAX } else { STARTING };
            self.ill.insert(number, starting);
            self.diary.push(format!("{number} restart"));
            return true;
        }
        let ill = self.ill.entry(number).or_default();
        let is_well = *ill == 0;
        *ill = ill.saturating_sub(1);
        self.diary.push(format!("{number} {}", if is_well { "well" } else { "ill" }));
        is_well
    }
}
