//! How people get in, stay in and are let go.

mod providers;
mod rights;
mod sessions;
mod takeover;

use model::api::auth::Tokens;
use opsconductor_tests::{
    Stage, World,
    people::{address, password_of},
    stage::Visit,
    world::{ADMINISTRATOR, PASSWORD},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Visit {
    Stage::shared(&STAGE, &[]).await
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

#[tokio::test]
async fn an_installation_is_set_up_once_by_its_token() {
    let world = World::builder().prepare();
    let token_file = world.data().join("setup.token");
    world.run_controller_with(&[]);
    let watch = world.watch();
    let api = world.api_as_nobody();
    opsconductor_tests::eventually(opsconductor_tests::SOON, "the controller is ready", async || {
        api.try_get("/ready").await.filter(|answer| answer.status == 200)
    })
    .await;
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&token_file).expect("the first start writes it").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let token = std::fs::read_to_string(&token_file).expect("it is text");
    assert!(world.controller_log().contains(token.trim()), "the token is not printed");

    // Nobody gets in before, and a restart keeps the token.
    api.post("/api/v1/auth/login", &json!({ "user": "admin", "password": "admin" }))
        .await
        .refused(401, "bad_credential");
    world.kill_controller();
    world.run_controller_with(&[]);
    opsconductor_tests::eventually(opsconductor_tests::SOON, "the controller is ready", async || {
        api.try_get("/ready").await.filter(|answer| answer.status == 200)
    })
    .await;
    assert_eq!(std::fs::read_to_string(&token_file).expect("it is there"), token);

    let setup = |token: &str, user: &str, password: &str| json!({ "token": token, "organization": "acme", "user": user, "password": password });
    let strange = pki::SetupToken::new(model::id::OneTimeTokenId(uuid::Uuid::now_v7())).reveal();
    api.post("/api/v1/setup", &setup(&strange, "ada", "a long enough one"))
        .await
        .refused(401, "bad_credential");
    let short = api.post("/api/v1/setup", &setup(&token, "ada", "short")).await.refused(400, "invalid");
    assert_eq!(short.field.as_deref(), Some("password"));

    // Of many at once, one wins.
    let request = setup(&token, "Ada", "a long enough one");
    let tries = (0..8).map(|_| {
        let (api, request) = (world.api_as_nobody().from(address()), request.clone());
        tokio::spawn(async move { api.post("/api/v1/setup", &request).await })
    });
    let mut won = Vec::new();
    for answer in futures_util::future::join_all(tries).await {
        let answer = answer.expect("it does not panic");
        match answer.status {
            201 => won.push(answer.json::<Tokens>()),
            _ => drop(answer.refused(401, "bad_credential")),
        }
    }
    assert_eq!(won.len(), 1);
    let tokens = &won[0];
    assert_eq!((tokens.user.as_str(), tokens.organization.as_str()), ("ada", "acme"));
    let session = world.api_as(tokens.access_token.as_ref().expect("it has one").expose());
    let who = session.get("/api/v1/whoami").await.accepted().value();
    assert_eq!((text(&who["actor"]), text(&who["organization"])), ("ada", "acme"));
    assert!(!token_file.exists(), "the token is worth nothing, and its file is still there");
    let status = session.get("/status").await.accepted();
    assert!(status.text().contains("database"));
    drop(watch);
}

#[tokio::test]
async fn somebody_unknown_is_answered_as_somebody_with_a_wrong_password() {
    let stage = stage().await;
    let world = &stage.world;
    world.person("mallory", Some("viewer")).await;
    let login = |user: &str, password: &str| json!({ "user": user, "password": password });
    let without_id = |mut problem: Value| {
        problem["request_id"] = Value::Null;
        problem
    };
    let mut answers = Vec::new();
    for (user, password) in [
        ("mallory", "a wrong password"),
        ("nobody-at-all", "a wrong password"),
        ("", "x"),
        ("'; drop table users; --", "x"),
        ("{{7*7}}", "x"),
        ("mallory\u{0}", "x"),
    ] {
        let answer = world.stranger().post("/api/v1/auth/login", &login(user, password)).await;
        assert_eq!(answer.status, 401, "{user}: {}", answer.text());
        answers.push(without_id(answer.value()));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    // As does a disabled person, with the right password.
    world.api().act("/api/v1/users/mallory/disable").await.accepted();
    let answer =
        world.stranger().post("/api/v1/auth/login", &login("mallory", &password_of("mallory"))).await;
    assert_eq!(without_id(answer.value()), answers[0]);
    world.api().act("/api/v1/users/mallory/enable").await.accepted();
    // The name has one form.
    world.log_in(" MALLORY ", &password_of("mallory"), None).await;
}

#[tokio::test]
async fn five_failures_lock_a_name_whether_it_is_somebodys_or_not() {
    let stage = stage().await;
    let world = &stage.world;
    world.person("lockable", Some("viewer")).await;
    for name in ["lockable", "nobody-to-lock"] {
        // At once, from as many addresses.
        let tries = (0..12).map(|_| {
            let api = world.stranger();
            tokio::spawn(async move {
                let request = json!({ "user": name, "password": "a wrong password" });
                api.post("/api/v1/auth/login", &request).await.status
            })
        });
        let mut statuses = Vec::new();
        for status in futures_util::future::join_all(tries).await {
            statuses.push(status.expect("it does not panic"));
        }
        assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 5, "{name}: {statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 7, "{name}: {statuses:?}");
    }
    let right = json!({ "user": "lockable", "password": password_of("lockable") });
    let answer = world.stranger().post("/api/v1/auth/login", &right).await;
    assert!(
        answer.headers["retry-after"].to_str().expect("a number").parse::<u64>().expect("a number") > 800
    );
    answer.refused(429, "too_many_requests");
    // An administrator lets him try again, and so does the end of the 15 minutes.
    world.api().act("/api/v1/users/lockable/unlock").await.accepted();
    world.stranger().post("/api/v1/auth/login", &right).await.accepted();
    let wrong = json!({ "user": "lockable", "password": "a wrong password" });
    for _ in 0..6 {
        world.stranger().post("/api/v1/auth/login", &wrong).await;
    }
    world.stranger().post("/api/v1/auth/login", &right).await.refused(429, "too_many_requests");
    let sql = "update login_failures set first_at = first_at - interval '16 min', locked_until = locked_until - interval '16 min'
               where name = 'lockable'";
    sqlx::query(sql).execute(&mut world.sql().await).await.expect("the owner may");
    world.stranger().post("/api/v1/auth/login", &right).await.accepted();
}

#[tokio::test]
async fn an_address_may_try_twenty_times_a_minute() {
    let stage = stage().await;
    let api = stage.world.stranger();
    let mut statuses = Vec::new();
    // Of 60 at once; one more may try every three seconds.
    for _ in 0..60 {
        let request = json!({ "token": "guessed", "user": "ada", "password": "a long enough one" });
        statuses.push(api.post("/api/v1/auth/accept-invitation", &request).await.status);
    }
    let tried = statuses.iter().filter(|status| **status == 401).count();
    assert!((20..40).contains(&tried), "{statuses:?}");
    assert!(statuses[..20].iter().all(|status| *status == 401), "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 60 - tried);
}

#[tokio::test]
async fn an_invitation_lets_one_person_in_with_the_role_that_it_names() {
    let stage = stage().await;
    let world = &stage.world;
    let admin = world.administrator().await;
    let invitation =
        admin.post("/api/v1/invitations", &json!({ "role": "operator" })).await.accepted().value();
    let accept = |user: &str, password: &str| json!({ "token": invitation["token"], "user": user, "password": password });
    let path = "/api/v1/auth/accept-invitation";
    let weak =
        world.stranger().post(path, &accept("invited", "invited invited")).await.refused(400, "invalid");
    assert_eq!(weak.field.as_deref(), Some("password"));
    // Nobody takes over a name that is somebody's.
    let taken = accept(ADMINISTRATOR, "a password of my own");
    world.stranger().post(path, &taken).await.refused(401, "bad_credential");
    world.stranger().post(path, &accept("invited", &password_of("invited"))).await.accepted();
    world
        .stranger()
        .post(path, &accept("second", &password_of("second")))
        .await
        .refused(401, "bad_credential");
    let user = admin.get("/api/v1/users/invited").await.accepted().value();
    assert_eq!(user["roles"], json!(["operator"]));
    assert_eq!(text(&user["added_by"]), ADMINISTRATOR);
    // One that was deleted, or has ended, lets nobody in.
    let deleted = admin.post("/api/v1/invitations", &json!({})).await.accepted().value();
    admin.delete(&format!("/api/v1/invitations/{}", text(&deleted["id"]))).await.accepted();
    let ended = admin.post("/api/v1/invitations", &json!({})).await.accepted().value();
    sqlx::query("update one_time_tokens set expires_at = now() where id = $1::uuid")
        .bind(text(&ended["id"]))
        .execute(&mut world.sql().await)
        .await
        .expect("the owner may");
    for token in [&deleted["token"], &ended["token"]] {
        let request = json!({ "token": token, "user": "late", "password": password_of("late") });
        world.stranger().post(path, &request).await.refused(401, "bad_credential");
    }
    for (body, field) in
        [(json!({ "ttl_seconds": 1 }), "ttl_seconds"), (json!({ "role": "No Such" }), "role")]
    {
        assert_eq!(
            admin.post("/api/v1/invitations", &body).await.refused(400, "invalid").field.as_deref(),
            Some(field)
        );
    }
    admin.post("/api/v1/invitations", &json!({ "role": "no-such" })).await.refused(404, "not_found");
}

#[tokio::test]
async fn a_person_works_in_several_organizations() {
    let stage = stage().await;
    let world = &stage.world;
    let home = world.administrator().await;
    home.post("/api/v1/organizations", &json!({ "name": "branch" })).await.accepted();
    home.post("/api/v1/organizations", &json!({ "name": "branch" })).await.refused(409, "conflict");
    let tokens = world.log_in(ADMINISTRATOR, PASSWORD, Some("branch")).await;
    assert_eq!(tokens["organization"], "branch");
    let branch = world.session(&tokens);

    // Somebody known joins with the password that he has, and not with another one.
    let walker = world.person("walker", Some("viewer")).await;
    let invitation =
        branch.post("/api/v1/invitations", &json!({ "role": "operator" })).await.accepted().value();
    let accept =
        |password: &str| json!({ "token": invitation["token"], "user": "walker", "password": password });
    let path = "/api/v1/auth/accept-invitation";
    world.stranger().post(path, &accept("another password")).await.refused(401, "bad_credential");
    world.stranger().post(path, &accept(&password_of("walker"))).await.accepted();
    walker.get("/api/v1/agents").await.accepted();

    // The session goes on in the other organization, and is of that one only.
    let tokens = world.log_in("walker", &password_of("walker"), Some("main")).await;
    assert_eq!(tokens["organizations"], json!(["branch", "main"]));
    let refresh = json!({ "refresh_token": tokens["refresh_token"], "organization": "branch" });
    let there = world.stranger().post("/api/v1/auth/refresh", &refresh).await.accepted().value();
    assert_eq!(there["organization"], "branch");
    let may =
        |who: &Value| who["permissions"].as_array().expect("a list").contains(&json!("execution.create"));
    assert!(may(&world.session(&there).get("/api/v1/whoami").await.accepted().value()));
    let refresh = json!({ "refresh_token": there["refresh_token"], "organization": "nowhere" });
    world.stranger().post("/api/v1/auth/refresh", &refresh).await.refused(404, "not_found");

    // Whoever is a member elsewhere too cannot be taken over from here, but from the home organization.
    branch.act("/api/v1/users/walker/reset-password").await.refused(403, "forbidden");
    home.act("/api/v1/users/walker/reset-password").await.accepted();
    // Let go here, he stays there.
    branch.delete("/api/v1/users/walker").await.accepted();
    let tokens = world.log_in("walker", &password_of("walker"), None).await;
    assert_eq!(tokens["organizations"], json!(["main"]));
    let request = json!({ "user": "walker", "password": password_of("walker"), "organization": "branch" });
    world.stranger().post("/api/v1/auth/login", &request).await.refused(404, "not_found");
}

#[tokio::test]
async fn a_new_password_ends_what_the_old_one_opened() {
    let stage = stage().await;
    let world = &stage.world;
    let first = world.person("changer", Some("viewer")).await;
    let second = world.session(&world.log_in("changer", &password_of("changer"), None).await);
    let change = |current: &str, new: &str| json!({ "current": current, "new": new });
    let path = "/api/v1/auth/password";
    second.put(path, &change("not my password", "another long one")).await.refused(401, "bad_credential");
    let weak = second.put(path, &change(&password_of("changer"), "short")).await.refused(400, "invalid");
    assert_eq!(weak.field.as_deref(), Some("new"));
    second.put(path, &change(&password_of("changer"), "another long one")).await.accepted();
    second.get("/api/v1/whoami").await.accepted();
    first.get("/api/v1/whoami").await.refused(401, "bad_credential");

    // A reset: a token that is good once, made by somebody who may do all that the other may.
    let admin = world.administrator().await;
    let manager = world.person("manager", None).await;
    let role = json!({ "permissions": ["user.manage", "user.read", "agent.read"] });
    admin.put("/api/v1/roles/user-manager", &role).await.accepted();
    let binding = json!({ "role": "user-manager", "user": "manager" });
    admin.post("/api/v1/role-bindings", &binding).await.accepted();
    let refused = manager.act("/api/v1/users/administrator/reset-password").await.refused(403, "forbidden");
    assert!(refused.detail.contains("nobody gives"), "{refused:?}");
    let offered = admin.act("/api/v1/users/changer/reset-password").await.accepted().value();
    let again = admin.act("/api/v1/users/changer/reset-password").await.accepted().value();
    let reset = |token: &Value, password: &str| json!({ "token": token, "password": password });
    let path = "/api/v1/auth/reset-password";
    world
        .stranger()
        .post(path, &reset(&offered["token"], "a third long one"))
        .await
        .refused(401, "bad_credential");
    let named = world.stranger().post(path, &reset(&again["token"], "I am changer, hello")).await;
    named.refused(400, "invalid");
    world.stranger().post(path, &reset(&again["token"], "a third long one")).await.accepted();
    world
        .stranger()
        .post(path, &reset(&again["token"], "a fourth long one"))
        .await
        .refused(401, "bad_credential");
    second.get("/api/v1/whoami").await.refused(401, "bad_credential");
    world.log_in("changer", "a third long one", None).await;
}

#[tokio::test]
async fn everybody_may_register_only_where_that_is_configured() {
    let stage = stage().await;
    let request = json!({ "user": "passer-by", "password": "a long enough one" });
    let refused = stage.world.stranger().post("/api/v1/auth/register", &request).await.refused(403, "off");
    assert!(refused.detail.contains("invitation"), "{refused:?}");
    let world = World::builder().with_registration().start().await;
    let watch = world.watch();
    world.stranger().post("/api/v1/auth/register", &request).await.accepted();
    world.stranger().post("/api/v1/auth/register", &request).await.refused(409, "conflict");
    let api = world.session(&world.log_in("passer-by", "a long enough one", None).await);
    api.get("/api/v1/agents").await.refused(403, "forbidden");
    drop(watch);
}

#[tokio::test]
async fn a_second_factor_is_asked_for_and_each_code_counts_once() {
    let stage = stage().await;
    let world = &stage.world;
    let api = world.person("careful", Some("viewer")).await;
    let started = api.act("/api/v1/auth/totp").await.accepted().value();
    assert!(text(&started["url"]).starts_with("otpauth://totp/"), "{started}");
    let secret = base32(text(&started["secret"]));
    let code = |steps: i64| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        totp(&secret, now.as_secs() / 30 + steps.cast_unsigned())
    };
    // It does not count before it was confirmed.
    world.log_in("careful", &password_of("careful"), None).await;
    let wrong = if code(0) == "000000" { "000001" } else { "000000" };
    api.post("/api/v1/auth/totp/confirm", &json!({ "code": wrong })).await.refused(400, "invalid");
    let codes = api.post("/api/v1/auth/totp/confirm", &json!({ "code": code(0) })).await.accepted().value();
    let recovery: Vec<&str> = codes["recovery_codes"].as_array().expect("a list").iter().map(text).collect();
    assert_eq!(recovery.len(), 10);
    api.act("/api/v1/auth/totp").await.refused(409, "conflict");

    let login =
        |code: Option<&str>| json!({ "user": "careful", "password": password_of("careful"), "code": code });
    let path = "/api/v1/auth/login";
    world.stranger().post(path, &login(None)).await.refused(401, "second_factor_required");
    // The code that confirmed it was used by that.
    world.stranger().post(path, &login(Some(&code(0)))).await.refused(401, "bad_credential");
    let next = code(1);
    world.stranger().post(path, &login(Some(&next))).await.accepted();
    world.stranger().post(path, &login(Some(&next))).await.refused(401, "bad_credential");
    // Without the password the code tells nothing.
    let bad = json!({ "user": "careful", "password": "wrong", "code": recovery[0] });
    world.stranger().post(path, &bad).await.refused(401, "bad_credential");
    world.api().act("/api/v1/users/careful/unlock").await.accepted();
    world.stranger().post(path, &login(Some(recovery[0]))).await.accepted();
    world.stranger().post(path, &login(Some(recovery[0]))).await.refused(401, "bad_credential");
    world.stranger().post(path, &login(Some(&recovery[1].to_uppercase()))).await.accepted();

    let remove = |password: &str| json!({ "password": password });
    api.post("/api/v1/auth/totp/remove", &remove("wrong")).await.refused(401, "bad_credential");
    api.post("/api/v1/auth/totp/remove", &remove(&password_of("careful"))).await.accepted();
    world.log_in("careful", &password_of("careful"), None).await;
}

/// RFC 4648, without padding.
fn base32(text: &str) -> Vec<u8> {
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for letter in text.bytes() {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|known| *known == letter);
        bits = (bits << 5 | u32::try_from(value.expect("base32")).expect("below 32")) & 0xffff;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).expect("a byte"));
        }
    }
    bytes
}

/// RFC 6238 with SHA-1 and six digits.
fn totp(secret: &[u8], step: u64) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let mac = aws_lc_rs::hmac::sign(&key, &step.to_be_bytes());
    let mac = mac.as_ref();
    let offset = usize::from(mac[19] & 15);
    let bytes: [u8; 4] = mac[offset..offset + 4].try_into().expect("four bytes");
    format!("{:06}", (u32::from_be_bytes(bytes) & 0x7fff_ffff) % 1_000_000)
}
