//! Logins by an OpenID provider: a real one, Canaille, on loopback.

use std::process::Stdio;

use opsconductor_tests::{Answer, Api, World, openid::OpenId, opsctl, people::address, world::ADMINISTRATOR};
use reqwest::{Method, Url};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

const PASSWORD: &str = "what ada types at the provider";

/// A controller that lets people in by a provider.
struct Scene {
    world: World,
    provider: OpenId,
}

impl Scene {
    /// With these `[[oidc.corporate.roles]]` and whatever else stands before them.
    async fn new(settings: &str) -> Self {
        let world = World::builder().prepare();
        let callback = format!("http://{}/api/v1/auth/oidc/corporate/callback", world.http());
        let provider = OpenId::start(&callback).await;
        let secret = world.folder().join("client.secret");
        std::fs::write(&secret, format!("{}\n", provider.client_secret())).expect("it can be written");
        world.configure(&format!(
            "[oidc.corporate]\nissuer = '{}'\nclient_id = '{}'\nclient_secret_file = '{}'\n{settings}",
            provider.issuer(),
            OpenId::CLIENT_ID,
            secret.display(),
        ));
        world.start_controller().await;
        Self { world, provider }
    }

    /// A browser that knows nothing.
    fn browser(&self) -> Browser {
        Browser { api: self.world.api_as_nobody().from(address()), cookie: String::new() }
    }

    /// Logs in from the beginning to the end.
    async fn log_in(&self, name: &str) -> (Browser, Answer) {
        let mut browser = self.browser();
        let callback = self.callback(&mut browser, "", name).await;
        let answer = browser.get(&path(&callback)).await;
        (browser, answer)
    }

    /// Where the provider sends the browser of somebody who began with this query.
    async fn callback(&self, browser: &mut Browser, query: &str, name: &str) -> String {
        let begun = browser.get(&format!("/api/v1/auth/oidc/corporate/login{query}")).await;
        assert_eq!(begun.status, 303, "{}", begun.text());
        self.provider.log_in(&location(&begun), name, PASSWORD).await
    }
}

/// Keeps the controller's cookies, and goes nowhere by itself.
struct Browser {
    api: Api,
    cookie: String,
}

impl Browser {
    async fn get(&mut self, path: &str) -> Answer {
        let answer = self.api.send(self.api.request(Method::GET, path).header("cookie", &self.cookie)).await;
        let set = answer.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok());
        let pairs: Vec<&str> = set.filter_map(|text| text.split(';').next()).collect();
        if !pairs.is_empty() {
            self.cookie = pairs.join("; ");
        }
        answer
    }
}

fn location(answer: &Answer) -> String {
    answer.headers["location"].to_str().expect("an address").to_owned()
}

/// Path and query of a URL.
fn path(url: &str) -> String {
    let url = Url::parse(url).expect("it is a URL");
    format!("{}?{}", url.path(), url.query().unwrap_or_default())
}

/// Path and query of a URL, of which one parameter says something else.
fn with(url: &str, name: &str, value: &str) -> String {
    let url = Url::parse(url).expect("it is a URL");
    let kept = url.query_pairs().filter(|(key, _)| key != name);
    let mut changed = url.clone();
    changed.query_pairs_mut().clear().extend_pairs(kept).append_pair(name, value);
    path(changed.as_str())
}

const ROLES: &str = "[[oidc.corporate.roles]]\ngroup = 'ops'\nrole = 'operator'\nhosts = 'env=staging'\n\
                     [[oidc.corporate.roles]]\ngroup = 'everybody'\nrole = 'viewer'\n\
                     [[oidc.corporate.roles]]\ngroup = 'everybody'\nrole = 'not-there'\n";

async fn bindings(world: &World, name: &str) -> Vec<(String, Value)> {
    let all = world.api().get("/api/v1/role-bindings").await.accepted().value();
    let mut of: Vec<(String, Value)> = all["items"]
        .as_array()
        .expect("a page")
        .iter()
        .filter(|binding| binding["user"] == name)
        .map(|binding| (binding["role"].as_str().expect("a name").to_owned(), binding["created_by"].clone()))
        .collect();
    of.sort_by(|a, b| a.0.cmp(&b.0));
    of
}

#[tokio::test]
async fn a_provider_lets_people_in_with_what_their_groups_give() {
    let scene = Scene::new(ROLES).await;
    let Scene { world, provider } = &scene;
    let watch = world.watch();
    provider.person("ada", PASSWORD).await;
    provider.person("bob", PASSWORD).await;
    provider.group("ops", &["ada"]).await;
    provider.group("everybody", &["ada"]).await;
    let listed = world.api_as_nobody().get("/api/v1/auth/providers").await.accepted().value();
    assert_eq!(listed[0]["name"], "corporate");

    let (mut ada, answer) = scene.log_in("ada").await;
    assert_eq!((answer.status, location(&answer).as_str()), (303, "/"), "{}", answer.text());
    let whoami = ada.get("/api/v1/whoami").await.accepted().value();
    assert_eq!((&whoami["actor"], &whoami["organization"]), (&json!("ada"), &json!("main")));
    let by = json!("oidc/corporate");
    let both = [("operator".to_owned(), by.clone()), ("viewer".to_owned(), by.clone())];
    assert_eq!(bindings(world, "ada").await, both);
    // A day later the provider is asked again, whatever is done until then.
    let sessions = ada.get("/api/v1/auth/sessions").await.accepted().value();
    let at = |name: &str| {
        sessions[0][name].as_str().expect("it is there").parse::<jiff::Timestamp>().expect("a time")
    };
    assert!(at("expires_at").duration_since(at("created_at")) <= jiff::SignedDuration::from_hours(12));
    // Whom the provider speaks for has no password here.
    world
        .stranger()
        .post("/api/v1/auth/login", &json!({ "user": "ada", "password": PASSWORD }))
        .await
        .refused(401, "bad_credential");

    // What somebody else gave stays; what the groups gave goes with them.
    let auditor = json!({ "role": "auditor", "user": "ada" });
    world.api().post("/api/v1/role-bindings", &auditor).await.accepted();
    provider.group("ops", &["bob"]).await;
    let (_, again) = scene.log_in("ada").await;
    assert_eq!(again.status, 303);
    let kept = [("auditor".to_owned(), json!(ADMINISTRATOR)), ("viewer".to_owned(), by)];
    assert_eq!(bindings(world, "ada").await, kept);
    let auditor = world.api().get("/api/v1/role-bindings").await.accepted().value()["items"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["role"] == "auditor").cloned())
        .expect("it is there");
    let id = auditor["id"].as_str().expect("an id");
    world
        .api()
        .send(world.api().request(Method::DELETE, &format!("/api/v1/role-bindings/{id}")))
        .await
        .accepted();

    // Whom no group gives anything does not get in, and what was open shows nothing more.
    provider.group("everybody", &["bob"]).await;
    let (_, refused) = scene.log_in("ada").await;
    refused.refused(403, "not_admitted");
    assert!(bindings(world, "ada").await.is_empty());
    ada.get("/api/v1/agents").await.refused(403, "forbidden");

    let entries = world.api().get("/api/v1/audit?limit=1000").await.accepted().value();
    let of = |verb: &str, outcome: &str| {
        let all = entries["items"].as_array().expect("a page").iter().map(|item| &item["entry"]);
        all.filter(|entry| entry["verb"] == verb && entry["outcome"] == outcome).cloned().collect::<Vec<_>>()
    };
    assert_eq!(of("user.provision", "done").len(), 3, "{entries}");
    assert!(
        of("session.create", "done").iter().any(|entry| entry["detail"]["provider"] == "corporate"),
        "{entries}"
    );
    assert_eq!(of("session.create", "denied").len(), 2, "{entries}");
    drop(watch);
}

#[tokio::test]
async fn nobody_becomes_somebody_else() {
    let scene = Scene::new(ROLES).await;
    let Scene { world, provider } = &scene;
    let watch = world.watch();
    world.person("ada", Some("administrator")).await;
    for name in ["ada", "bob", "administrator"] {
        provider.person(name, PASSWORD).await;
    }
    provider.group("everybody", &["ada", "bob", "administrator"]).await;
    // A name at the provider is no proof of being the one who has it here.
    for name in ["ada", "administrator"] {
        let (mut browser, answer) = scene.log_in(name).await;
        let problem = answer.refused(403, "not_admitted");
        assert!(problem.detail.contains(name), "{problem:?}");
        browser.get("/api/v1/whoami").await.refused(401, "unauthenticated");
    }

    // Somebody who may says that it is the same person.
    let entries =
        world.api().get("/api/v1/audit?verb=session.create&outcome=denied").await.accepted().value();
    let entry = entries["items"].as_array().expect("a page").iter().map(|item| &item["entry"]);
    let entry = { entry }.find(|entry| entry["actor"] == "ada").expect("it is there");
    let subject =
        entry["actor_id"].as_str().and_then(|id| id.strip_prefix("oidc/corporate/")).expect("a subject");
    let admin = world.administrator().await;
    let link = "/api/v1/users/ada/identities/corporate";
    world.api().put(link, &json!({ "subject": subject })).await.refused(403, "needs_login");
    admin.put(link, &json!({ "subject": subject })).await.accepted();
    admin.put(link, &json!({ "subject": subject })).await.refused(409, "conflict");
    let (mut ada, answer) = scene.log_in("ada").await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert_eq!(ada.get("/api/v1/whoami").await.accepted().value()["actor"], "ada");
    admin.delete(link).await.accepted();
    ada.get("/api/v1/whoami").await.refused(401, "bad_credential");
    scene.log_in("ada").await.1.refused(403, "not_admitted");

    // The answer to a login is for the browser that began it, once.
    let mut browser = scene.browser();
    let callback = path(&scene.callback(&mut browser, "?return_to=/executions", "bob").await);
    scene.browser().get(&callback).await.refused(401, "bad_credential");
    browser.get(&callback).await.refused(401, "bad_credential");
    let callback = path(&scene.callback(&mut browser, "?return_to=/executions", "bob").await);
    let mut forged = browser.get(&callback.replace("state=", "state=x")).await;
    assert_eq!(forged.status, 401);
    forged = browser.get(&callback.replace("corporate", "other")).await;
    assert_eq!(forged.status, 404);
    let answer = browser.get(&callback).await;
    assert_eq!((answer.status, location(&answer).as_str()), (303, "/executions"));
    browser.get(&callback).await.refused(401, "bad_credential");
    // A code that is not the provider's.
    let mut browser = scene.browser();
    let guessed = with(&scene.callback(&mut browser, "", "bob").await, "code", "guessed");
    let problem = browser.get(&guessed).await.refused(401, "bad_credential");
    assert!(problem.detail.contains("refused the code"), "{problem:?}");
    // An answer in another provider's name.
    let mixed = with(&scene.callback(&mut browser, "", "bob").await, "iss", "https://evil.example");
    let problem = browser.get(&mixed).await.refused(401, "bad_credential");
    assert!(problem.detail.contains("another provider"), "{problem:?}");
    // What the provider says of a refusal is told.
    let no = with(&scene.callback(&mut browser, "", "bob").await, "error", "access_denied");
    assert!(browser.get(&no).await.refused(403, "not_admitted").detail.contains("access_denied"));

    for bad in ["//evil.example", "https://evil.example", "/\\evil.example"] {
        let query = form(&[("return_to", bad)]);
        let problem = scene
            .browser()
            .get(&format!("/api/v1/auth/oidc/corporate/login?{query}"))
            .await
            .refused(400, "invalid");
        assert_eq!(problem.field.as_deref(), Some("return_to"));
    }
    for (bad, field) in
        [("port=0&challenge=x", "port"), ("port=80", "port"), ("port=80&challenge=x", "challenge")]
    {
        let path = format!("/api/v1/auth/oidc/corporate/login?{bad}");
        assert_eq!(scene.browser().get(&path).await.refused(400, "invalid").field.as_deref(), Some(field));
    }

    // Somebody who is disabled here is that for the provider's people too.
    world.api().act("/api/v1/users/bob/disable").await.accepted();
    let (_, answer) = scene.log_in("bob").await;
    answer.refused(403, "not_admitted");
    drop(watch);
}

fn form(pairs: &[(&str, &str)]) -> String {
    let mut url = Url::parse("http://localhost/").expect("a URL");
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn opsctl_logs_in_with_the_browser() {
    let scene = Scene::new(ROLES).await;
    let Scene { world, provider } = &scene;
    let watch = world.watch();
    provider.person("ada", PASSWORD).await;
    provider.group("everybody", &["ada"]).await;
    let home = world.folder().join("ada");
    std::fs::create_dir(&home).expect("it can be made");
    let addr = format!("http://{}", world.http());
    let opsctl = |arguments: &[&str]| {
        let mut command = opsctl::command(&addr, "", &home, arguments);
        command.env_remove("OPSC_TOKEN");
        command
    };
    let unknown = opsctl::run(&mut opsctl(&["login", "--provider", "other"]), b"").await;
    assert!(unknown.code != 0 && unknown.stderr.contains("corporate"), "{unknown}");

    for is_admitted in [true, false] {
        let mut login = opsctl(&["login", "--provider", "corporate", "--no-browser"]);
        let mut child = login
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let url = loop {
            let line = lines.next_line().await.expect("it can be read").expect("it shows an address");
            if let Some(url) = line.trim().strip_prefix(addr.as_str()) {
                break url.to_owned();
            }
        };
        let query = url.split_once('?').map(|(_, query)| format!("?{query}")).expect("it has a query");
        if !is_admitted {
            provider.group("everybody", &[]).await;
        }
        let mut browser = scene.browser();
        let callback = path(&scene.callback(&mut browser, &query, "ada").await);
        let to_program = location(&browser.get(&callback).await);
        // Whoever sees the code on its way gets nothing for it.
        if is_admitted {
            let code = Url::parse(&to_program).expect("a URL");
            let code = code.query_pairs().find(|(key, _)| key == "code").expect("it is there").1.into_owned();
            assert!(!code.is_empty() && to_program.starts_with("http://127.0.0.1:"));
        }
        let page = reqwest::get(&to_program).await.expect("opsctl answers").text().await.expect("a page");
        let ended = child.wait_with_output().await.expect("it ends");
        if is_admitted {
            assert!(page.contains("You are logged in"), "{page}");
            assert!(ended.status.success(), "{ended:?}");
            assert!(String::from_utf8_lossy(&ended.stdout).contains("as ada (main)"), "{ended:?}");
            let whoami = opsctl::run(&mut opsctl(&["auth", "whoami", "-o", "json"]), b"").await.ended(0);
            assert_eq!(whoami.json()["actor"], "ada");
        } else {
            assert!(page.contains("not logged in") && !ended.status.success(), "{page} {ended:?}");
        }
    }

    // A code is good once, with its secret.
    let secret = "a secret of a program's own";
    let challenge = {
        use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
        BASE64_URL_SAFE_NO_PAD.encode(pki::sha256(secret.as_bytes()))
    };
    provider.group("everybody", &["ada"]).await;
    let code = async || {
        let mut browser = scene.browser();
        let query = format!("?port=9&challenge={challenge}");
        let callback = path(&scene.callback(&mut browser, &query, "ada").await);
        let url = Url::parse(&location(&browser.get(&callback).await)).expect("a URL");
        url.query_pairs().find(|(key, _)| key == "code").expect("it is there").1.into_owned()
    };
    let redeem = async |code: &str, verifier: &str| {
        let request = json!({ "code": code, "verifier": verifier });
        world.stranger().post("/api/v1/auth/oidc/redeem", &request).await
    };
    let first = code().await;
    redeem(&first, "another").await.refused(401, "bad_credential");
    redeem(&first, secret).await.refused(401, "bad_credential");
    let second = code().await;
    redeem(&second, secret).await.accepted();
    redeem(&second, secret).await.refused(401, "bad_credential");
    drop(watch);
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_said() {
    let world = World::builder().prepare();
    world.configure("[oidc.gone]\nissuer = 'http://127.0.0.1:9'\nclient_id = 'x'\n");
    world.start_controller().await;
    let answer = world.stranger().get("/api/v1/auth/oidc/gone/login").await;
    assert!(answer.refused(502, "provider_failed").detail.contains("'gone'"));
    world.stranger().get("/api/v1/auth/oidc/nobody/login").await.refused(404, "not_found");
    // People with passwords get in as ever.
    world.administrator().await.get("/api/v1/whoami").await.accepted();
}
