//! Entries go to a file and to a syslog server too, and none is lost on the way.

use std::{collections::BTreeSet, path::Path, time::Duration};

use model::api::audit::ExportRecord;
use nix::sys::signal::Signal;
use opsconductor_tests::{SOON, World, eventually};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, UdpSocket, UnixDatagram},
    time::timeout,
};

use super::act;

/// The numbers of the entries in a file; a number may come twice, and a line that was broken off counts for nothing.
fn numbers(path: &Path) -> Vec<i64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(number).collect()
}

fn number(line: &str) -> Option<i64> {
    match serde_json::from_str(line).ok()? {
        ExportRecord::Entry(entry) => Some(entry.seq),
        _ => None,
    }
}

async fn has(path: &Path, last: i64) {
    eventually(SOON, "the file has the entries", async || {
        numbers(path).into_iter().collect::<BTreeSet<i64>>().contains(&last).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_file_has_each_entry_whatever_happens_to_it_and_to_the_controller() {
    let world = World::builder().with_an_empty_audit().forwarding().start().await;
    let (file, moved) = (world.folder().join("audit.log"), world.folder().join("audit.log.1"));
    act(&world, 5).await;
    has(&file, 5).await;
    // Moved away, with and without a signal.
    std::fs::rename(&file, &moved).expect("it is our folder");
    world.signal_controller(Signal::SIGHUP);
    act(&world, 5).await;
    has(&file, 10).await;
    assert_eq!(numbers(&moved), (1..=5).collect::<Vec<_>>());
    assert_eq!(numbers(&file), (6..=10).collect::<Vec<_>>());
    // Killed again and again.
    for round in 1..=3 {
        act(&world, 5).await;
        world.kill_controller();
        world.start_controller().await;
        has(&file, 10 + 5 * round).await;
    }
    let all: BTreeSet<i64> = numbers(&file).into_iter().collect();
    assert_eq!(all, (6..=25).collect());
    // What cannot be written waits.
    std::fs::remove_file(&file).expect("it is our folder");
    std::fs::create_dir(&file).expect("it is our folder");
    act(&world, 5).await;
    eventually(SOON, "the status tells of it", async || {
        let status = world.api().get("/status").await.accepted().value();
        (status["state"] == "degraded").then_some(())
    })
    .await;
    std::fs::remove_dir(&file).expect("it is our folder");
    has(&file, 30).await;
    assert_eq!(numbers(&file), (26..=30).collect::<Vec<_>>());
}

/// The number of the entry in a message, once its head was looked at.
fn of_message(message: &str) -> i64 {
    let (head, text) = message.split_once('\u{feff}').expect("a byte order mark");
    let head: Vec<&str> = head.split(' ').collect();
    assert_eq!((head[0], head[3], head[5]), ("<109>1", "opsconductor", "enroll_token.create"), "{message}");
    head[1].parse::<jiff::Timestamp>().expect("a time");
    number(text).expect("an entry")
}

#[tokio::test]
async fn syslog_servers_get_each_entry() {
    let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a port is free");
    let world = World::builder()
        .with_an_empty_audit()
        .syslog(&format!("udp://{}", udp.local_addr().expect("it has one")))
        .start()
        .await;
    act(&world, 4).await;
    let mut buffer = vec![0; 65536];
    for seq in 1..=4 {
        let length = timeout(SOON, udp.recv(&mut buffer)).await.expect("it comes soon").expect("it comes");
        assert_eq!(of_message(std::str::from_utf8(&buffer[..length]).expect("UTF-8")), seq);
    }

    let path = world.folder().join("log");
    let unix = UnixDatagram::bind(&path).expect("it is our folder");
    let world =
        World::builder().with_an_empty_audit().syslog(&format!("unix:{}", path.display())).start().await;
    act(&world, 1).await;
    let length = timeout(SOON, unix.recv(&mut buffer)).await.expect("it comes soon").expect("it comes");
    assert_eq!(of_message(std::str::from_utf8(&buffer[..length]).expect("UTF-8")), 1);
}

#[tokio::test]
async fn a_tcp_server_that_was_away_gets_what_it_missed() {
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = server.local_addr().expect("it has one");
    let world = World::builder().with_an_empty_audit().syslog(&format!("tcp://{address}")).start().await;
    act(&world, 3).await;
    // One that breaks off has read nothing for certain.
    let (broken, _) = timeout(SOON, server.accept()).await.expect("it comes soon").expect("it comes");
    let broken = broken.into_std().expect("it is a socket");
    nix::sys::socket::setsockopt(
        &broken,
        nix::sys::socket::sockopt::Linger,
        &nix::libc::linger { l_onoff: 1, l_linger: 0 },
    )
    .expect("it may");
    drop(broken);
    drop(server);
    act(&world, 3).await;
    tokio::time::timeout(SOON, async {
        let server = loop {
            if let Ok(server) = TcpListener::bind(address).await {
                break server;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let mut seen = BTreeSet::new();
        while seen.len() < 6 {
            let (mut stream, _) = server.accept().await.expect("it comes");
            let mut text = String::new();
            stream.read_to_string(&mut text).await.expect("UTF-8");
            let mut rest = text.as_str();
            while let Some((length, more)) = rest.split_once(' ') {
                let (message, more) = more.split_at(length.parse().expect("a length"));
                seen.insert(of_message(message));
                rest = more;
            }
        }
        assert_eq!(seen, (1..=6).collect());
    })
    .await
    .expect("all come soon");
}
