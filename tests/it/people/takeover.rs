//! Ways to become somebody else, or to stay when one was let go: what was left behind counts for nothing.

use opsconductor_tests::{Api, World, people::password_of, world::PASSWORD};
use serde_json::{Value, json};

use super::text;

const NEW: &str = "a new password of nobody's";

async fn keeper(world: &World, admin: &Api) -> Api {
    let role = json!({ "permissions": ["user.read", "user.manage", "agent.read"] });
    admin.put("/api/v1/roles/keeper", &role).await.accepted();
    world.person("keeper", Some("keeper")).await
}

async fn offer(by: &Api, name: &str) -> Value {
    by.act(&format!("/api/v1/users/{name}/reset-password")).await.accepted().value()["token"].clone()
}

async fn spend(world: &World, token: &Value) -> opsconductor_tests::Answer {
    world.stranger().post("/api/v1/auth/reset-password", &json!({ "token": token, "password": NEW })).await
}

/// Makes another organization; its administrator's session.
async fn elsewhere(world: &World, admin: &Api) -> Api {
    admin.post("/api/v1/organizations", &json!({ "name": "elsewhere" })).await.accepted();
    world.session(&world.log_in("administrator", PASSWORD, Some("elsewhere")).await)
}

#[tokio::test]
async fn a_token_counts_while_its_maker_may_make_it() {
    let world = World::start().await;
    let watch = world.watch();
    let admin = world.administrator().await;
    let keeper = keeper(&world, &admin).await;
    for name in ["riser", "mover", "plain"] {
        world.person(name, Some("viewer")).await;
    }
    // Somebody rises, or joins another organization, while a token for him is about.
    admin.put("/api/v1/roles/looker", &json!({ "permissions": ["agent.read"] })).await.accepted();
    for name in ["riser", "mover", "plain"] {
        let bindings = admin.get("/api/v1/role-bindings").await.accepted().value();
        let binding = bindings["items"].as_array().expect("a list").iter().find(|one| one["user"] == name);
        let id = text(&binding.expect("it is there")["id"]).to_owned();
        admin.delete(&format!("/api/v1/role-bindings/{id}")).await.accepted();
        admin.post("/api/v1/role-bindings", &json!({ "role": "looker", "user": name })).await.accepted();
    }
    let (riser, mover) = (offer(&keeper, "riser").await, offer(&keeper, "mover").await);
    admin
        .post("/api/v1/role-bindings", &json!({ "role": "administrator", "user": "riser" }))
        .await
        .accepted();
    spend(&world, &riser).await.refused(401, "bad_credential");
    let elsewhere = elsewhere(&world, &admin).await;
    let invitation = elsewhere.post("/api/v1/invitations", &json!({})).await.accepted().value();
    let accept = json!({ "token": invitation["token"], "user": "mover", "password": password_of("mover") });
    world.stranger().post("/api/v1/auth/accept-invitation", &accept).await.accepted();
    spend(&world, &mover).await.refused(401, "bad_credential");
    world.log_in("mover", &password_of("mover"), None).await;

    // What somebody made who was let go.
    let left = offer(&keeper, "plain").await;
    let invitation =
        keeper.post("/api/v1/invitations", &json!({ "role": "looker" })).await.accepted().value();
    let join = |name: &str, token: &Value| json!({ "token": token, "user": name, "password": NEW });
    let gone = admin.post("/api/v1/invitations", &json!({ "role": "looker" })).await.accepted().value();
    admin.delete("/api/v1/users/keeper").await.accepted();
    spend(&world, &left).await.refused(401, "bad_credential");
    world
        .stranger()
        .post("/api/v1/auth/accept-invitation", &join("back", &invitation["token"]))
        .await
        .refused(401, "bad_credential");
    // A role that is deleted is given to nobody, also not by a later one of its name.
    for name in ["riser", "mover", "plain"] {
        admin.delete(&format!("/api/v1/users/{name}")).await.accepted();
    }
    admin.delete("/api/v1/roles/looker").await.accepted();
    world
        .stranger()
        .post("/api/v1/auth/accept-invitation", &join("late", &gone["token"]))
        .await
        .refused(401, "bad_credential");
    drop(watch);
}

#[tokio::test]
async fn an_api_token_becomes_no_login() {
    let world = World::start().await;
    let watch = world.watch();
    world.person("ada", None).await;
    let token = world.api();
    token.act("/api/v1/users/administrator/reset-password").await.refused(403, "needs_login");
    token.act("/api/v1/users/ada/reset-password").await.refused(403, "needs_login");
    token.delete("/api/v1/users/ada/second-factor").await.refused(403, "needs_login");
    // What was done says by which credential.
    let admin = world.administrator().await;
    token.post("/api/v1/groups", &json!({ "name": "by-token" })).await.accepted();
    admin.post("/api/v1/groups", &json!({ "name": "by-login" })).await.accepted();
    let entries = admin.get("/api/v1/audit?limit=1000").await.accepted().value();
    let by = |name: &str| {
        let all = entries["items"].as_array().expect("a page");
        let mut all = all.iter().map(|item| &item["entry"]);
        let entry = all.find(|entry| entry["verb"] == "group.create" && entry["detail"]["name"] == name);
        text(&entry.expect("it is there")["detail"]["credential"]).to_owned()
    };
    assert!(by("by-token").starts_with("api-token/") && by("by-login").starts_with("session/"));
    drop(watch);
}

#[tokio::test]
async fn a_lost_second_factor_is_taken_away_by_who_may_and_by_the_machine() {
    let world = World::start().await;
    let watch = world.watch();
    let admin = world.administrator().await;
    let keeper = keeper(&world, &admin).await;
    world.person("ada", None).await;
    // As if they had one, with a key that nobody knows.
    sqlx::query(
        "update users set totp_salt = '\\x00112233445566778899aabbccddeeff00112233', totp_confirmed_at = now()
         where name in ('ada', 'administrator')",
    )
    .execute(&mut world.sql().await)
    .await
    .expect("the owner may");
    let log_in = async |name: &str, password: &str| {
        world.stranger().post("/api/v1/auth/login", &json!({ "user": name, "password": password })).await
    };
    log_in("ada", &password_of("ada")).await.refused(401, "second_factor_required");
    keeper.delete("/api/v1/users/administrator/second-factor").await.refused(403, "forbidden");
    keeper.delete("/api/v1/users/ada/second-factor").await.accepted();
    log_in("ada", &password_of("ada")).await.accepted();
    keeper.delete("/api/v1/users/ada/second-factor").await.refused(409, "conflict");

    // A password alone is noted, and counts as a failure: nobody tries passwords of who has a second factor at leisure.
    for _ in 0..5 {
        log_in("administrator", PASSWORD).await.refused(401, "second_factor_required");
    }
    log_in("administrator", PASSWORD).await.refused(429, "too_many_requests");
    let denied: i64 = sqlx::query_scalar(
        "select count(*) from audit_entries
         where actor = 'administrator' and outcome = 'denied' and detail->>'wrong' = 'second_factor_missing'",
    )
    .fetch_one(&mut world.sql().await)
    .await
    .expect("it counts");
    assert_eq!(denied, 5);

    // Nobody else can help the last administrator: the machine can.
    let rescue = |name: &str| {
        let output = world.controller_command(&["rescue", name]).output().expect("it starts");
        (
            output.status.success(),
            String::from_utf8(output.stdout).expect("text"),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (done, _, why) = rescue("nobody");
    assert!(!done && why.contains("there is no user 'nobody'"), "{why}");
    let (done, token, why) = rescue("Administrator");
    assert!(done, "{why}");
    spend(&world, &json!(token.trim())).await.accepted();
    spend(&world, &json!(token.trim())).await.refused(401, "bad_credential");
    log_in("administrator", NEW).await.accepted();
    let entries: i64 = sqlx::query_scalar("select count(*) from audit_entries where verb = 'user.rescue'")
        .fetch_one(&mut world.sql().await)
        .await
        .expect("it counts");
    assert_eq!(entries, 1);
    drop(watch);
}

#[tokio::test]
async fn what_happens_to_a_person_is_told_to_every_organization_of_hers() {
    let world = World::start().await;
    let watch = world.watch();
    let admin = world.administrator().await;
    world.person("ada", Some("viewer")).await;
    let elsewhere = elsewhere(&world, &admin).await;
    let invitation =
        elsewhere.post("/api/v1/invitations", &json!({ "role": "viewer" })).await.accepted().value();
    let accept = json!({ "token": invitation["token"], "user": "ada", "password": password_of("ada") });
    world.stranger().post("/api/v1/auth/accept-invitation", &accept).await.accepted();
    let session = world.log_in("ada", &password_of("ada"), Some("main")).await;
    let there = json!({ "refresh_token": session["refresh_token"], "organization": "elsewhere" });
    let moved = world.stranger().post("/api/v1/auth/refresh", &there).await.accepted().value();
    assert_eq!(moved["organization"], "elsewhere");
    let change = json!({ "current": password_of("ada"), "new": NEW });
    world.session(&moved).put("/api/v1/auth/password", &change).await.accepted();
    admin.act("/api/v1/users/ada/disable").await.accepted();
    for api in [&admin, &elsewhere] {
        let entries = api.get("/api/v1/audit?limit=1000").await.accepted().value();
        for verb in ["session.move", "user.password.change", "user.disable"] {
            let all = entries["items"].as_array().expect("a page").iter();
            assert_eq!(all.filter(|item| item["entry"]["verb"] == verb).count(), 1, "{verb}: {entries}");
        }
    }
    // Events tell that something was denied, and nothing of people's rights.
    let viewer = world.person("looker", Some("viewer")).await;
    world.stranger().post("/api/v1/auth/login", &json!({ "user": "looker", "password": "wrong" })).await;
    let events = viewer.get("/api/v1/events?kind=session.create").await.accepted().value();
    let denied =
        events["items"].as_array().expect("a page").iter().find(|event| event["outcome"] == "denied");
    assert_eq!(denied.expect("it is there")["data"], json!({}), "{events}");
    drop(watch);
}
