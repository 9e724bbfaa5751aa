//! Every route, tried by everybody: `http.txt` says what each must be answered, and nothing that is not in it may exist.

use std::collections::{BTreeMap, BTreeSet};

use opsconductor_tests::{Answer, Api, SOON, World, door::Puppet, eventually, people::address};
use reqwest::Method;
use serde_json::{Value, json};

const TABLE: &str = include_str!("http.txt");
const COLUMNS: [&str; 11] = [
    "nobody", "none", "viewer", "operator", "author", "approver", "auditor", "admin", "scoped", "narrowed",
    "other",
];

struct Row {
    method: Method,
    path: String,
    body: Option<String>,
    wanted: BTreeMap<&'static str, String>,
}

fn rows() -> Vec<Row> {
    let lines = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let row = |line: &str| {
        let (left, right) = line.rsplit_once('|').expect("a row has its cells behind a bar");
        let mut words = left.trim().splitn(3, ' ');
        let method = words.next().expect("a method").parse().expect("a method");
        let path = words.next().expect("a path").to_owned();
        let body = words.next().map(str::trim).filter(|body| *body != "-").map(str::to_owned);
        let cells: Vec<&str> = right.split_whitespace().collect();
        assert_eq!(cells.len(), COLUMNS.len(), "{line}");
        Row {
            method,
            path,
            body,
            wanted: COLUMNS.into_iter().zip(cells.into_iter().map(str::to_owned)).collect(),
        }
    };
    lines.map(row).collect()
}

/// What the paths and bodies of the table are filled with: real things of the home organization.
struct Things {
    world: World,
    admin: Api,
    agent: String,
    count: u32,
    /// Ids and names that another organization must never be shown.
    secrets: BTreeSet<String>,
}

impl Things {
    fn fresh(&mut self) -> String {
        self.count += 1;
        format!("thing-{:04}", self.count)
    }

    async fn made(&mut self, path: &str, body: &Value) -> String {
        let id = self.admin.post(path, body).await.accepted().value()["id"]
            .as_str()
            .expect("it has an id")
            .to_owned();
        self.secrets.insert(id.clone());
        id
    }

    async fn puppet(&mut self) -> String {
        let name = self.fresh();
        let token = self.world.enroll_token(&json!({ "labels": { "env": "prod" } })).await;
        // An address may enroll so many a second.
        let puppet = Puppet::enroll(self.world.door(), &token, &name).await;
        let id = model::id::AgentId::from_bytes(&puppet.credentials.agent_id).expect("an id").to_string();
        self.secrets.insert(name);
        self.secrets.insert(id.clone());
        id
    }

    /// Somebody new, of whom nobody knows the password.
    async fn user(&mut self) -> String {
        let name = self.fresh();
        let mut sql = self.world.sql().await;
        let id = uuid::Uuid::now_v7();
        sqlx::query("insert into users (id, name, created_at) values ($1, $2, now())")
            .bind(id)
            .bind(&name)
            .execute(&mut sql)
            .await
            .expect("the owner may");
        sqlx::query(
            "insert into memberships (org_id, user_id, added_at, added_by)
             select home_org_id, $1, now(), 'test' from installation",
        )
        .bind(id)
        .execute(&mut sql)
        .await
        .expect("the owner may");
        self.secrets.insert(name.clone());
        name
    }

    /// The thing that `{name}` stands for.
    async fn thing(&mut self, name: &str, filled: &BTreeMap<String, String>) -> String {
        match name {
            "file" => "index.css".to_owned(),
            "fresh" => self.fresh(),
            "agent" => self.agent.clone(),
            "doomed" => self.puppet().await,
            "user" => self.user().await,
            "session" => {
                let tokens =
                    self.world.log_in("administrator", opsconductor_tests::world::PASSWORD, None).await;
                tokens["session_id"].as_str().expect("an id").to_owned()
            }
            "invitation" => self.made("/api/v1/invitations", &json!({})).await,
            "role" => {
                let role = self.fresh();
                let path = format!("/api/v1/roles/{role}");
                self.admin.put(&path, &json!({ "permissions": ["agent.read"] })).await.accepted();
                role
            }
            "group" => {
                let group = self.fresh();
                self.made("/api/v1/groups", &json!({ "name": group })).await;
                group
            }
            "script" => {
                let script = self.fresh();
                let body = json!({ "script": { "name": script, "content": "#!/bin/sh\n:\n" } });
                self.admin.post("/api/v1/scripts", &body).await.accepted();
                script
            }
            "job_template" => {
                let name = self.fresh();
                let job = "job:\n  name: j\n  targets: {all: true}\n  steps: [{name: a, run: uptime}]\n";
                let body = json!({ "document": format!("name: {name}\n{job}") });
                self.admin.post("/api/v1/job-templates", &body).await.accepted();
                name
            }
            "target_group" => {
                let group = self.fresh();
                let body = json!({ "name": group, "members": { "selector": "env=prod" } });
                self.made("/api/v1/target-groups", &body).await;
                group
            }
            "binding" => {
                let user = self.user().await;
                self.made("/api/v1/role-bindings", &json!({ "role": "viewer", "user": user })).await
            }
            "account" => {
                let account = self.fresh();
                self.made("/api/v1/service-accounts", &json!({ "name": account })).await;
                account
            }
            "token" => self.made("/api/v1/tokens", &json!({ "name": "thing" })).await,
            "enroll_token" => self.made("/api/v1/enroll-tokens", &json!({})).await,
            "execution" => {
                let agent =
                    self.admin.get(&format!("/api/v1/agents/{}", self.agent)).await.accepted().value();
                let body = json!({ "targets": { "names": [agent["name"]] }, "command": { "program": { "argv": ["true"] } } });
                self.made("/api/v1/executions", &body).await
            }
            "job" => {
                let job = self.fresh();
                let document =
                    format!("name: {job}\nsteps: [{{name: a, wait: 1h}}, {{name: b, run: 'true'}}]\n");
                self.admin.post("/api/v1/jobs", &json!({ "document": document })).await.accepted();
                job
            }
            "calendar" | "shared_calendar" => {
                let calendar = self.fresh();
                let document = json!({ "name": calendar, "kind": "blackout", "entries": [] });
                let body = json!({ "calendar": document, "shared": name == "shared_calendar" });
                let made = self.admin.post("/api/v1/calendars", &body).await.accepted().value();
                if name == "calendar" {
                    self.secrets.insert(made["id"].as_str().expect("an id").to_owned());
                }
                calendar
            }
            "job_id" => {
                let job = Box::pin(self.thing("job", filled)).await;
                let job = self.admin.get(&format!("/api/v1/jobs/{job}")).await.accepted().value();
                job["id"].as_str().expect("an id").to_owned()
            }
            "schedule" | "hook" => {
                let job = Box::pin(self.thing("job", filled)).await;
                let agent =
                    self.admin.get(&format!("/api/v1/agents/{}", self.agent)).await.accepted().value();
                let schedule = self.fresh();
                let is_hook = name == "hook";
                let when = if is_hook { json!({ "webhook": {} }) } else { json!({ "cron": "0 3 * * *" }) };
                let body = json!({ "schedule": {
                    "name": schedule, "job": job, "when": when, "targets": { "hosts": [agent["name"]] },
                } });
                let id = self.made("/api/v1/schedules", &body).await;
                if is_hook { id } else { schedule }
            }
            // Not a digit that stands in every path.
            "version" => "0001".to_owned(),
            // It waits: so it can be held.
            "started" => {
                let agent =
                    self.admin.get(&format!("/api/v1/agents/{}", self.agent)).await.accepted().value();
                let job = Box::pin(self.thing("job", filled)).await;
                let body = json!({ "targets": { "hosts": [agent["name"]] } });
                self.made(&format!("/api/v1/jobs/{job}/execute"), &body).await
            }
            // It is over, and so can be tried again.
            "ended" => {
                let id = Box::pin(self.thing("execution", filled)).await;
                self.admin.act(&format!("/api/v1/executions/{id}/cancel")).await.accepted();
                let path = format!("/api/v1/executions/{id}");
                eventually(SOON, "it is over", async || {
                    let execution = self.admin.get(&path).await.accepted().value();
                    execution.get("ended_at").is_some().then_some(())
                })
                .await;
                id
            }
            // It asks for an approval.
            "asking" => {
                let agent =
                    self.admin.get(&format!("/api/v1/agents/{}", self.agent)).await.accepted().value();
                let job = self.fresh();
                let document = format!(
                    "name: {job}\nsteps: [{{name: asked, approval: {{}}}}, {{name: b, run: 'true'}}]\n"
                );
                self.admin.post("/api/v1/jobs", &json!({ "document": document })).await.accepted();
                let body = json!({ "targets": { "hosts": [agent["name"]] } });
                let id = self.made(&format!("/api/v1/jobs/{job}/execute"), &body).await;
                let path = format!("/api/v1/executions/{id}/approvals");
                eventually(SOON, "somebody is asked", async || {
                    let asked = self.admin.get(&path).await.accepted().value();
                    (asked[0]["state"] == "active").then_some(())
                })
                .await;
                id
            }
            "step" => "asked".to_owned(),
            "hash" => {
                let path = format!("/api/v1/executions/{}/approvals", filled["asking"]);
                let asked = self.admin.get(&path).await.accepted().value();
                asked[0]["hash"].as_str().expect("a hash").to_owned()
            }
            "run" => self.admin.runs(&filled["execution"]).await[0].id.to_string(),
            other => panic!("nobody knows what {{{other}}} is"),
        }
    }
}

/// Fills what stands in curly brackets with real things.
async fn fill(text: &str, things: &mut Things, filled: &mut BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        out.push_str(before);
        match behind.split_once('}') {
            Some((name, after))
                if name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !name.is_empty() =>
            {
                if !filled.contains_key(name) {
                    let thing = things.thing(name, filled).await;
                    filled.insert(name.to_owned(), thing);
                }
                let thing = &filled[name];
                // Targets are named.
                if name == "agent" && text.contains("targets") {
                    let agent = things.admin.get(&format!("/api/v1/agents/{thing}")).await.accepted().value();
                    out.push_str(agent["name"].as_str().expect("a name"));
                } else {
                    out.push_str(thing);
                }
                rest = after;
            }
            _ => {
                out.push('{');
                rest = behind;
            }
        }
    }
    out + rest
}

async fn ask(api: &Api, method: &Method, path: &str, body: Option<&str>) -> Answer {
    eventually(SOON, "the rate limit lets a request through", async || {
        let mut request = api.request(method.clone(), path);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        let answer = api.send(request).await;
        (answer.status != 429).then_some(answer)
    })
    .await
}

#[tokio::test]
async fn everybody_may_do_what_the_table_says_and_nothing_else() {
    let world = World::start().await;
    let watch = world.watch();
    let admin = world.administrator().await;

    let rows = rows();
    let document = admin.get("/openapi.json").await.accepted().value();
    let routes: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().expect("methods").keys().map(move |method| (method.to_uppercase(), shape(path)))
        })
        .collect();
    let listed: BTreeSet<(String, String)> = rows
        .iter()
        .map(|row| (row.method.to_string(), shape(row.path.split('?').next().unwrap_or(""))))
        .collect();
    assert_eq!(
        routes.difference(&listed).collect::<Vec<_>>(),
        Vec::<&(String, String)>::new(),
        "routes without a row"
    );
    assert_eq!(
        listed.difference(&routes).collect::<Vec<_>>(),
        Vec::<&(String, String)>::new(),
        "rows without a route"
    );

    let mut people: BTreeMap<&str, Api> = BTreeMap::new();
    people.insert("nobody", world.stranger());
    people.insert("none", world.person("none", None).await);
    for role in ["viewer", "operator", "author", "approver", "auditor"] {
        people.insert(role, world.person(role, Some(role)).await);
    }
    people.insert("admin", world.person("second-admin", Some("administrator")).await);
    let scoped = world.person("scoped", None).await;
    let binding = json!({ "role": "operator", "user": "scoped", "hosts": "env=staging" });
    admin.post("/api/v1/role-bindings", &binding).await.accepted();
    people.insert("scoped", scoped);
    let token = json!({ "name": "narrowed", "permissions": ["agent.read"] });
    let narrowed = admin.post("/api/v1/tokens", &token).await.accepted().value();
    people.insert("narrowed", world.api_as(narrowed["token"].as_str().expect("a token")).from(address()));
    admin.post("/api/v1/organizations", &json!({ "name": "elsewhere" })).await.accepted();
    let tokens = world.log_in("administrator", opsconductor_tests::world::PASSWORD, Some("elsewhere")).await;
    let elsewhere = world.session(&tokens);
    people.insert("other", world.person_of(&elsewhere, "other", Some("administrator"), None).await);

    let mut things =
        Things { world: world.clone(), admin, agent: String::new(), count: 0, secrets: BTreeSet::new() };
    things.agent = things.puppet().await;

    let mut wrong = Vec::new();
    for row in &rows {
        for column in COLUMNS {
            let wanted = &row.wanted[column];
            if wanted == "skip" {
                continue;
            }
            let mut filled = BTreeMap::new();
            let path = fill(&row.path, &mut things, &mut filled).await;
            let body = match &row.body {
                Some(body) => Some(fill(body, &mut things, &mut filled).await),
                None => None,
            };
            let answer = ask(&people[column], &row.method, &path, body.as_deref()).await;
            if answer.status.to_string() != *wanted {
                wrong.push(format!(
                    "{column}: {} {}: {} instead of {wanted}: {}",
                    row.method,
                    row.path,
                    answer.status,
                    answer.text()
                ));
            }
            if column != "other" {
                continue;
            }
            // What it made under the same name is its own, and so are the names in its denials, which its audit keeps.
            if answer.status < 300 || answer.status == 403 {
                things.secrets.retain(|secret| !filled.values().any(|own| own == secret));
            }
            if answer.status < 300 && !row.path.starts_with("/docs") {
                let text = answer.text();
                wrong.extend(
                    things
                        .secrets
                        .iter()
                        .filter(|secret| {
                            text.contains(secret.as_str()) && !filled.values().any(|own| own == *secret)
                        })
                        .map(|secret| {
                            format!("{} {} shows '{secret}' to another organization", row.method, row.path)
                        }),
                );
            }
            // A foreign id is answered as one that nobody has.
            if answer.status == 404 {
                let (mut unknown_path, mut unknown_body) = (path.clone(), body.clone().unwrap_or_default());
                let mut known = answer.text();
                for (index, thing) in filled.values().enumerate() {
                    let nobodys = match uuid::Uuid::try_parse(thing) {
                        Ok(_) => uuid::Uuid::now_v7().to_string(),
                        Err(_) => format!("nobodys-{index}"),
                    };
                    unknown_path = unknown_path.replace(thing.as_str(), &nobodys);
                    unknown_body = unknown_body.replace(thing.as_str(), &nobodys);
                    known = known.replace(thing.as_str(), &nobodys);
                }
                let body = row.body.is_some().then_some(unknown_body.as_str());
                let unknown = ask(&people[column], &row.method, &unknown_path, body).await;
                let without_id = |text: &str| {
                    let mut problem: Value = serde_json::from_str(text).unwrap_or_default();
                    problem["request_id"] = Value::Null;
                    problem
                };
                let (known, unknown) = (without_id(&known), without_id(&unknown.text()));
                if known != unknown {
                    wrong.push(format!(
                        "{} {}: a foreign id: {known}, an unknown one: {unknown}",
                        row.method, row.path
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
    drop(watch);
}

/// A path whose parameters have no names.
fn shape(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}
