//! People, roles, tokens and sessions, as a team uses them from the shell.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use opsconductor_tests::{
    SOON, Stage, World, clock, eventually,
    opsctl::{self, Said},
    scene,
    stage::Visit,
    world::{ADMINISTRATOR, PASSWORD},
};
use tokio::{process::Command, sync::OnceCell};

static STAGE: OnceCell<Stage> = OnceCell::const_new();

const ADAS: &str = "a long way to tipperary";

async fn stage() -> Visit {
    Stage::shared(&STAGE, &[("staging1", &[("env", "staging")]), ("prod1", &[("env", "prod")])]).await
}

/// Somebody at a shell of his own, with contexts of his own and no token in the environment.
struct Shell {
    addr: String,
    folder: PathBuf,
}

impl Shell {
    fn new(world: &World) -> Self {
        Self { addr: format!("http://{}", world.http()), folder: scene::new_folder("shell") }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = opsctl::command(&self.addr, "", &self.folder, arguments);
        command.env_remove("OPSC_TOKEN");
        command
    }

    async fn types(&self, line: &str) -> Said {
        let arguments: Vec<&str> = line.split(' ').collect();
        opsctl::run(&mut self.command(&arguments), b"").await
    }

    /// A file with these lines.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, text).expect("the scene's folder can be written");
        path.to_str().expect("our paths are UTF-8").to_owned()
    }

    async fn logs_in(&self, user: &str, password: &str) -> Said {
        let file = self.file("password", password);
        self.types(&format!("login --user {user} --password-file {file}")).await
    }

    fn contexts(&self) -> toml::Table {
        let text = std::fs::read_to_string(self.folder.join("opsctl.toml")).expect("there are contexts");
        text.parse().expect("it is TOML")
    }

    /// The session of the only context.
    fn session(&self) -> Option<toml::Table> {
        let contexts = self.contexts();
        let (_, context) = contexts["contexts"].as_table().expect("contexts").iter().next().expect("one");
        context.get("session").and_then(toml::Value::as_table).cloned()
    }

    /// When the access token that is kept ends.
    fn access_ends(&self) -> Timestamp {
        let session = self.session().expect("a session is kept");
        session["access_expires_at"].as_str().expect("a text").parse().expect("a time")
    }

    /// Has the access token end so soon, as far as `opsctl` knows.
    fn access_ends_in(&self, seconds: i64) {
        let mut contexts = self.contexts();
        let until = clock::now() + SignedDuration::from_secs(seconds);
        for (_, context) in contexts["contexts"].as_table_mut().expect("contexts") {
            let session = context["session"].as_table_mut().expect("a session is kept");
            session.insert("access_expires_at".to_owned(), until.to_string().into());
        }
        self.file("opsctl.toml", &contexts.to_string());
    }
}

#[tokio::test]
async fn a_team_gets_in_and_may_do_what_it_was_given() {
    let stage = stage().await;
    let world = &stage.world;
    let (chief, ada) = (Shell::new(world), Shell::new(world));
    let said = chief.types("agent list").await.ended(4);
    assert!(said.stderr.contains("log in with: opsctl --addr http://"), "{said}");
    let said = chief.logs_in(ADMINISTRATOR, PASSWORD).await.ended(0);
    assert!(said.text().contains("as administrator (main)"), "{said}");

    // In by an invitation, once.
    let said = chief.types("user invite --ttl 1h").await.ended(0);
    let invitation = said.text().lines().next().expect("the token is the first line").to_owned();
    assert!(said.text().contains("accept-invitation --user NAME"), "{said}");
    let accept = format!("accept-invitation --user Ada --password-file {}", ada.file("password", ADAS));
    let accept: Vec<&str> = accept.split(' ').collect();
    let said = opsctl::run(&mut ada.command(&accept), invitation.as_bytes()).await.ended(0);
    assert!(said.text().contains("ada is a member of main"), "{said}");
    opsctl::run(&mut ada.command(&accept), invitation.as_bytes()).await.ended(4);
    let said = chief.types("invitation list -o json").await.ended(0);
    assert_eq!(said.json()[0]["used"], true, "{said}");

    ada.logs_in("ada", "not this one at all").await.ended(4);
    ada.logs_in("ada", ADAS).await.ended(0);
    let said = ada.types("auth whoami -o json").await.ended(0);
    assert_eq!((&said.json()["actor"], &said.json()["credential"]), (&"ada".into(), &"session".into()));
    let said = ada.types("context list").await.ended(0);
    assert!(said.text().contains("ada (main)"), "{said}");

    // Nothing was given yet.
    ada.types("agent list").await.ended(4);
    ada.types("auth can-i execution.create").await.ended(4);
    let said = chief.types("role bind operator --user ada --hosts env=staging").await.ended(0);
    assert!(said.text().contains("ada has the role operator for hosts with env=staging"), "{said}");
    chief.types("role bind operator --user ada --hosts os=linux").await.ended(2);
    chief.types("role bind no-such-role --user ada").await.ended(5);

    // What was given counts within a second.
    eventually(SOON, "the role counts", async || {
        (ada.types("auth can-i execution.create").await.code == 0).then_some(())
    })
    .await;
    let said = ada.types("agent list -o json").await.ended(0);
    assert_eq!(said.json().as_array().map(Vec::len), Some(1), "{said}");
    let said = ada.types("exec -t staging1 -- echo hello").await.ended(0);
    assert!(said.text().contains("hello"), "{said}");
    let said = ada.types("exec --all -- true").await.ended(4);
    assert!(said.stderr.contains("ada may not do this on 1 of the 2 hosts"), "{said}");
    assert!(said.stderr.contains("execution.create"), "{said}");

    // Why, also for others.
    let said = ada.types("auth can-i execution.create --host staging1").await.ended(0);
    assert!(said.text().starts_with("yes: ada may on 'staging1', by the role 'operator'"), "{said}");
    ada.types("auth can-i execution.create --as administrator").await.ended(4);
    let said = chief.types("auth can-i execution.create --host prod1 --as ada").await.ended(4);
    assert!(said.text().starts_with("no: ada may, but not on 'prod1'"), "{said}");
    let said = chief.types("auth why execution.create --host prod1 --as ada").await.ended(0);
    assert!(said.text().contains("the host is not among its hosts"), "{said}");
    let said = chief.types("auth why execution.create --as ada -o json").await.ended(0);
    assert_eq!(said.json()["bindings"][0]["hosts"], "env=staging", "{said}");

    // Gone with the binding.
    let said = chief.types("role bindings -o json").await.ended(0);
    let bindings = said.json();
    let of_ada = bindings.as_array().expect("a list").iter().find(|binding| binding["user"] == "ada");
    let id = of_ada.expect("it is listed")["id"].as_str().expect("an id").to_owned();
    chief.types(&format!("role unbind {id}")).await.ended(0);
    eventually(SOON, "the role does not count any more", async || {
        (ada.types("auth can-i execution.create").await.code == 4).then_some(())
    })
    .await;
    chief.types("user remove ada").await.ended(0);
    let said = ada.types("auth whoami").await.ended(4);
    assert!(said.stderr.contains("log in again with: opsctl --addr"), "{said}");
    assert!(said.stderr.contains("login --user ada --context 127.0.0.1:"), "{said}");
}

#[tokio::test]
async fn groups_roles_accounts_and_tokens() {
    let stage = stage().await;
    let world = &stage.world;
    // The administrator's API token, from the environment.
    let chief = async |line: &str| world.opsctl(&line.split(' ').collect::<Vec<_>>()).await;
    let said = chief(
        "role set restarter --permission self.read,agent.read,execution.read --permission execution.create",
    )
    .await;
    assert!(
        said.ended(0).text().contains("restarter gives self.read,agent.read,execution.read,execution.create")
    );
    chief("role set operator --permission agent.read").await.ended(2);
    let said = chief("role list").await.ended(0);
    assert!(said.text().contains("restarter") && said.text().contains("administrator"), "{said}");

    chief("group create oncall").await.ended(0);
    chief("group create oncall").await.ended(2);
    chief("group add oncall administrator").await.ended(0);
    let said = chief("group list -o json").await.ended(0);
    assert_eq!(said.json()[0]["members"][0], "administrator", "{said}");
    let said = chief("role bind restarter --group oncall -o json").await.ended(0);
    assert_eq!(said.json()["group"], "oncall", "{said}");
    chief("role delete restarter").await.ended(2);
    let said = chief("user show administrator").await.ended(0);
    assert!(said.text().contains("oncall") && said.text().contains("restarter"), "{said}");
    chief("group remove oncall administrator").await.ended(0);
    chief("group add oncall nobody-of-this-name").await.ended(5);

    // A program, which may less than its account.
    chief("service-account create ci").await.ended(0);
    chief("role bind restarter --service-account ci").await.ended(0);
    let said =
        chief("token create deploy --service-account ci --ttl 1h --permission self.read,execution.create,execution.read --hosts env=staging")
            .await
            .ended(0);
    let token = said.text().lines().next().expect("the token is the first line").to_owned();
    assert!(said.text().contains("Of service/ci") && said.text().contains("Hosts: env=staging"), "{said}");
    let program = async |arguments: &[&str]| {
        let mut command = world.opsctl_command(arguments);
        opsctl::run(command.env("OPSC_TOKEN", &token), b"").await
    };
    program(&["exec", "-t", "staging1", "--", "true"]).await.ended(0);
    program(&["exec", "-t", "prod1", "--", "true"]).await.ended(4);
    let said = program(&["auth", "sessions"]).await.ended(4);
    assert!(said.stderr.contains("an API token is not enough"), "{said}");
    let said = chief("token list --all -o json").await.ended(0);
    let listed = said.json();
    let of_ci = listed.as_array().expect("a list").iter().find(|token| token["name"] == "deploy");
    let of_ci = of_ci.expect("it is listed");
    assert_eq!(of_ci["owner"], "service/ci", "{said}");
    assert!(!said.text().contains(&token), "the secret is shown once");
    chief(&format!("token revoke {}", of_ci["id"].as_str().expect("an id"))).await.ended(0);
    program(&["agent", "list"]).await.ended(4);
    chief("service-account delete ci").await.ended(0);
    chief("group delete oncall").await.ended(0);
    chief("role delete restarter").await.ended(0);
}

#[tokio::test]
async fn twenty_at_once_renew_a_session_once() {
    let world = World::start().await;
    let shell = Shell::new(&world);
    shell.logs_in(ADMINISTRATOR, PASSWORD).await.ended(0);
    for seconds in [20, -60, 5] {
        let before = shell.session().expect("a session is kept")["refresh_token"].clone();
        shell.access_ends_in(seconds);
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let mut command = shell.command(&["auth", "whoami"]);
            all.spawn(async move { opsctl::run(&mut command, b"").await });
        }
        while let Some(said) = all.join_next().await {
            said.expect("it does not panic").ended(0);
        }
        let after = shell.session().expect("a session is kept")["refresh_token"].clone();
        assert_ne!(before, after, "it was renewed");
        assert!(shell.access_ends() > clock::now() + SignedDuration::from_secs(300));
    }
    let ended: i64 = sqlx::query_scalar("select count(*) from login_sessions where ended_at is not null")
        .fetch_one(&mut world.sql().await)
        .await
        .expect("the owner may");
    assert_eq!(ended, 0, "no token was presented twice");
}

#[tokio::test]
async fn whoever_follows_for_long_goes_on_with_a_fresh_token() {
    let world = World::start().await;
    let mut agent = world.agent("web1").enroll().await;
    agent.run();
    world.agents_online(1).await;
    let shell = Shell::new(&world);
    shell.logs_in(ADMINISTRATOR, PASSWORD).await.ended(0);
    let go = world.folder().join("go");
    let line = format!("echo before; while ! [ -e '{}' ]; do sleep 0.1; done; echo after", go.display());
    let said =
        opsctl::run(&mut shell.command(&["exec", "--detach", "-t", "web1", "--shell", &line]), b"").await;
    let id = said.ended(0).text().trim().to_owned();

    shell.access_ends_in(32);
    let ends = shell.access_ends();
    let mut command = shell.command(&["logs", "-f", &id]);
    let following = tokio::spawn(async move { opsctl::run(&mut command, b"").await });
    eventually(SOON, "the token that the follower began with is to be renewed", async || {
        (clock::now() + SignedDuration::from_secs(29) > ends).then_some(())
    })
    .await;
    assert_eq!(shell.access_ends(), ends, "the follower has not renewed it yet");
    assert!(world.stop_controller().success());
    world.start_controller().await;
    std::fs::write(&go, "").expect("the folder can be written");
    let said = following.await.expect("it does not panic").ended(0);
    assert!(said.text().contains("before") && said.text().contains("after"), "{said}");
    assert!(said.stderr.contains("connected again"), "{said}");
    assert!(shell.access_ends() > ends, "the follower has renewed it");
}

#[tokio::test]
async fn passwords_second_factors_and_ends_of_sessions() {
    let world = World::start().await;
    let shell = Shell::new(&world);
    shell.logs_in(ADMINISTRATOR, PASSWORD).await.ended(0);

    // A wrong password is not an ended session.
    let wrong = shell.file("two", &format!("not this one at all\n{ADAS}\n"));
    let said = shell.types(&format!("auth password --password-file {wrong}")).await.ended(4);
    assert!(!said.stderr.contains("log in again"), "{said}");
    let short = shell.file("two", &format!("{PASSWORD}\nshort\n"));
    let said = shell.types(&format!("auth password --password-file {short}")).await.ended(2);
    assert!(said.stderr.contains("new must have"), "{said}");
    let right = shell.file("two", &format!("{PASSWORD}\n{ADAS}\n"));
    shell.types(&format!("auth password --password-file {right}")).await.ended(0);
    shell.types("auth whoami").await.ended(0);

    // A second factor, which has no terminal to be asked for on here.
    let started = shell.types("auth totp start -o json").await.ended(0).json();
    let url = started["url"].as_str().expect("it is shown");
    let totp = totp_rs::Totp::from_url(url).expect("the controller made it");
    let totp = totp.generate(clock::now().as_second().try_into().expect("it is after 1970"));
    let said = shell.types(&format!("auth totp confirm {totp} -o json")).await.ended(0);
    let codes = said.json();
    let code = codes["recovery_codes"][0].as_str().expect("codes are shown");
    let other = Shell::new(&world);
    let said = other.logs_in(ADMINISTRATOR, ADAS).await;
    if !said.stderr.contains("--code") {
        scene::skipped("there is a terminal to ask for the code on");
        return;
    }
    said.ended(4);
    let file = other.file("password", ADAS);
    let line = format!("login --user {ADMINISTRATOR} --password-file {file} --code {code}");
    other.types(&line).await.ended(0);

    // The one ends the other's session.
    let sessions = shell.types("auth sessions -o json").await.ended(0).json();
    let sessions = sessions.as_array().expect("a list");
    assert_eq!(sessions.len(), 2);
    let others = sessions.iter().find(|session| session["current"] == false).expect("the other one");
    shell.types(&format!("auth end-session {}", others["id"].as_str().expect("an id"))).await.ended(0);
    let said = other.types("auth whoami").await.ended(4);
    assert!(said.stderr.contains("log in again with"), "{said}");
    shell.types(&format!("auth totp remove --password-file {file}")).await.ended(0);

    // A new password by an administrator's token.
    let said = shell.types("user reset-password administrator -o json").await.ended(0);
    let token = said.json()["token"].as_str().expect("it is shown").to_owned();
    let file = other.file("password", PASSWORD);
    let line = ["reset-password", "--password-file", &file];
    opsctl::run(&mut other.command(&line), token.as_bytes()).await.ended(0);
    other.logs_in(ADMINISTRATOR, PASSWORD).await.ended(0);

    // Another organization, in the same session.
    other.types("organization create shop").await.ended(0);
    let said = other.types("organization use shop").await.ended(0);
    assert!(said.text().contains("administrator works in shop now"), "{said}");
    let said = other.types("auth whoami -o json").await.ended(0);
    assert_eq!(said.json()["organization"], "shop", "{said}");
    other.types("organization list").await.ended(4);
    other.types("organization use nowhere").await.ended(5);
    other.types("organization use main").await.ended(0);
    let said = other.types("organization list").await.ended(0);
    assert!(said.text().contains("shop"), "{said}");

    // Out: here and at the controller.
    let access = other.session().expect("a session is kept")["access_token"].as_str().map(str::to_owned);
    other.types("logout").await.ended(0);
    assert!(other.session().is_none());
    world.api_as(&access.expect("it is a text")).get("/api/v1/whoami").await.refused(401, "bad_credential");
    let said = other.types("auth whoami").await.ended(4);
    assert!(said.stderr.contains("a credential is needed"), "{said}");
    other.types("logout").await.ended(2);
}
