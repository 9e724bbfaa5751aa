//! Sessions: access tokens, refresh tokens, cookies.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use opsconductor_tests::{
    Answer, SOON, World, eventually,
    people::{address, password_of},
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{stage, text};

async fn refresh(world: &World, token: &Value) -> Answer {
    world.stranger().post("/api/v1/auth/refresh", &json!({ "refresh_token": token })).await
}

#[tokio::test]
async fn a_refresh_token_that_is_used_twice_ends_its_session() {
    let stage = stage().await;
    let world = &stage.world;
    world.person("rotator", Some("viewer")).await;
    let first = world.log_in("rotator", &password_of("rotator"), None).await;
    let second = refresh(world, &first["refresh_token"]).await.accepted().value();
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    let third = refresh(world, &second["refresh_token"]).await.accepted().value();
    world.session(&third).get("/api/v1/whoami").await.accepted();
    // From elsewhere, at once: the thief or the owner, nobody can tell. Both are out.
    refresh(world, &second["refresh_token"]).await.refused(401, "bad_credential");
    refresh(world, &third["refresh_token"]).await.refused(401, "bad_credential");
    for tokens in [&first, &second, &third] {
        world.session(tokens).get("/api/v1/whoami").await.refused(401, "bad_credential");
    }
    let entries: i64 = sqlx::query_scalar(
        "select count(*) from audit_entries where verb = 'session.end' and outcome = 'alarm' and actor = 'rotator'",
    )
    .fetch_one(&mut world.sql().await)
    .await
    .expect("it is there");
    assert_eq!(entries, 1);
}

#[tokio::test]
async fn who_knows_only_which_session_there_is_has_no_effect_on_it() {
    let stage = stage().await;
    let world = &stage.world;
    world.person("watched", Some("viewer")).await;
    let tokens = world.log_in("watched", &password_of("watched"), None).await;
    let id = text(&tokens["session_id"]).parse().expect("an id");
    let guessed = pki::RefreshToken::new(id).reveal();
    refresh(world, &json!(guessed)).await.refused(401, "bad_credential");
    refresh(world, &tokens["refresh_token"]).await.accepted();
    let alarms: i64 = sqlx::query_scalar(
        "select count(*) from audit_entries where outcome = 'alarm' and actor = 'watched'",
    )
    .fetch_one(&mut world.sql().await)
    .await
    .expect("it counts");
    assert_eq!(alarms, 0);
}

#[tokio::test]
async fn an_answer_that_was_lost_may_be_asked_for_again_at_once() {
    let stage = stage().await;
    let world = &stage.world;
    world.person("unlucky", Some("viewer")).await;
    let client = world.stranger();
    let login = json!({ "user": "unlucky", "password": password_of("unlucky") });
    let first = client.post("/api/v1/auth/login", &login).await.accepted().value();
    let ask =
        async |token: &Value| client.post("/api/v1/auth/refresh", &json!({ "refresh_token": token })).await;
    ask(&first["refresh_token"]).await.accepted();
    let again = ask(&first["refresh_token"]).await.accepted().value();
    // Later it is a reuse like any other.
    sqlx::query("update login_sessions set rotated_at = rotated_at - interval '11 s' where id = $1::uuid")
        .bind(text(&first["session_id"]))
        .execute(&mut world.sql().await)
        .await
        .expect("the owner may");
    let last = ask(&again["refresh_token"]).await.accepted().value();
    sqlx::query("update login_sessions set rotated_at = rotated_at - interval '11 s' where id = $1::uuid")
        .bind(text(&first["session_id"]))
        .execute(&mut world.sql().await)
        .await
        .expect("the owner may");
    ask(&again["refresh_token"]).await.refused(401, "bad_credential");
    ask(&last["refresh_token"]).await.refused(401, "bad_credential");
}

#[tokio::test]
async fn of_a_hundred_at_once_from_elsewhere_one_wins_and_the_session_ends() {
    let stage = stage().await;
    let world = &stage.world;
    world.person("raced", Some("viewer")).await;
    let tokens = world.log_in("raced", &password_of("raced"), None).await;
    let tries = (0..100).map(|_| {
        let (api, request) = (world.stranger(), json!({ "refresh_token": tokens["refresh_token"] }));
        tokio::spawn(async move { api.post("/api/v1/auth/refresh", &request).await })
    });
    let answers: Vec<Answer> = futures_util::future::join_all(tries)
        .await
        .into_iter()
        .map(|answer| answer.expect("it does not panic"))
        .collect();
    let won: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(won.len(), 1, "{} won", won.len());
    refresh(world, &won[0].value()["refresh_token"]).await.refused(401, "bad_credential");
}

#[tokio::test]
async fn forged_access_tokens_open_nothing() {
    let stage = stage().await;
    let world = &stage.world;
    world.person("victim", Some("administrator")).await;
    let tokens = world.log_in("victim", &password_of("victim"), None).await;
    let good = text(&tokens["access_token"]).to_owned();
    world.api_as(&good).get("/api/v1/whoami").await.accepted();
    let parts: Vec<&str> = good.split('.').collect();
    let decode = |part: &str| -> Value {
        serde_json::from_slice(&BASE64.decode(part).expect("base64")).expect("JSON")
    };
    let (header, claims) = (decode(parts[0]), decode(parts[1]));
    let public: Vec<u8> = sqlx::query_scalar("select public_key from access_keys where id = $1::uuid")
        .bind(text(&header["kid"]))
        .fetch_one(&mut world.sql().await)
        .await
        .expect("its row is there");
    let encode = |value: &Value| BASE64.encode(value.to_string());
    let with = |value: &Value, key: &str, to: Value| {
        let mut value = value.clone();
        value[key] = to;
        value
    };
    let hs256 = {
        let message = format!("{}.{}", encode(&with(&header, "alg", json!("HS256"))), parts[1]);
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &public);
        format!("{message}.{}", BASE64.encode(aws_lc_rs::hmac::sign(&key, message.as_bytes())))
    };
    // Signed with a key of the attacker's own, which he wrote into the database.
    let mine = pki::access_token::AccessKey::generate(uuid::Uuid::now_v7());
    sqlx::query(
        "insert into access_keys (id, public_key, created_at, expires_at, signature, certificate)
         select $1, $2, now(), now() + interval '1 day', signature, certificate from access_keys limit 1",
    )
    .bind(mine.id())
    .bind(mine.public_key())
    .execute(&mut world.sql().await)
    .await
    .expect("the owner may");
    let claims_of: pki::access_token::Claims =
        serde_json::from_value(claims.clone()).expect("they are claims");
    let unknown = pki::access_token::AccessKey::generate(uuid::Uuid::now_v7());
    let forged = [
        format!("{}.{}.", encode(&with(&header, "alg", json!("none"))), parts[1]),
        hs256,
        format!("{}.{}.{}", encode(&with(&header, "kid", json!(uuid::Uuid::now_v7()))), parts[1], parts[2]),
        format!("{}.{}.{}", encode(&with(&header, "kid", json!("../../etc/passwd"))), parts[1], parts[2]),
        format!("{}.{}.{}", encode(&with(&header, "jwk", json!({ "kty": "OKP" }))), parts[1], parts[2]),
        format!("{}.{}.{}", parts[0], encode(&with(&claims, "exp", json!(9_999_999_999_i64))), parts[2]),
        format!("{}.{}.{}", parts[0], encode(&with(&claims, "aud", json!("else"))), parts[2]),
        mine.sign(&claims_of),
        unknown.sign(&claims_of),
        good.replace('.', ".."),
        format!("{good}.{}", parts[2]),
    ];
    for token in forged {
        world.api_as(&token).get("/api/v1/whoami").await.refused(401, "bad_credential");
    }
    // Twice the header is none.
    let api = world.stranger();
    let twice = api
        .request(Method::GET, "/api/v1/whoami")
        .header("authorization", format!("Bearer {good}"))
        .header("authorization", format!("Bearer {good}"));
    let status = api.send(twice).await.status;
    assert!(matches!(status, 400 | 401), "{status}");
}

#[tokio::test]
async fn a_session_that_is_ended_opens_nothing_more_on_any_controller() {
    let world = World::builder().impatient().start().await;
    let peer = world.second_controller().await;
    let watches = (world.watch(), peer.watch());
    let api = world.person("traveller", Some("viewer")).await;
    // A token of one controller's counts with the other.
    let there = peer.api_as(api.token().expect("it has one"));
    there.get("/api/v1/whoami").await.accepted();
    let sessions = api.get("/api/v1/auth/sessions").await.accepted().value();
    let current = sessions.as_array().expect("a list").iter().find(|session| session["current"] == true);
    let id = text(&current.expect("it is there")["id"]).to_owned();
    api.delete(&format!("/api/v1/auth/sessions/{id}")).await.accepted();
    api.get("/api/v1/whoami").await.refused(401, "bad_credential");
    eventually(Duration::from_secs(3), "the other controller knows", async || {
        (there.get("/api/v1/whoami").await.status == 401).then_some(())
    })
    .await;

    // The same with what somebody may.
    let api = world.person("demoted", Some("viewer")).await;
    let there = peer.api_as(api.token().expect("it has one"));
    there.get("/api/v1/agents").await.accepted();
    world.administrator().await.delete("/api/v1/users/demoted").await.accepted();
    api.get("/api/v1/agents").await.refused(401, "bad_credential");
    eventually(Duration::from_secs(3), "the other controller knows", async || {
        (there.get("/api/v1/agents").await.status == 401).then_some(())
    })
    .await;
    drop(watches);
}

#[tokio::test]
async fn a_browser_has_cookies_that_only_our_own_pages_may_use() {
    let stage = stage().await;
    let world = &stage.world;
    world.person("surfer", Some("operator")).await;
    let api = world.stranger();
    let login = json!({ "user": "surfer", "password": password_of("surfer"), "cookies": true });
    let answer = api.post("/api/v1/auth/login", &login).await.accepted();
    assert!(answer.value().get("access_token").is_none() && answer.value().get("refresh_token").is_none());
    let cookies: Vec<String> = answer
        .headers
        .get_all("set-cookie")
        .iter()
        .map(|value| value.to_str().expect("text").to_owned())
        .collect();
    assert_eq!(cookies.len(), 2);
    for cookie in &cookies {
        assert!(cookie.starts_with("__Host-opsc-"), "{cookie}");
        for part in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict"] {
            assert!(cookie.contains(part), "{cookie}");
        }
    }
    let pairs: Vec<&str> = cookies.iter().map(|cookie| cookie.split(';').next().expect("a pair")).collect();
    let jar = pairs.join("; ");
    let send = async |method: Method, path: &str, headers: &[(&str, &str)], body: Option<Value>| {
        let api = world.api_as_nobody().from(address());
        let mut request = api.request(method, path).header("cookie", &jar);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        api.send(request).await
    };
    let own = format!("http://{}", world.http());
    let ours = [("origin", own.as_str()), ("sec-fetch-site", "same-origin")];
    let foreign = [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")];
    send(Method::GET, "/api/v1/whoami", &[], None).await.accepted();
    let token = json!({ "name": "by-cookie", "ttl_seconds": 60 });
    send(Method::POST, "/api/v1/tokens", &ours, Some(token.clone())).await.accepted();
    for headers in [&foreign[..], &[], &[("origin", "null")], &[("sec-fetch-site", "same-site")]] {
        let answer = send(Method::POST, "/api/v1/tokens", headers, Some(token.clone())).await;
        answer.refused(401, "bad_credential");
    }
    send(Method::GET, "/api/v1/whoami", &foreign, None).await.refused(401, "bad_credential");
    // The refresh too.
    let refresh = "/api/v1/auth/refresh";
    send(Method::POST, refresh, &foreign, Some(json!({}))).await.refused(401, "bad_credential");
    let answer = send(Method::POST, refresh, &ours, Some(json!({}))).await.accepted();
    assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
    assert!(answer.value().get("access_token").is_none());
}

#[tokio::test]
async fn what_ended_is_forgotten_and_a_logout_ends_it() {
    let stage = stage().await;
    let world = &stage.world;
    let api = world.person("leaver", Some("viewer")).await;
    let token = api.post("/api/v1/tokens", &json!({ "name": "kept" })).await.accepted().value();
    api.act("/api/v1/auth/logout").await.accepted();
    api.get("/api/v1/whoami").await.refused(401, "bad_credential");
    // An API token is no session: it goes on, and cannot log out or change how one enters.
    let by_token = world.api_as(text(&token["token"]));
    by_token.get("/api/v1/whoami").await.accepted();
    by_token.act("/api/v1/auth/logout").await.refused(403, "needs_login");
    let used = eventually(SOON, "the use is noted", async || {
        let list = by_token.get("/api/v1/tokens").await.accepted().value();
        list["items"][0]["last_used_at"].as_str().map(str::to_owned)
    })
    .await;
    assert!(used.starts_with("20"), "{used}");
}
