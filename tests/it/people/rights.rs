//! What people may do, and to which hosts.

use opsconductor_tests::{Api, SOON, World, door::Puppet, eventually, people::password_of};
use serde_json::{Value, json};
use sqlx::{Connection as _, Row as _};

use super::{stage, text};

/// A host of this name and environment that never connects.
async fn host(world: &World, name: &str, env: &str) {
    let token = world.enroll_token(&json!({ "labels": { "env": env, "team": "web" } })).await;
    Puppet::enroll(world.door(), &token, name).await;
}

fn on(selector: &str) -> Value {
    json!({ "targets": { "selector": selector }, "command": { "program": { "argv": ["true"] } } })
}

fn names(page: &Value) -> Vec<&str> {
    page["items"].as_array().expect("a list").iter().map(|item| text(&item["name"])).collect()
}

#[tokio::test]
async fn deployers_run_commands_on_staging_and_nowhere_else() {
    let world = World::start().await;
    let watch = world.watch();
    for (name, env) in [("s1", "staging"), ("s2", "staging"), ("p1", "prod"), ("p2", "prod"), ("p3", "prod")]
    {
        host(&world, name, env).await;
    }
    let admin = world.administrator().await;
    let dora = world.person("dora", None).await;
    admin.post("/api/v1/groups", &json!({ "name": "deployers" })).await.accepted();
    admin.put("/api/v1/groups/deployers/members/dora", &json!({})).await.accepted();
    let binding = json!({ "role": "operator", "group": "deployers", "hosts": "env = staging" });
    let binding = admin.post("/api/v1/role-bindings", &binding).await.accepted().value();
    assert_eq!(binding["hosts"], "env=staging");

    assert_eq!(names(&dora.get("/api/v1/agents").await.accepted().value()), ["s1", "s2"]);
    assert_eq!(names(&dora.get("/api/v1/agents?selector=team%3Dweb").await.accepted().value()), ["s1", "s2"]);
    assert_eq!(
        names(&dora.get("/api/v1/agents?selector=env%3Dprod").await.accepted().value()),
        Vec::<&str>::new()
    );
    let path = "/api/v1/executions";
    let staging = dora.post(path, &on("env=staging")).await.accepted().value();
    // Never a silent part: refused, with the number.
    let refused = dora.post(path, &on("team=web")).await.refused(403, "out_of_scope");
    assert!(refused.detail.contains("3 of the 5 hosts"), "{refused:?}");
    let all = json!({ "targets": { "all": true }, "command": { "program": { "argv": ["true"] } } });
    dora.post(path, &all).await.refused(403, "out_of_scope");
    let named =
        json!({ "targets": { "names": ["s1", "p1"] }, "command": { "program": { "argv": ["true"] } } });
    let refused = dora.post(path, &named).await.refused(403, "out_of_scope");
    assert!(refused.detail.contains("1 of the 2 hosts"), "{refused:?}");

    // An execution is seen whole or not at all.
    let both = admin.post(path, &on("team=web")).await.accepted().value();
    let list = dora.get(path).await.accepted().value();
    let ids: Vec<&str> =
        list["items"].as_array().expect("a list").iter().map(|item| text(&item["id"])).collect();
    assert_eq!(ids, [text(&staging["id"])]);
    let foreign = format!("{path}/{}", text(&both["id"]));
    for what in ["", "/runs", "/output"] {
        dora.get(&format!("{foreign}{what}")).await.refused(404, "not_found");
    }
    dora.act(&format!("{foreign}/cancel")).await.refused(404, "not_found");
    dora.act(&format!("{path}/{}/cancel", text(&staging["id"]))).await.accepted();
    dora.act("/api/v1/agents/p1/drain").await.refused(404, "not_found");
    dora.act("/api/v1/agents/s1/drain").await.accepted();
    dora.act("/api/v1/agents/s1/revoke").await.refused(403, "forbidden");

    // Why: for oneself, and by whoever may read roles for others.
    let why = |host: &str| format!("/api/v1/auth/can-i?permission=execution.create&host={host}");
    let verdict = dora.get(&why("s1")).await.accepted().value();
    assert_eq!((&verdict["allowed"], &verdict["bindings"][0]["group"]), (&json!(true), &json!("deployers")));
    dora.get(&why("p1")).await.refused(404, "not_found");
    let verdict = admin.get(&format!("{}&as=dora", why("p1"))).await.accepted().value();
    assert_eq!(verdict["allowed"], false);
    assert!(text(&verdict["bindings"][0]["why_not"]).contains("not among"), "{verdict}");
    dora.get(&format!("{}&as=administrator", why("s1"))).await.refused(403, "forbidden");
    admin.get(&format!("{}&as=nobody-here", why("s1"))).await.refused(404, "not_found");

    // Taken away, it is gone.
    admin.delete("/api/v1/groups/deployers/members/dora").await.accepted();
    dora.post(path, &on("env=staging")).await.refused(403, "forbidden");
    drop(watch);
}

#[tokio::test]
async fn scopes_look_at_labels_and_say_what_is_wrong() {
    let stage = stage().await;
    let admin = stage.world.administrator().await;
    stage.world.person("scopable", None).await;
    for (body, field, what) in [
        (json!({ "role": "operator", "user": "scopable", "hosts": "name=web-1" }), "hosts", "labels only"),
        (json!({ "role": "operator", "user": "scopable", "hosts": "os=linux" }), "hosts", "labels only"),
        (json!({ "role": "operator", "user": "scopable", "hosts": "env=" }), "hosts", "character 5"),
        (
            json!({ "role": "operator", "user": "scopable", "hosts": "x".repeat(5000) }),
            "hosts",
            "SELECTOR_BYTES",
        ),
        (json!({ "role": "operator" }), "user", "one of the three"),
        (json!({ "role": "operator", "user": "scopable", "group": "g" }), "user", "one of the three"),
        (json!({ "role": "Operator", "user": "scopable" }), "role", "lower-case"),
    ] {
        let refused = admin.post("/api/v1/role-bindings", &body).await.refused(400, "invalid");
        assert_eq!(refused.field.as_deref(), Some(field), "{refused:?}");
        assert!(refused.detail.contains(what), "{refused:?}");
    }
    for body in [
        json!({ "role": "no-such", "user": "scopable" }),
        json!({ "role": "operator", "user": "no-such" }),
        json!({ "role": "operator", "group": "no-such" }),
        json!({ "role": "operator", "service_account": "no-such" }),
    ] {
        admin.post("/api/v1/role-bindings", &body).await.refused(404, "not_found");
    }
    let good = json!({ "role": "operator", "user": "scopable", "hosts": "env=staging" });
    admin.post("/api/v1/role-bindings", &good).await.accepted();
    admin.post("/api/v1/role-bindings", &good).await.refused(409, "conflict");
}

#[tokio::test]
async fn nobody_gives_what_he_does_not_have() {
    let stage = stage().await;
    let world = &stage.world;
    let admin = world.administrator().await;
    let keeper = world.person("keeper", None).await;
    let role =
        json!({ "permissions": ["role.read", "role.manage", "token.manage", "user.manage", "agent.read"] });
    admin.put("/api/v1/roles/keeper", &role).await.accepted();
    admin.post("/api/v1/role-bindings", &json!({ "role": "keeper", "user": "keeper" })).await.accepted();

    let bind = |role: &str| json!({ "role": role, "user": "keeper" });
    for role in ["administrator", "operator", "auditor"] {
        let refused = keeper.post("/api/v1/role-bindings", &bind(role)).await.refused(403, "forbidden");
        assert!(refused.detail.contains("nobody gives"), "{refused:?}");
    }
    // Not by a role of his own making, by changing one that he has, by a group, an invitation, or a service account.
    let more = json!({ "permissions": ["execution.create"] });
    keeper.put("/api/v1/roles/own", &more).await.refused(403, "forbidden");
    keeper.put("/api/v1/roles/keeper", &more).await.refused(403, "forbidden");
    admin.post("/api/v1/groups", &json!({ "name": "mighty" })).await.accepted();
    admin
        .post("/api/v1/role-bindings", &json!({ "role": "administrator", "group": "mighty" }))
        .await
        .accepted();
    keeper.put("/api/v1/groups/mighty/members/keeper", &json!({})).await.refused(403, "forbidden");
    keeper.post("/api/v1/invitations", &json!({ "role": "administrator" })).await.refused(403, "forbidden");
    admin.post("/api/v1/service-accounts", &json!({ "name": "robot" })).await.accepted();
    admin
        .post("/api/v1/role-bindings", &json!({ "role": "administrator", "service_account": "robot" }))
        .await
        .accepted();
    let token = json!({ "name": "x", "service_account": "robot" });
    keeper.post("/api/v1/tokens", &token).await.refused(403, "forbidden");
    keeper.delete("/api/v1/service-accounts/robot").await.refused(403, "forbidden");
    keeper.delete("/api/v1/users/administrator").await.refused(403, "forbidden");
    // What he has he may give.
    keeper.put("/api/v1/roles/own", &json!({ "permissions": ["agent.read"] })).await.accepted();
    keeper.post("/api/v1/role-bindings", &bind("own")).await.accepted();
    keeper.delete("/api/v1/roles/own").await.refused(409, "conflict");

    // A role that is confined to some hosts can be given to nobody else.
    let confined = world.person("confined", None).await;
    let binding = json!({ "role": "administrator", "user": "confined", "hosts": "env=staging" });
    admin.post("/api/v1/role-bindings", &binding).await.accepted();
    confined
        .post("/api/v1/role-bindings", &json!({ "role": "viewer", "user": "confined" }))
        .await
        .refused(403, "forbidden");
    let who = confined.get("/api/v1/whoami").await.accepted().value();
    assert!(!who["permissions"].as_array().expect("a list").contains(&json!("role.manage")), "{who}");
}

#[tokio::test]
async fn there_is_always_an_administrator() {
    let world = World::start().await;
    let watch = world.watch();
    let admin = world.administrator().await;
    let bindings = admin.get("/api/v1/role-bindings").await.accepted().value();
    let first = format!("/api/v1/role-bindings/{}", text(&bindings["items"][0]["id"]));
    admin.delete(&first).await.refused(409, "conflict");
    admin.delete("/api/v1/users/administrator").await.refused(409, "conflict");
    admin.act("/api/v1/users/administrator/disable").await.refused(409, "conflict");

    let second = world.person("second", Some("administrator")).await;
    let bindings = admin.get("/api/v1/role-bindings").await.accepted().value();
    let other = format!("/api/v1/role-bindings/{}", text(&bindings["items"][1]["id"]));
    // Both take the other's away at once: one of them stays.
    let (one, two) = tokio::join!(admin.delete(&other), second.delete(&first));
    let done = [one.status, two.status].iter().filter(|status| **status == 204).count();
    assert_eq!(done, 1, "{} {}", one.text(), two.text());
    drop(watch);
}

#[tokio::test]
async fn tokens_are_narrow_and_end() {
    let stage = stage().await;
    let world = &stage.world;
    host(world, "token-staging", "token-staging").await;
    host(world, "token-prod", "token-prod").await;
    let admin = world.administrator().await;
    let make = async |by: &Api, body: Value| -> Api {
        let created = by.post("/api/v1/tokens", &body).await.accepted().value();
        world.api_as(text(&created["token"]))
    };
    let ci = make(
        &admin,
        json!({ "name": "ci", "permissions": ["agent.read", "execution.create"], "hosts": "env=token-staging" }),
    )
    .await;
    assert_eq!(names(&ci.get("/api/v1/agents").await.accepted().value()), ["token-staging"]);
    ci.post("/api/v1/executions", &on("env=token-staging")).await.accepted();
    ci.post("/api/v1/executions", &on("env=token-prod")).await.refused(403, "out_of_scope");
    ci.get("/api/v1/users").await.refused(403, "forbidden");
    // A token makes no other one of its owner's, and ends none but itself: what is stolen ends when it is revoked.
    ci.post("/api/v1/tokens", &json!({ "name": "child" })).await.refused(403, "needs_login");
    let spare = admin.post("/api/v1/tokens", &json!({ "name": "spare" })).await.accepted().value();
    let spare = format!("/api/v1/tokens/{}", text(&spare["id"]));
    ci.delete(&spare).await.refused(403, "needs_login");
    admin.delete(&spare).await.accepted();
    let itself = make(&admin, json!({ "name": "itself", "permissions": ["agent.read"] })).await;
    let listed = admin.get("/api/v1/tokens").await.accepted().value();
    let of = |name: &str| {
        let all = listed["items"].as_array().expect("a list");
        all.iter().find(|token| token["name"] == name).cloned().expect("it is there")
    };
    itself.delete(&format!("/api/v1/tokens/{}", text(&of("itself")["id"]))).await.accepted();
    itself.get("/api/v1/whoami").await.refused(401, "bad_credential");
    // One that manages tokens makes none that may more or lives longer.
    admin.post("/api/v1/service-accounts", &json!({ "name": "minted" })).await.accepted();
    let minter = json!({ "name": "minter", "permissions": ["token.manage", "agent.read"] });
    let minter = make(&admin, minter).await;
    let mint = |more: Value| {
        let mut request =
            json!({ "name": "child", "service_account": "minted", "ttl_seconds": 300 * 24 * 3600 });
        request.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        request
    };
    let wider = mint(json!({ "permissions": ["user.read"] }));
    minter.post("/api/v1/tokens", &wider).await.refused(400, "invalid");
    let child = minter.post("/api/v1/tokens", &mint(json!({}))).await.accepted().value();
    assert_eq!(child["permissions"], json!(["agent.read", "token.manage"]));
    let listed = admin.get("/api/v1/tokens").await.accepted().value();
    let parent = listed["items"].as_array().expect("a list").iter().find(|token| token["name"] == "minter");
    assert_eq!(child["expires_at"], parent.expect("it is there")["expires_at"]);
    for (body, field) in [
        (json!({ "name": "x", "ttl_seconds": 400 * 24 * 3600 }), "ttl_seconds"),
        (json!({ "name": "x", "ttl_seconds": 0 }), "ttl_seconds"),
        (json!({ "name": "X Y" }), "name"),
        (json!({ "name": "x", "permissions": [] }), "permissions"),
        (json!({ "name": "x", "permissions": ["no.such"] }), "permissions[0]"),
        (json!({ "name": "x", "hosts": "os=linux" }), "hosts"),
    ] {
        let refused = admin.post("/api/v1/tokens", &body).await.refused(400, "invalid");
        assert_eq!(refused.field.as_deref(), Some(field), "{refused:?}");
    }

    // A service account's, and what becomes of it.
    admin.post("/api/v1/service-accounts", &json!({ "name": "deploy-bot" })).await.accepted();
    let bot = make(&admin, json!({ "name": "bot", "service_account": "deploy-bot" })).await;
    assert_eq!(bot.get("/api/v1/whoami").await.accepted().value()["actor"], "service/deploy-bot");
    bot.get("/api/v1/agents").await.refused(403, "forbidden");
    let binding =
        json!({ "role": "operator", "service_account": "deploy-bot", "hosts": "env=token-staging" });
    admin.post("/api/v1/role-bindings", &binding).await.accepted();
    bot.post("/api/v1/executions", &on("env=token-staging")).await.accepted();
    let list = admin.get("/api/v1/tokens?all=true").await.accepted().value();
    let list = list["items"].as_array().expect("a list");
    let id = list.iter().find(|token| token["owner"] == "service/deploy-bot").map(|token| text(&token["id"]));
    let path = format!("/api/v1/tokens/{}", id.expect("it is there"));
    // Others' tokens are as unknown ones to who does not manage them.
    let viewer = world.person("token-viewer", Some("viewer")).await;
    viewer.delete(&path).await.refused(404, "not_found");
    admin.delete(&path).await.accepted();
    admin.delete(&path).await.accepted();
    bot.get("/api/v1/whoami").await.refused(401, "bad_credential");
    // With its owner, a token ends.
    let person = world.person("short-lived", Some("viewer")).await;
    let token = make(&person, json!({ "name": "mine" })).await;
    token.get("/api/v1/agents").await.accepted();
    world.api().act("/api/v1/users/short-lived/disable").await.accepted();
    token.get("/api/v1/agents").await.refused(401, "bad_credential");
    let refused = json!({ "user": "short-lived", "password": password_of("short-lived") });
    world.stranger().post("/api/v1/auth/login", &refused).await.refused(401, "bad_credential");
}

#[tokio::test]
async fn denials_are_in_the_audit() {
    let stage = stage().await;
    let world = &stage.world;
    let api = world.person("curious", Some("viewer")).await;
    let problem = api.get("/api/v1/users").await.refused(403, "forbidden");
    let row = sqlx::query(
        "select actor, actor_id, verb, object, outcome, source, detail from audit_entries where request_id = $1",
    )
    .bind(&problem.request_id)
    .fetch_one(&mut world.sql().await)
    .await
    .expect("it is there");
    assert_eq!(row.get::<String, _>("actor"), "curious");
    assert!(row.get::<String, _>("actor_id").starts_with("user/"));
    assert_eq!(row.get::<String, _>("verb"), "access.denied");
    assert_eq!(row.get::<String, _>("object"), "permission/user.read");
    assert_eq!(row.get::<String, _>("outcome"), "denied");
    assert!(row.get::<String, _>("source").starts_with("127.1."));
    assert_eq!(row.get::<Value, _>("detail")["request"], "GET /api/v1/users");

    // Whoever refuses, the door or a verb, once; what is asked again and again is one entry.
    host(world, "denied-staging", "denied-staging").await;
    host(world, "denied-prod", "denied-prod").await;
    let admin = world.administrator().await;
    world.person("limited", None).await;
    for binding in [
        json!({ "role": "viewer", "user": "limited" }),
        json!({ "role": "operator", "user": "limited", "hosts": "env=denied-staging" }),
    ] {
        admin.post("/api/v1/role-bindings", &binding).await.accepted();
    }
    let limited = world.session(&world.log_in("limited", &password_of("limited"), None).await);
    let entries = async |request: String| -> i64 {
        sqlx::query_scalar(
            "select count(*) from audit_entries where outcome = 'denied' and verb = 'access.denied' and request_id = $1",
        )
        .bind(request)
        .fetch_one(&mut world.sql().await)
        .await
        .expect("it counts")
    };
    let too_many =
        limited.post("/api/v1/executions", &on("env=denied-prod")).await.refused(403, "out_of_scope");
    assert_eq!(entries(too_many.request_id).await, 1);
    let again = limited.post("/api/v1/executions", &on("env=denied-prod")).await.refused(403, "out_of_scope");
    assert_eq!(entries(again.request_id).await, 0);
    // What one sees and may not touch is refused; what one does not see is not there.
    let drain = |name: &str| format!("/api/v1/agents/{name}/drain");
    limited.act(&drain("denied-staging")).await.accepted();
    let seen = limited.act(&drain("denied-prod")).await.refused(403, "out_of_scope");
    assert_eq!(entries(seen.request_id).await, 1);
    limited.act(&drain("nowhere")).await.refused(404, "not_found");
    let execution = admin.post("/api/v1/executions", &on("env=denied-prod")).await.accepted().value();
    let cancel = format!("/api/v1/executions/{}/cancel", text(&execution["id"]));
    let problem = limited.act(&cancel).await.refused(403, "out_of_scope");
    assert!(problem.detail.contains("1 of the 1"), "{problem:?}");
    let token = json!({ "name": "robots", "service_account": "nobody" });
    let problem = limited.post("/api/v1/tokens", &token).await.refused(403, "forbidden");
    assert_eq!(entries(problem.request_id).await, 1);
    let by_token = world.api().act("/api/v1/users/limited/reset-password").await.refused(403, "needs_login");
    assert_eq!(entries(by_token.request_id).await, 1);
    let as_another = limited.get("/api/v1/auth/can-i?permission=agent.read&as=curious").await;
    assert_eq!(entries(as_another.refused(403, "forbidden").request_id).await, 1);
}

/// Row-level security, without the `org_id = …` of the queries before it.
#[tokio::test]
async fn the_database_itself_shows_an_organization_nothing_of_another() {
    let world = World::start().await;
    let watch = world.watch();
    host(&world, "here", "prod").await;
    let admin = world.administrator().await;
    world.person("local", Some("operator")).await;
    admin.post("/api/v1/executions", &on("env=prod")).await.accepted();
    admin.post("/api/v1/groups", &json!({ "name": "local" })).await.accepted();
    admin.put("/api/v1/roles/local", &json!({ "permissions": ["agent.read"] })).await.accepted();
    admin.post("/api/v1/service-accounts", &json!({ "name": "local" })).await.accepted();
    admin.post("/api/v1/organizations", &json!({ "name": "elsewhere" })).await.accepted();

    let mut sql = world.sql().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid
         where a.attname = 'org_id' and c.relkind in ('r', 'p') and not c.relispartition
           and c.relnamespace = 'public'::regnamespace order by 1",
    )
    .fetch_all(&mut sql)
    .await
    .expect("the owner may");
    assert!(tables.len() >= 20, "{tables:?}");
    let elsewhere: uuid::Uuid = sqlx::query_scalar("select id from organizations where name = 'elsewhere'")
        .fetch_one(&mut sql)
        .await
        .expect("it is there");
    sql.execute_all(&["set role opsc_app"]).await;
    for org in [Some(elsewhere), None] {
        let set = org.map_or_else(String::new, |org| org.to_string());
        sqlx::query("select set_config('opsc.org', $1, false)")
            .bind(set)
            .execute(&mut sql)
            .await
            .expect("it sets");
        for table in tables.iter().map(String::as_str).chain(["users", "organizations"]) {
            // What is its own it may see; what there is of that changes while the sequencer works.
            let others = match (org, table) {
                (_, "users") => "name <> 'administrator'".to_owned(),
                (Some(own), "organizations") => format!("id <> '{own}'"),
                (Some(own), _) => format!("org_id <> '{own}'"),
                (None, _) => "true".to_owned(),
            };
            let statement = format!("select count(*) from {table} where {others}");
            match sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(statement)).fetch_one(&mut sql).await {
                Ok(count) => assert_eq!(count, 0, "{table} as {org:?}"),
                Err(error) => assert!(error.to_string().contains("permission denied"), "{table}: {error}"),
            }
        }
    }
    let set = "select set_config('opsc.org', $1, false)";
    sqlx::query(set).bind(elsewhere.to_string()).execute(&mut sql).await.expect("it sets");
    let members: i64 =
        sqlx::query_scalar("select count(*) from memberships").fetch_one(&mut sql).await.expect("it may");
    assert_eq!(members, 1, "its own it sees");
    drop(watch);
}

trait ExecuteAll {
    async fn execute_all(&mut self, statements: &[&'static str]);
}

impl ExecuteAll for sqlx::PgConnection {
    async fn execute_all(&mut self, statements: &[&'static str]) {
        for statement in statements {
            sqlx::query(*statement).execute(&mut *self).await.expect("it may");
        }
        self.ping().await.expect("it is there");
    }
}

/// What a database from before had goes on: its token is one of a service account that is an administrator.
#[tokio::test]
async fn an_older_database_keeps_its_administrator() {
    let url = opsconductor_tests::postgres::empty_database();
    let mut sql = sqlx::PgConnection::connect(&url).await.expect("it answers");
    for file in ["0001_foundation", "0002_usage", "0003_queue_expiry"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../controller/migrations/{file}.sql"));
        let text = std::fs::read_to_string(path).expect("it is there");
        sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut sql).await.expect("it migrates");
    }
    sqlx::raw_sql(
        "insert into organizations values ('01900000-0000-7000-8000-000000000001', 'default', now());
         insert into installation (trust_domain, root_pin, created_at) values ('opsc-old', '\\x00', now());
         insert into api_tokens (id, org_id, name, secret_hash, permissions, created_at)
             values ('01900000-0000-7000-8000-000000000002', '01900000-0000-7000-8000-000000000001', 'administrator',
                     '\\x01', '{*}', now());",
    )
    .execute(&mut sql)
    .await
    .expect("the owner may");
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../controller/migrations/0004_people.sql");
    let text = std::fs::read_to_string(path).expect("it is there");
    sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut sql).await.expect("it migrates");
    let row = sqlx::query(
        "select s.name, b.role, t.expires_at > now() + interval '360 days' as lasting, i.home_org_id = t.org_id as home
         from api_tokens t join service_accounts s on s.id = t.service_account_id
              join role_bindings b on b.service_account_id = s.id join installation i on true",
    )
    .fetch_one(&mut sql)
    .await
    .expect("it is there");
    assert_eq!(row.get::<String, _>("role"), "administrator");
    assert!(row.get::<String, _>("name").starts_with("administrator-"));
    assert!(row.get::<bool, _>("lasting") && row.get::<bool, _>("home"));
}

#[tokio::test]
async fn a_thousand_bindings_and_names_that_are_code() {
    let stage = stage().await;
    let world = &stage.world;
    let admin = world.administrator().await;
    for name in
        ["x'; drop table roles; --", "{{7*7}}", "${jndi:x}", "../..", "a\u{0}b", "ü", &"x".repeat(10_000)]
    {
        for (path, body) in [
            ("/api/v1/groups", json!({ "name": name })),
            ("/api/v1/service-accounts", json!({ "name": name })),
            ("/api/v1/organizations", json!({ "name": name })),
            ("/api/v1/tokens", json!({ "name": name })),
        ] {
            let status = admin.post(path, &body).await.status;
            assert_eq!(status, 400, "{path} {name:.20}");
        }
    }
    eventually(SOON, "the door still answers", async || {
        (admin.get("/api/v1/groups").await.status == 200).then_some(())
    })
    .await;
}
