//! The people's door as a browser and as an attacker meet it: headers, other sites, TLS, and bounds on all that comes in.

use std::{net::SocketAddr, path::Path, time::Duration};

use model::limits;
use nix::sys::signal::Signal;
use opsconductor_tests::{Api, SOON, Stage, World, eventually, stage::Visit};
use reqwest::{Certificate, Client, Method};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::OnceCell,
};

use crate::access::api_token;

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Visit {
    Stage::shared(&STAGE, &[]).await
}

#[tokio::test]
async fn every_answer_has_the_headers() {
    let stage = stage().await;
    let (api, nobody) = (stage.world.api(), stage.world.api_as_nobody());
    for (answer, status) in [
        (nobody.get("/health").await, 200),
        (nobody.get("/docs/").await, 200),
        (nobody.get("/docs/swagger-ui.css").await, 200),
        (nobody.get("/nothing").await, 404),
        (api.get("/api/v1/agents").await, 200),
        (api.get("/api/v1/agents?limit=0").await, 400),
        (api.act("/health").await, 405),
    ] {
        assert_eq!(answer.status, status, "{}", answer.text());
        let said = |name: &str| answer.headers.get(name).map_or("", |value| value.to_str().expect("text"));
        for (name, want) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(said(name), want, "{name} of {status}");
        }
        let policy = said("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(said("permissions-policy").contains("camera=()"));
        assert!(["no-store", "no-cache"].contains(&said("cache-control")));
        assert_eq!(said("strict-transport-security"), "", "there is no TLS to come back with");
        assert!(!said("x-request-id").is_empty());
    }
}

/// The `Access-Control-*` headers of the answers to a preflight and to a request from `origin`.
async fn shared(api: &Api, origin: &str) -> Vec<(String, String)> {
    let preflight = api
        .request(Method::OPTIONS, "/api/v1/executions")
        .header("Origin", origin)
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "authorization");
    let read = api.request(Method::GET, "/api/v1/whoami").header("Origin", origin);
    let mut found = Vec::new();
    for request in [preflight, read] {
        for (name, value) in &api.send(request).await.headers {
            if name.as_str().starts_with("access-control-") {
                found.push((name.to_string(), value.to_str().expect("text").to_owned()));
            }
        }
    }
    found
}

#[tokio::test]
async fn other_sites_read_nothing_unless_they_are_named() {
    assert_eq!(shared(&stage().await.world.api(), "https://evil.example").await, []);

    let world = World::builder().prepare();
    world.start_controller_with(&[("OPSC_HTTP__CORS_ORIGINS", "https://console.example")]).await;
    let api = world.api();
    for origin in
        ["https://evil.example", "https://console.example.evil.example", "http://console.example", "null"]
    {
        assert_eq!(shared(&api, origin).await, [], "{origin}");
    }
    let headers = shared(&api, "https://console.example").await;
    let said = |name: &str| headers.iter().filter(|(found, _)| found == name).collect::<Vec<_>>();
    assert_eq!(said("access-control-allow-origin").len(), 2, "{headers:?}");
    assert!(
        said("access-control-allow-origin").iter().all(|(_, origin)| origin == "https://console.example")
    );
    assert_eq!(said("access-control-allow-methods").len(), 1, "{headers:?}");
    assert!(said("access-control-allow-credentials").is_empty(), "{headers:?}");
    let answer = api.send(api.request(Method::GET, "/health")).await;
    assert_eq!(answer.headers["vary"], "origin", "a cache must not mix them up");
}

/// A client that trusts the certificates of `pem` alone.
fn client(pem: &[u8]) -> Client {
    pki::install_provider();
    let roots = Certificate::from_pem_bundle(pem).expect("it is PEM");
    Client::builder().no_proxy().tls_certs_only(roots).tls_info(true).build().expect("a client")
}

/// The leaf of the certificate that the door shows to this client, which must believe it.
async fn leaf(client: &Client, address: SocketAddr) -> Option<Vec<u8>> {
    let url = format!("https://localhost:{}/health", address.port());
    // A connection of its own: one that is kept keeps its certificate.
    let request = client.get(url).header("Connection", "close");
    let response = request.timeout(Duration::from_secs(5)).send().await.ok()?;
    assert_eq!(response.headers()["strict-transport-security"], "max-age=31536000");
    let info = response.extensions().get::<reqwest::tls::TlsInfo>()?.peer_certificate()?.to_vec();
    Some(info)
}

async fn shows(client: &Client, address: SocketAddr) -> Vec<u8> {
    eventually(SOON * 2, "the door has TLS", async || leaf(client, address).await).await
}

#[tokio::test]
async fn the_own_authority_serves_the_door_and_renews_by_itself() {
    let world = World::start().await;
    world.stop_controller();
    world.run_controller_with(&[
        ("OPSC_HTTP__TLS", "internal"),
        ("OPSC_HTTP__NAMES", "localhost, 127.0.0.1"),
        ("OPSC_HTTP__CERTIFICATE_LIFE", "4s"),
    ]);
    let _watch = world.watch();
    let root = world.data().join("ca/root.pem");
    eventually(SOON * 2, "the authority is there", async || root.exists().then_some(())).await;
    let pem = std::fs::read(&root).expect("it is there");
    let (mut trusting, http) = (client(&pem), world.http());
    let first = shows(&trusting, http).await;
    eventually(SOON, "another certificate without a restart", async || {
        // A client of its own each time: it must not resume.
        trusting = client(&pem);
        leaf(&trusting, http).await.filter(|leaf| *leaf != first)
    })
    .await;
    let stranger = World::builder().prepare().http();
    assert_ne!(stranger, http);
    let distrusting = Client::builder().no_proxy().build().expect("a client");
    let url = format!("https://localhost:{}/health", http.port());
    assert!(distrusting.get(&url).send().await.is_err(), "nobody else trusts it");

    let mut opsctl = world.opsctl_command(&["--ca-file", root.to_str().expect("UTF-8"), "status"]);
    let said = opsctl
        .env("OPSC_ADDR", format!("https://localhost:{}", http.port()))
        .output()
        .await
        .expect("it runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let mut opsctl = world.opsctl_command(&["status"]);
    let said = opsctl
        .env("OPSC_ADDR", format!("https://localhost:{}", http.port()))
        .output()
        .await
        .expect("it runs");
    assert_eq!(said.status.code(), Some(3), "without the root it is not believed");

    // An agent that is led to this door by its address finds no controller there.
    let pin = pki::sha256(&rustls_root(&pem));
    let tls = pki::tls::enroll_config(pin).expect("the configuration is sound");
    opsconductor_tests::door::connect(http, tls).await.expect_err("no agent takes it for a controller");
}

fn rustls_root(pem: &[u8]) -> Vec<u8> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_slice(pem).expect("it is PEM").to_vec()
}

/// Writes a certificate for localhost, and its key, where the controller reads them; answers its PEM.
fn self_signed(certificate: &Path, key: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it can be made");
    std::fs::write(key, made.signing_key.serialize_pem()).expect("written");
    std::fs::write(certificate, made.cert.pem()).expect("written");
    made.cert.pem()
}

#[tokio::test]
async fn own_files_are_read_again_when_they_change() {
    let world = World::builder().prepare();
    let [certificate, key] = ["door.pem", "door.key"].map(|name| world.folder().join(name));
    let first = self_signed(&certificate, &key);
    world.run_controller_with(&[
        ("OPSC_HTTP__TLS_CERTIFICATE", certificate.to_str().expect("UTF-8")),
        ("OPSC_HTTP__TLS_KEY", key.to_str().expect("UTF-8")),
    ]);
    let _watch = world.watch();
    let before = shows(&client(first.as_bytes()), world.http()).await;

    // What cannot be used changes nothing.
    std::fs::write(&certificate, "nonsense").expect("written");
    world.signal_controller(Signal::SIGHUP);
    eventually(SOON, "the trouble is told", async || {
        world.controller_log().contains("the API's door keeps its certificate").then_some(())
    })
    .await;
    assert_eq!(leaf(&client(first.as_bytes()), world.http()).await, Some(before));

    let second = self_signed(&certificate, &key);
    world.signal_controller(Signal::SIGHUP);
    let after = shows(&client(second.as_bytes()), world.http()).await;
    let third = self_signed(&certificate, &key);
    assert_ne!(shows(&client(third.as_bytes()), world.http()).await, after, "without a signal, too");
}

/// Sends bytes on a connection of its own, and reads until the door closes it or there is an answer's head.
async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the door is open");
    // It may be closed before all is sent.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = async {
        let mut part = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut part).await {
            answer.extend_from_slice(&part[..count]);
            if answer.windows(4).any(|end| end == b"\r\n\r\n") && answer.ends_with(b"}") {
                break;
            }
        }
    };
    tokio::time::timeout(SOON, read).await.expect("the door answers or closes");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn heads_that_are_too_large_or_say_two_things_are_refused() {
    let stage = stage().await;
    let api = stage.world.api();
    let long = format!("/api/v1/agents?selector={}", "x".repeat(limits::HTTP_URI_BYTES));
    let problem = api.get(&long).await.refused(414, "uri_too_long");
    assert!(problem.detail.contains("HTTP_URI_BYTES"), "{problem:?}");
    let mut many = api.request(Method::GET, "/api/v1/whoami");
    for n in 0..limits::HTTP_HEADERS {
        many = many.header(format!("x-{n}"), "1");
    }
    let problem = api.send(many).await.refused(431, "headers_too_large");
    assert!(problem.detail.contains("HTTP_HEADERS"), "{problem:?}");
    let large =
        api.request(Method::GET, "/api/v1/whoami").header("Cookie", "x".repeat(limits::HTTP_HEADER_BYTES));
    let problem = api.send(large).await.refused(431, "headers_too_large");
    assert!(problem.detail.contains("HTTP_HEADER_BYTES"), "{problem:?}");

    let (address, token) = (stage.world.http(), stage.world.token());
    for name in ["Authorization", "Content-Type", "Host", "Idempotency-Key", "Last-Event-ID", "Origin"] {
        let authorization = format!("Authorization: Bearer {token}\r\n");
        let twice = match name {
            "Authorization" => authorization.clone(),
            "Host" => "Host: other\r\n".to_owned(),
            name => format!("{name}: a\r\n{name}: b\r\n"),
        };
        let head = format!("GET /api/v1/whoami HTTP/1.1\r\nHost: x\r\n{authorization}{twice}\r\n");
        let answer = raw(address, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{name}: {answer}");
        assert!(answer.contains(&format!("the header {} is there", name.to_lowercase())), "{name}: {answer}");
    }
    // Beyond what is read at all.
    let flood = format!("GET /health HTTP/1.1\r\nHost: x\r\nCookie: {}\r\n\r\n", "x".repeat(1024 * 1024));
    let answer = raw(address, flood.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    // HTTP/2 is not spoken here, so its limits need no care.
    let answer = raw(address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    api.get("/api/v1/whoami").await.accepted();
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for() {
    let stage = stage().await;
    let authorization = format!("Authorization: Bearer {}", stage.world.token());
    let body = format!(
        "POST /api/v1/events HTTP/1.1\r\nHost: x\r\n{authorization}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    for begin in ["", "GET /health HTTP/1.1\r\nHost: x\r\n", &body] {
        let mut stream = TcpStream::connect(stage.world.http()).await.expect("the door is open");
        stream.write_all(begin.as_bytes()).await.expect("it is open");
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(SOON * 2, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "still open: {begin:?}");
        let is_told = String::from_utf8_lossy(&rest).starts_with("HTTP/1.1 408");
        assert_eq!(is_told, begin.ends_with('{'), "{begin:?}: {}", String::from_utf8_lossy(&rest));
    }
}

/// The largest amount of memory that a process has had so far, in KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux tells");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

#[tokio::test]
async fn a_body_of_a_gibibyte_costs_no_memory() {
    const GIBIBYTE: usize = 1 << 30;
    let world = World::start().await;
    let (address, token) = (world.http(), world.token());
    world.api().get("/api/v1/agents").await.accepted();
    let before = peak(world.controller_pid());
    for chunked in [false, true] {
        let length = if chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {GIBIBYTE}")
        };
        let head = format!(
            "POST /api/v1/executions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\n{length}\r\n\r\n"
        );
        let mut stream = TcpStream::connect(address).await.expect("the door is open");
        stream.write_all(head.as_bytes()).await.expect("it is open");
        let (mut from, mut to) = stream.split();
        let block = vec![b' '; 1024 * 1024];
        let send = async {
            for _ in 0..GIBIBYTE / block.len() {
                let framed = async {
                    if chunked {
                        to.write_all(format!("{:x}\r\n", block.len()).as_bytes()).await?;
                    }
                    to.write_all(&block).await?;
                    if chunked { to.write_all(b"\r\n").await } else { Ok(()) }
                };
                if framed.await.is_err() {
                    break;
                }
            }
        };
        let mut answer = vec![0; 12];
        let (_, answered) = tokio::join!(send, tokio::time::timeout(SOON, from.read_exact(&mut answer)));
        answered.expect("an answer comes").expect("an answer comes");
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 413", "chunked: {chunked}");
    }
    let grown = peak(world.controller_pid()).saturating_sub(before);
    // Twice the limit of a body, and what the allocator rounds up to.
    assert!(grown < 32 * 1024, "grew by {grown} KiB");
}

#[tokio::test]
async fn connections_are_bounded_by_address() {
    let world = World::start().await;
    let connect = async |from: [u8; 4]| {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from((from, 0))).expect("all of 127/8 is here");
        socket.connect(world.http()).await.expect("the door is open")
    };
    let ask = async |stream: &mut TcpStream| {
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.ok()?;
        let mut answer = [0; 12];
        tokio::time::timeout(SOON, stream.read_exact(&mut answer)).await.expect("answered or closed").ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    };
    let mut open = Vec::new();
    for _ in 0..limits::HTTP_CONNECTIONS_PER_ADDRESS {
        let mut stream = connect([127, 0, 0, 9]).await;
        assert_eq!(ask(&mut stream).await.as_deref(), Some("HTTP/1.1 200"));
        open.push(stream);
    }
    assert_eq!(ask(&mut connect([127, 0, 0, 9]).await).await, None, "one too many is closed");
    assert_eq!(ask(&mut connect([127, 0, 0, 10]).await).await.as_deref(), Some("HTTP/1.1 200"));
    drop(open.pop());
    eventually(SOON, "a place comes free", async || ask(&mut connect([127, 0, 0, 9]).await).await).await;
    let metrics = world.api().get("/metrics").await.accepted().text();
    assert!(metrics.contains("opsc_http_connections_refused_total{limit=\"HTTP_CONNECTIONS_PER_ADDRESS\"}"));
}

#[tokio::test]
async fn no_secret_of_a_request_is_in_a_log_of_everything() {
    let world = World::builder().prepare();
    world.start_controller_with(&[("OPSC_LOG__LEVEL", "trace")]).await;
    let agent = world.agent("logged").start().await;
    let (api, token) = (world.api(), world.token());
    let secret = |place: &str| format!("s3cr3t-{place}");
    let strange =
        pki::ApiToken { id: model::id::ApiTokenId(uuid::Uuid::now_v7()), secret: pki::random().into() };
    let requests = [
        api.request(Method::GET, &format!("/api/v1/agents?selector={}", secret("query"))),
        api.request(Method::GET, &format!("/nothing?token={}", secret("nowhere"))),
        api.request(Method::GET, "/api/v1/whoami").header("Cookie", format!("session={}", secret("cookie"))),
        world.api_as(&strange.reveal()).request(Method::GET, "/api/v1/whoami"),
        world.api_as(&secret("bearer")).request(Method::GET, "/api/v1/whoami"),
        world.api_as_nobody().request(Method::GET, "/api/v1/whoami").basic_auth("me", Some(secret("basic"))),
        api.request(Method::POST, "/api/v1/executions")
            .body(secret("text"))
            .header("Content-Type", "application/json"),
        api.request(Method::POST, "/api/v1/executions").json(&json!({ secret("field"): secret("value") })),
        api.request(Method::POST, "/api/v1/executions").json(&json!({
            "targets": { "names": ["logged"] },
            "command": { "program": { "shell": "true" }, "env": { "PASSWORD": secret("env") } },
        })),
        api.request(Method::GET, "/api/v1/whoami")
            .header("Referer", format!("https://x/?{}", secret("referer"))),
    ];
    for request in requests {
        api.send(request).await;
    }
    let enroll = world.enroll_token(&json!({})).await;
    drop(agent);
    let log = world.controller_log();
    assert!(log.contains("TRACE") && log.contains("/api/v1/whoami"), "it is a log of everything");
    for bare in [&token, &enroll, &strange.reveal()] {
        let tail = &bare[bare.len() - 16..];
        assert!(!log.contains(tail), "a token is in the log");
    }
    let found: Vec<&str> = log.lines().filter(|line| line.contains("s3cr3t-")).take(5).collect();
    assert!(found.is_empty(), "{found:#?}");
}

/// Opens a stream, which must be let in.
async fn open(api: &Api, path: &str) -> reqwest::Response {
    let response = api.request(Method::GET, path).header("Accept", "text/event-stream").send().await;
    let response = response.expect("the controller answers");
    assert_eq!(response.status(), 200);
    response
}

#[tokio::test]
async fn streams_are_bounded_by_principal() {
    let stage = stage().await;
    let world = &stage.world;
    let reader = world.person("streamer", Some("viewer")).await;
    let mut streams = Vec::new();
    for _ in 0..limits::STREAMS_PER_PRINCIPAL {
        streams.push(open(&reader, "/api/v1/events?follow=true").await);
    }
    let refused = reader.get("/api/v1/events?follow=true").await;
    assert!(refused.headers.contains_key("retry-after"));
    let problem = refused.refused(429, "too_many_streams");
    assert!(problem.detail.contains("STREAMS_PER_PRINCIPAL"), "{problem:?}");
    let other = world.api_as(&api_token(world, "other-streamer", &["event.read"], "").await);
    drop(open(&other, "/api/v1/events?follow=true").await);
    drop(streams.pop());
    eventually(SOON, "a place comes free", async || {
        let request = reader.request(Method::GET, "/api/v1/events?follow=true");
        (request.send().await.ok()?.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn streams_end_soon_after_the_right_to_them() {
    let world = World::start().await;
    let _agent = world.agent("followed").start().await;
    let execution = world.api().start_shell("followed", "sleep 300").await;
    let token = api_token(&world, "follower", &["event.read", "execution.read"], "").await;
    let api = world.api_as(&token);
    let output = format!("/api/v1/executions/{}/output?follow=true", execution.id);
    let mut streams = vec![open(&api, "/api/v1/events?follow=true").await, open(&api, &output).await];
    let mut text =
        api.request(Method::GET, &format!("{output}&format=text")).send().await.expect("it answers");
    assert_eq!(text.status(), 200);
    let id = pki::ApiToken::parse(&token).expect("it is a token").id;
    sqlx::query("update api_tokens set revoked_at = now() where id = $1")
        .bind(id.0)
        .execute(&mut world.sql().await)
        .await
        .expect("the owner may");
    let within = 2 * limits::STREAM_RECHECK;
    for stream in &mut streams {
        let ended = tokio::time::timeout(within, async {
            let mut all = Vec::new();
            while let Some(part) = stream.chunk().await.expect("it ends well") {
                all.extend_from_slice(&part);
            }
            String::from_utf8(all).expect("UTF-8")
        });
        let all = ended.await.expect("the stream is cut");
        assert!(all.contains("event: error") && all.contains("bad_credential"), "{all}");
    }
    let broken = tokio::time::timeout(within, async { while let Ok(Some(_)) = text.chunk().await {} });
    broken.await.expect("the text is cut");
    world.opsctl(&["execution", "cancel", &execution.id.to_string()]).await.ended(0);
}
