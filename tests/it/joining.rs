//! One installation, several controllers: who makes it, and how another one joins.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Output};

use opsconductor_tests::{SOON, World, eventually, postgres, process::Process};
use proto::{JoinRequest, joining_client::JoiningClient};
use tonic::Code;

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Checks that it failed with this code, said all of this, and left nothing but its lock.
#[track_caller]
fn refused(world: &World, output: &Output, code: i32, words: &[&str]) {
    let error = error(output);
    assert_eq!(output.status.code(), Some(code), "{error}");
    for word in words {
        assert!(error.contains(word), "'{word}' in: {error}");
    }
    empty(&world.data());
}

#[track_caller]
fn empty(data: &Path) {
    let left: Vec<String> = std::fs::read_dir(data)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned())
        .filter(|name| name != "controller.lock")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn two_first_starts_make_one_installation() {
    let database = postgres::migrated_database();
    let worlds = [(); 2].map(|()| World::builder().database(database.clone()).prepare());
    let mut processes: Vec<Process> = worlds
        .iter()
        .map(|world| {
            let log = world.folder().join("controller.log");
            Process::spawn(&mut world.controller_command(&["serve"]), log)
        })
        .collect();
    let loser = eventually(SOON, "one of them gives up", async || {
        let ended =
            processes.iter_mut().enumerate().find_map(|(index, process)| Some((index, process.ended()?)));
        ended.map(|(index, status)| {
            assert_eq!(status.code(), Some(4), "{}", processes[index].log());
            index
        })
    })
    .await;
    let log = processes[loser].log();
    assert!(log.contains("opsconductor-controller join"), "{log}");
    empty(&worlds[loser].data());
    let winner = &worlds[1 - loser];
    eventually(SOON, "the other one serves", async || {
        winner.api_as_nobody().try_get("/ready").await.filter(|answer| answer.status == 200)
    })
    .await;
    assert!(winner.data().join("ca/root.key").exists());
    winner.set_up().await;

    // What it was told to do works.
    let token = winner.join_token().await;
    let joined = worlds[loser].join(winner.door(), &token);
    assert!(joined.status.success(), "{}", error(&joined));
    worlds[loser].start_controller().await;
}

#[tokio::test]
async fn a_second_controller_joins_and_has_all_keys_but_the_roots() {
    let world = World::start().await;
    let peer = world.second_controller().await;
    for name in ["agents.key", "controllers.key", "root.pem", "trust-domain"] {
        let [first, second] = [&world, &peer].map(|world| world.data().join("ca").join(name));
        assert_eq!(std::fs::read(&first).expect("it is there"), std::fs::read(&second).expect("it is there"));
        let mode = std::fs::metadata(&second).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let mode = std::fs::metadata(peer.data().join("ca")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(!peer.data().join("ca/root.key").exists(), "the root's key was handed out");
    assert!(!peer.data().join("ca.new").exists());

    let own = std::fs::read_to_string(peer.data().join("controller-id")).expect("it is there");
    eventually(SOON, "both controllers are listed as alive", async || {
        let listed = world.opsctl(&["controller", "list", "-o", "json"]).await.ended(0).json();
        let listed = listed["items"].as_array().expect("a list").clone();
        let alive = listed.iter().filter(|controller| controller["is_alive"] == true).count();
        (alive == 2 && listed.iter().any(|controller| controller["id"] == own.trim())).then_some(())
    })
    .await;
    let table = world.opsctl(&["controller", "list"]).await.ended(0).text();
    assert!(table.contains("SESSIONS") && table.contains(own.trim()), "{table}");

    // It is in the audit: who made the token, and who joined with it.
    let verbs: Vec<String> =
        sqlx::query_scalar("select verb from audit_entries where verb like 'controller.%' order by at")
            .fetch_all(&mut world.sql().await)
            .await
            .expect("the owner may");
    assert_eq!(verbs, ["controller.join_token.create", "controller.join"]);
    assert!(!world.controller_log().contains("ocj1_"), "a token is in the log");

    let again = peer.join(world.door(), &world.join_token().await);
    assert_eq!(again.status.code(), Some(1), "{}", error(&again));
    assert!(
        error(&again).contains("has a certificate authority already")
            || error(&again).contains("another controller is running"),
        "{}",
        error(&again)
    );
}

#[tokio::test]
async fn what_is_not_right_joins_nothing() {
    let world = World::start().await;
    let peer = world.peer();
    let good = world.join_token().await;

    refused(&peer, &peer.join(world.door(), "ocj1_nonsense"), 2, &["join token"]);
    let other_kind = world.enroll_token(&serde_json::json!({})).await;
    refused(&peer, &peer.join(world.door(), &other_kind), 2, &["not a join token"]);

    let mut token = pki::JoinToken::parse(&good).expect("it is one");
    token.secret = pki::random().into();
    refused(&peer, &peer.join(world.door(), &token.reveal()), 4, &["not known"]);

    // Of another installation: by its database, by its token, by the controller that is asked.
    let other = World::start().await;
    let foreign = other.join_token().await;
    refused(&peer, &peer.join(other.door(), &foreign), 1, &["the token to another one"]);
    refused(&peer, &peer.join(other.door(), &good), 3, &["cannot reach the controller"]);
    let empty = World::builder().database(postgres::migrated_database()).prepare();
    refused(&empty, &empty.join(world.door(), &good), 1, &["has no installation"]);
    let embedded = World::builder().embedded().prepare();
    refused(&embedded, &embedded.join(world.door(), &good), 2, &["[database] url"]);

    // None of that spent the token. Once does.
    sqlx::query("update join_tokens set expires_at = now()")
        .execute(&mut world.sql().await)
        .await
        .expect("the owner may");
    refused(&peer, &peer.join(world.door(), &good), 4, &["has expired"]);
    let good = world.join_token().await;
    assert!(peer.join(world.door(), &good).status.success());
    let third = world.peer();
    refused(&third, &third.join(world.door(), &good), 4, &["used already"]);
}

#[tokio::test]
async fn a_call_without_a_token_gets_no_keys() {
    let world = World::start().await;
    let token = world.join_token().await;
    let good = pki::JoinToken::parse(&token).expect("it is one");
    let call = async |request: JoinRequest| {
        let tls = pki::tls::enroll_config(good.root_pin).expect("the configuration is sound");
        let channel = opsconductor_tests::door::connect(world.door(), tls).await.expect("it listens");
        JoiningClient::new(channel).join(request).await
    };
    let request = |token: &str, seal_key: Vec<u8>| JoinRequest {
        token: token.to_owned(),
        controller_id: vec![7; 16],
        seal_key,
    };
    let key = pki::SealKey::generate().public_key();
    let mut guessed = good.clone();
    guessed.secret = pki::random().into();
    let mut of_another = good.clone();
    of_another.root_pin = [0; 32];
    for (request, code) in [
        (request("", key.clone()), Code::InvalidArgument),
        (request(&guessed.reveal(), key.clone()), Code::Unauthenticated),
        (request(&of_another.reveal(), key.clone()), Code::Unauthenticated),
        // A key that nobody can open anything with. It spends nothing.
        (request(&token, vec![0; 32]), Code::InvalidArgument),
        (request(&token, Vec::new()), Code::InvalidArgument),
        (JoinRequest { controller_id: vec![1], ..request(&token, key.clone()) }, Code::InvalidArgument),
    ] {
        let status = call(request).await.expect_err("it was answered");
        assert_eq!(status.code(), code, "{status}");
    }
    // A row that no controller signed, with the hash of a secret that somebody knows.
    let forged = pki::JoinToken { id: model::id::JoinTokenId(uuid::Uuid::now_v7()), ..guessed };
    let copied = "insert into join_tokens
        select $1::uuid, org_id, $2::bytea, created_at, created_by, expires_at, signature, certificate from join_tokens limit 1";
    let inserted = sqlx::query(copied)
        .bind(forged.id.0)
        .bind(&pki::hash_secret(&forged.secret[..])[..])
        .execute(&mut world.sql().await)
        .await
        .expect("the owner may");
    assert_eq!(inserted.rows_affected(), 1);
    let status = call(request(&forged.reveal(), key.clone())).await.expect_err("a row handed out the keys");
    assert!(status.code() == Code::Unauthenticated && status.message().contains("not known"), "{status}");
    call(request(&token, key.clone())).await.expect("the token is good");
    let status = call(request(&token, key)).await.expect_err("it was answered twice");
    assert!(status.code() == Code::Unauthenticated && status.message().contains("used"), "{status}");
}

#[tokio::test]
async fn a_private_database_is_shared_with_nobody() {
    let world = World::builder().embedded().start().await;
    let problem = world.api().act("/api/v1/controllers/join-tokens").await.refused(409, "conflict");
    assert!(problem.detail.contains("[database] url"), "{problem:?}");
}
