//! A controller with its database and data folder, and what a test does with them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::json;
use sqlx::{Connection, PgConnection};

use crate::{
    SOON,
    agent::NewAgent,
    api::Api,
    eventually,
    opsctl::{self, Said},
    postgres,
    process::{self, Process, show_log},
    scene,
};

/// How long a controller may take until it is ready; an embedded Postgres is made first.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Who sets a World up.
pub const ADMINISTRATOR: &str = "administrator";
pub const PASSWORD: &str = "correct horse battery staple";
/// `lost_after` of an impatient World.
pub const LOST_AFTER: Duration = Duration::from_secs(4);

/// How a World shall be.
#[derive(Debug, Default)]
pub struct Builder {
    embedded: bool,
    database: Option<String>,
    agents: String,
    announces: bool,
    timing: String,
    data: Option<PathBuf>,
    any_address: bool,
    people: &'static str,
    audit: String,
    empty_audit: bool,
}

impl Builder {
    /// With this migrated database, of a server that the caller answers for.
    pub fn database(mut self, url: String) -> Self {
        self.database = Some(url);
        self
    }

    /// With a private Postgres of the controller's own instead of the one that all tests share.
    pub fn embedded(mut self) -> Self {
        self.embedded = true;
        self
    }

    /// Agents' certificates live so long, as the configuration says it (`4s`).
    pub fn certificate_life(mut self, life: &'static str) -> Self {
        self.agents.push_str(&format!("certificate_life = '{life}'\n"));
        self
    }

    /// Controllers' dispatch keys live so long, as the configuration says it (`4s`).
    pub fn dispatch_key_life(mut self, life: &'static str) -> Self {
        self.agents.push_str(&format!("dispatch_key_life = '{life}'\n"));
        self
    }

    /// The controllers tell agents where they are.
    pub fn announcing(mut self) -> Self {
        self.announces = true;
        self
    }

    /// The audit begins behind the setup: its first entry is the test's own. Nothing of it was forwarded before.
    pub fn with_an_empty_audit(mut self) -> Self {
        self.empty_audit = true;
        self
    }

    /// The audit goes to the file `audit.log` in the World's folder too.
    pub fn forwarding(mut self) -> Self {
        self.audit.push_str("file = '{folder}/audit.log'\n");
        self
    }

    /// The audit goes to this syslog server too.
    pub fn syslog(mut self, server: &str) -> Self {
        self.audit.push_str(&format!("syslog = '{server}'\n"));
        self
    }

    /// The controller keeps its state in this folder instead of a new one.
    pub fn data(mut self, folder: &Path) -> Self {
        self.data = Some(folder.to_owned());
        self
    }

    /// What is waited for takes seconds instead of minutes: an agent that is away for [`LOST_AFTER`] is lost.
    pub fn impatient(mut self) -> Self {
        self.timing =
            "[timing]\nstart_window = '2s'\nclock_skew = '1s'\nlost_after = '4s'\nheartbeat = '1s'\n\
                       silence = '3s'\nlease = '3s'\n"
                .to_owned();
        self
    }

    /// As impatient, but an agent may be away for minutes before it is lost.
    pub fn impatient_but_for_absence(self) -> Self {
        let mut patient = self.impatient();
        patient.timing = patient.timing.replace("lost_after = '4s'", "lost_after = '5m'");
        patient
    }

    /// As that, and orders may wait for seconds: a test that waits for an agent's return may take its time.
    pub fn watchful(self) -> Self {
        let mut patient = self.impatient_but_for_absence();
        let slow =
            [("start_window = '2s'", "start_window = '20s'"), ("clock_skew = '1s'", "clock_skew = '5s'")];
        for (quick, slow) in slow {
            patient.timing = patient.timing.replace(quick, slow);
        }
        patient
    }

    /// The agents' door is open at every address of this machine, for agents on hosts of their own.
    pub fn for_hosts(mut self) -> Self {
        self.any_address = true;
        self
    }

    /// With this `[timing]` in the controller's configuration.
    pub fn timing(mut self, timing: &'static str) -> Self {
        self.timing = timing.to_owned();
        self
    }

    /// Everybody may register.
    pub fn with_registration(mut self) -> Self {
        self.people = "[people]\nregistration = true\n";
        self
    }

    /// Starts the controller and waits until it is ready.
    pub async fn start(self) -> World {
        let world = self.prepare();
        world.start_controller().await;
        world
    }

    /// All but the start.
    pub fn prepare(self) -> World {
        pki::install_provider();
        let database = (!self.embedded).then(|| self.database.unwrap_or_else(postgres::migrated_database));
        let Self { agents, announces, timing, any_address, people, audit, empty_audit, .. } = self;
        let settings = Settings { agents, announces, timing, any_address, people, audit, empty_audit };
        World::new(database, settings, self.data, None)
    }
}

/// What the controllers of one installation have in common.
#[derive(Debug, Clone)]
struct Settings {
    agents: String,
    announces: bool,
    timing: String,
    any_address: bool,
    people: &'static str,
    audit: String,
    /// Forget what the setup left in the audit.
    empty_audit: bool,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    data: PathBuf,
    http: SocketAddr,
    agents: SocketAddr,
    database: Option<String>,
    settings: Settings,
    /// Where the administrator's token is.
    token: PathBuf,
    controller: Mutex<Option<Process>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_log("controller", &self.folder.join("controller.log"));
        }
        // An embedded Postgres ends with its controller, orderly.
        if self.database.is_none()
            && let Some(controller) = self.controller.get_mut().unwrap_or_else(PoisonError::into_inner)
        {
            controller.terminate();
        }
    }
}

/// A running controller. Cheap to clone; ends with its last clone.
#[derive(Debug, Clone)]
pub struct World {
    inner: Arc<Inner>,
}

/// Prints the controller's log if the test that holds it panics: a World that several tests share is not dropped then.
#[derive(Debug)]
pub struct Watch(PathBuf);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_log("controller", &self.0);
        }
    }
}

impl World {
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn new(
        database: Option<String>,
        settings: Settings,
        data: Option<PathBuf>,
        token: Option<PathBuf>,
    ) -> Self {
        let folder = scene::new_folder("world");
        let [http, agents] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], scene::free_port())));
        let data = data.unwrap_or_else(|| folder.join("controller"));
        let announce = if settings.announces { format!("announce = '{agents}'\n") } else { String::new() };
        let url = database.as_ref().map_or_else(String::new, |url| format!("[database]\nurl = '{url}'\n"));
        let door = if settings.any_address { SocketAddr::from(([0; 4], agents.port())) } else { agents };
        // What is to be forgotten must not be forwarded before.
        let forward = if settings.empty_audit && token.is_none() { "" } else { &settings.audit };
        let forward = forward.replace("{folder}", &folder.display().to_string());
        let config = format!(
            "data = '{}'\n[http]\nlisten = '{http}'\nurl = 'http://{http}'\n[agents]\nlisten = '{door}'\n{announce}{}{}{}{url}[audit]\n{}[log]\nlevel = 'info,opsconductor_controller=debug'\n",
            data.display(),
            settings.agents,
            settings.people,
            settings.timing,
            forward,
        );
        std::fs::write(folder.join("controller.toml"), config).expect("the scene's folder can be written");
        let token = token.unwrap_or_else(|| data.join("admin.token"));
        let controller = Mutex::new(None);
        Self { inner: Arc::new(Inner { folder, data, http, agents, database, settings, token, controller }) }
    }

    /// More for the configuration of the controller, which has not started yet.
    pub fn configure(&self, more: &str) {
        let path = self.inner.folder.join("controller.toml");
        let config = std::fs::read_to_string(&path).expect("it was written");
        std::fs::write(&path, format!("{config}{more}")).expect("it can be written");
    }

    /// A controller to be on the same database, with the same settings, a data folder and ports of its own. It has not
    /// joined yet.
    pub fn peer(&self) -> Self {
        let Inner { database, settings, token, .. } = &*self.inner;
        Self::new(database.clone(), settings.clone(), None, Some(token.clone()))
    }

    /// This controller, which was stopped, with another database.
    pub async fn restored(&self, database: String) -> Self {
        let path = self.inner.folder.join("controller.toml");
        let config = std::fs::read_to_string(&path).expect("it was written");
        std::fs::write(&path, config.replace(self.database(), &database)).expect("it can be written");
        let Inner { folder, data, http, agents, settings, token, .. } = &*self.inner;
        let world = Self {
            inner: Arc::new(Inner {
                folder: folder.clone(),
                data: data.clone(),
                http: *http,
                agents: *agents,
                database: Some(database),
                settings: settings.clone(),
                token: token.clone(),
                controller: Mutex::new(None),
            }),
        };
        world.start_controller().await;
        world
    }

    /// Another controller that has joined this one's installation and runs.
    pub async fn second_controller(&self) -> Self {
        let peer = self.peer();
        let joined = peer.join(self.door(), &self.join_token().await);
        assert!(joined.status.success(), "join: {}", String::from_utf8_lossy(&joined.stderr));
        peer.start_controller().await;
        peer
    }

    /// A new join token.
    pub async fn join_token(&self) -> String {
        let answer = self.api().act("/api/v1/controllers/join-tokens").await.accepted();
        answer.value()["token"].as_str().expect("the answer shows it").to_owned()
    }

    /// `opsconductor-controller join` at this door.
    pub fn join(&self, door: SocketAddr, token: &str) -> Output {
        let mut command = self.controller_command(&["join", "--controller", &door.to_string()]);
        command.env("OPSC_JOIN_TOKEN", token).output().expect("the controller's program starts")
    }

    /// A World as most tests want it.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Shows the controller's log if the test panics while it holds the answer.
    pub fn watch(&self) -> Watch {
        Watch(self.inner.folder.join("controller.log"))
    }

    pub fn folder(&self) -> &Path {
        &self.inner.folder
    }

    /// The controller's data folder.
    pub fn data(&self) -> PathBuf {
        self.inner.data.clone()
    }

    pub fn http(&self) -> SocketAddr {
        self.inner.http
    }

    /// The agents' door.
    pub fn door(&self) -> SocketAddr {
        self.inner.agents
    }

    /// The controller's command line with `arguments`.
    pub fn controller_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(scene::binary("opsconductor-controller"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.inner.folder.join("controller.toml"))
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .envs(crate::mutant());
        command
    }

    /// Starts the controller that was killed or stopped, with `variables` more in its environment, and does not wait for
    /// it.
    pub fn run_controller_with(&self, variables: &[(&str, &str)]) {
        let mut command = self.controller_command(&["serve"]);
        command.envs(variables.iter().copied());
        let process = Process::spawn(&mut command, self.inner.folder.join("controller.log"));
        *self.controller() = Some(process);
    }

    /// How the controller's process ended, if it has.
    pub fn controller_ended(&self) -> Option<ExitStatus> {
        self.running(Process::ended)
    }

    /// The controller's process.
    pub fn controller_pid(&self) -> u32 {
        self.running(|process| process.pid())
    }

    /// Starts the controller that was killed or stopped, and waits until it is ready.
    pub async fn start_controller(&self) {
        self.start_controller_with(&[]).await;
    }

    /// The same with `variables` more in its environment.
    pub async fn start_controller_with(&self, variables: &[(&str, &str)]) {
        self.run_controller_with(variables);
        let watch = self.watch();
        let api = Api::new(self.inner.http, None);
        eventually(READY_WITHIN, "the controller is ready", async || {
            if let Some(status) = self.controller().as_mut().and_then(Process::ended) {
                panic!("the controller ended by itself: {status}");
            }
            api.try_get("/ready").await.filter(|answer| answer.status == 200)
        })
        .await;
        self.set_up().await;
        drop(watch);
    }

    /// Makes the administrator with a token, if the installation has none yet.
    pub async fn set_up(&self) {
        let Ok(setup) = std::fs::read_to_string(self.data().join("setup.token")) else { return };
        let request =
            json!({ "token": setup, "organization": "main", "user": ADMINISTRATOR, "password": PASSWORD });
        let tokens = self.api_as_nobody().post("/api/v1/setup", &request).await.accepted().value();
        let session = self.api_as(tokens["access_token"].as_str().expect("the answer has it"));
        let request = json!({ "name": "tests", "ttl_seconds": 30 * 24 * 3600 });
        let created = session.post("/api/v1/tokens", &request).await.accepted().value();
        let token = created["token"].as_str().expect("the answer shows it");
        std::fs::write(&self.inner.token, token).expect("the data folder can be written");
        if self.inner.settings.empty_audit {
            self.empty_audit().await;
        }
    }

    /// Takes all out of the audit, as its tables' owner, while nobody looks.
    async fn empty_audit(&self) {
        self.stop_controller();
        let mut sql = self.sql().await;
        let tables = "audit_queue, audit_chain, audit_checkpoints, audit_entries, audit_forwarded, events";
        sqlx::query(sqlx::AssertSqlSafe(format!("truncate {tables}")))
            .execute(&mut sql)
            .await
            .expect("the owner may");
        let path = self.inner.folder.join("controller.toml");
        let config = std::fs::read_to_string(&path).expect("it was written");
        let forward =
            &self.inner.settings.audit.replace("{folder}", &self.inner.folder.display().to_string());
        let config = config.replace("[audit]\n", &format!("[audit]\n{forward}"));
        std::fs::write(&path, config).expect("it can be written");
        // It ends here: the setup token is gone.
        Box::pin(self.start_controller()).await;
    }

    fn controller(&self) -> MutexGuard<'_, Option<Process>> {
        self.inner.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running<T>(&self, with: impl FnOnce(&mut Process) -> T) -> T {
        with(self.controller().as_mut().expect("the controller was started"))
    }

    /// SIGKILL, as a crash.
    pub fn kill_controller(&self) {
        self.running(Process::kill);
    }

    /// SIGTERM, and its orderly end.
    pub fn stop_controller(&self) -> ExitStatus {
        self.running(Process::terminate)
    }

    /// Sends it a signal, as SIGSTOP and SIGCONT.
    pub fn signal_controller(&self, signal: Signal) {
        self.running(|process| process::signal(process.pid(), signal));
    }

    pub fn controller_log(&self) -> String {
        self.running(|process| process.log())
    }

    /// The administrator's token.
    pub fn token(&self) -> String {
        std::fs::read_to_string(&self.inner.token).expect("the setup wrote it").trim().to_owned()
    }

    /// The API with the administrator's token.
    pub fn api(&self) -> Api {
        self.api_as(&self.token())
    }

    pub fn api_as(&self, token: &str) -> Api {
        Api::new(self.inner.http, Some(token.to_owned()))
    }

    /// The API without any credential.
    pub fn api_as_nobody(&self) -> Api {
        Api::new(self.inner.http, None)
    }

    /// A connection to the database as its owner.
    pub async fn sql(&self) -> PgConnection {
        let url =
            self.inner.database.as_ref().expect("an embedded Postgres lets nobody but its controller in");
        PgConnection::connect(url).await.expect("the database answers")
    }

    pub(crate) fn is_impatient(&self) -> bool {
        !self.inner.settings.timing.is_empty()
    }

    /// The URL of the database.
    pub fn database(&self) -> &str {
        self.inner.database.as_ref().expect("an embedded Postgres has no URL")
    }

    /// An agent to be: labels, slots and the like can be said before it is started.
    pub fn agent(&self, name: &str) -> NewAgent {
        NewAgent::new(self.clone(), name)
    }

    /// The enroll token that this request makes.
    pub async fn enroll_token(&self, request: &serde_json::Value) -> String {
        let answer = self.api().post("/api/v1/enroll-tokens", request).await.accepted();
        answer.value()["token"].as_str().expect("the answer shows it").to_owned()
    }

    /// Runs the real `opsctl` as the administrator.
    pub async fn opsctl(&self, arguments: &[&str]) -> Said {
        self.opsctl_with_input(arguments, b"").await
    }

    /// As [`Self::opsctl`], with `input` on its standard input.
    pub async fn opsctl_with_input(&self, arguments: &[&str], input: &[u8]) -> Said {
        let mut command = self.opsctl_command(arguments);
        opsctl::run(&mut command, input).await
    }

    /// The command line of `opsctl`, for tests that change more about it.
    pub fn opsctl_command(&self, arguments: &[&str]) -> tokio::process::Command {
        opsctl::command(&format!("http://{}", self.inner.http), &self.token(), &self.inner.folder, arguments)
    }

    /// Waits until this many agents are online.
    pub async fn agents_online(&self, count: usize) {
        let api = self.api();
        eventually(SOON, "the agents are online", async || {
            let page = api.get("/api/v1/agents?limit=1000").await.accepted().value();
            let online = page["items"].as_array()?.iter().filter(|agent| agent["state"] == "online").count();
            (online == count).then_some(())
        })
        .await;
    }
}
