//! Certificates that expire, in files and at a port.

use std::{
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use opsconductor_tests::{SOON, World, agent, eventually, scene};
use serde_json::json;

use super::{example, has_hosts, host::Host, run, states, step};

/// Makes a certificate with its key, `days` valid from a time that is off by `offset`.
fn certificate(host: &Host, path: &str, offset: &str, days: u32) {
    let at = host.path(path);
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-subj", "/CN=service.test", "-days", &days.to_string()])
        .arg("-keyout")
        .arg(at.with_extension("key.pem"))
        .arg("-out")
        .arg(&at)
        .envs(agent::clock(offset))
        .output()
        .expect("there is openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A server that shows a certificate, until it is dropped.
struct Server(Child);

impl Server {
    async fn start(host: &Host, certificate: &str, port: u16) -> Self {
        let at = host.path(certificate);
        let server = Command::new("openssl")
            .args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}"), "-cert"])
            .arg(&at)
            .arg("-key")
            .arg(at.with_extension("key.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is openssl");
        let server = Self(server);
        eventually(SOON, "the server listens", async || TcpStream::connect(("127.0.0.1", port)).ok()).await;
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn what_expires_is_found_in_files_and_at_ports() {
    if !has_hosts() {
        return;
    }
    let world = World::start().await;
    let hosts = [Host::start(&world, "bad").await, Host::start(&world, "good").await];
    for host in &hosts {
        std::fs::create_dir_all(host.path("/etc/nginx/site one")).expect("it can be made");
        certificate(host, "/etc/nginx/long.pem", "+0d", 400);
    }
    certificate(&hosts[0], "/etc/nginx/site one/soon.crt", "+0d", 10);
    certificate(&hosts[0], "/etc/nginx/over.pem", "-400d", 30);
    let api = world.api();
    let finished = run(&api, &example("certificate-expiry"), json!({})).await;
    assert_eq!(states(&api, &finished).await, ["bad: failed skipped", "good: succeeded skipped"]);
    let (_, said) = step(&api, &finished, "bad", "files").await;
    let line = |text: &str, path: &str| {
        assert!(
            said.lines().any(|line| line.starts_with(text) && line.ends_with(path)),
            "{text} {path}: {said}"
        );
    };
    line("EXPIRES ", ": /etc/nginx/site one/soon.crt");
    line("EXPIRED ", ": /etc/nginx/over.pem");
    line("good until ", ": /etc/nginx/long.pem");
    assert!(!said.contains("key.pem"), "a key is no certificate: {said}");
    let (_, said) = step(&api, &finished, "good", "files").await;
    assert!(said.contains("\n1 certificates, 0 expire within 30 days"), "{said}");

    // What is shown counts by itself, whatever lies in the files; and what nobody shows is told.
    let (soon, long, nobody) = (scene::free_port(), scene::free_port(), scene::free_port());
    let _soon = Server::start(&hosts[0], "/etc/nginx/site one/soon.crt", soon).await;
    let _long = Server::start(&hosts[0], "/etc/nginx/long.pem", long).await;
    let parameters = json!({
        "days": 5,
        "folders": ["/etc/nowhere"],
        "endpoints": [format!("127.0.0.1:{soon}"), format!("127.0.0.1:{long}")],
    });
    let document = super::with(&example("certificate-expiry"), "backoff_seconds: 20", "backoff_seconds: 1");
    let shown =
        run(&api, &super::with(&document, "name: certificate-expiry", "name: shown"), parameters.clone())
            .await;
    assert_eq!(states(&api, &shown).await, ["bad: succeeded succeeded", "good: succeeded succeeded"]);
    let stricter = json!({
        "days": 30,
        "folders": ["/etc/nowhere"],
        "endpoints": [format!("127.0.0.1:{soon}"), format!("127.0.0.1:{long}"), format!("127.0.0.1:{nobody}")],
    });
    let shown =
        run(&api, &super::with(&document, "name: certificate-expiry", "name: stricter"), stricter).await;
    assert_eq!(states(&api, &shown).await, ["bad: succeeded failed", "good: succeeded failed"]);
    let run = shown.runs.iter().find(|run| run.step_name.as_deref() == Some("endpoints")).expect("it ran");
    assert_eq!(run.attempt, 2, "the network may have a bad moment");
    let (_, said) = step(&api, &shown, "good", "endpoints").await;
    let told: Vec<&str> = said.lines().map(|line| line.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(told, ["EXPIRES", "good", "NO"], "{said}");
}
