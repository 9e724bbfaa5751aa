//! What the chaos is made in: controllers, their Postgres, hosts with their networks; all real, all breakable.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sqlx::{Connection, PgConnection};
use tokio::sync::{Mutex, RwLock};

use super::{
    Plan,
    database::Database,
    disk::Disk,
    history::{History, Record},
    job::Fleet,
    network::Network,
};
use crate::{Agent, World, api::Api, scene, world::Builder};

/// Hosts of one group; jobs are aimed at groups.
const GROUP: usize = 5;
/// How often a controller that ends while it starts is started again, as its supervisor would.
const STARTS: u32 = 20;
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The controllers, as the history names them.
pub const CONTROLLERS: [&str; 2] = ["controller-1", "controller-2"];

/// A controller; all of them share the Postgres.
#[derive(Debug)]
pub struct Controller {
    pub name: &'static str,
    /// As the API names it.
    pub id: String,
    pub world: World,
    api: Api,
    /// Whoever breaks it holds this.
    pub turn: Mutex<()>,
}

/// A host: its agent, and the network between it and the controllers.
#[derive(Debug)]
pub struct Host {
    pub name: String,
    pub data: PathBuf,
    pub agent: Arc<Mutex<Agent>>,
    pub network: Network,
    /// Of a host that can lose its power.
    pub disk: Option<Disk>,
}

#[derive(Debug)]
pub struct Lab {
    pub controllers: Vec<Controller>,
    /// Whoever breaks Postgres holds it alone; whoever breaks a controller shares it.
    pub database: RwLock<Database>,
    pub url: String,
    pub hosts: Vec<Host>,
    /// Enrolled, and never there.
    pub absent: Vec<Agent>,
    pub fleet: Fleet,
    pub history: History,
    pub starts: PathBuf,
    pub helper: PathBuf,
}

impl Lab {
    /// Everything up and well.
    ///
    /// # Panics
    /// When it cannot be.
    pub async fn build(plan: &Plan) -> Self {
        pki::install_provider();
        let database = Database::start().await;
        let url = database.url();
        let first = Builder::default().timing(super::TIMING).database(url.clone()).start().await;
        let second = first.second_controller().await;
        let controllers: Vec<Controller> =
            CONTROLLERS.into_iter().zip([first, second]).map(Controller::new).collect();
        let (hosts, groups) = hosts(plan.agents, &controllers).await;
        let world = &controllers[0].world;
        let mut absent = Vec::new();
        for name in ["absent-1", "absent-2"] {
            absent.push(world.agent(name).enroll().await);
        }
        world.agents_online(hosts.len()).await;
        let fleet = Fleet {
            groups,
            hosts: hosts.iter().map(|host| host.name.clone()).collect(),
            absent: absent.iter().map(|agent| agent.name.clone()).collect(),
        };
        let starts = world.folder().join("starts");
        std::fs::write(&starts, "").expect("the scene's folder can be written");
        let history = History::create(&plan.folder.join("history.jsonl"));
        history.add(Record::Begun { seed: plan.seed, seconds: plan.seconds, hosts: fleet.hosts.clone() });
        let helper = scene::binary("opsconductor-chaos-job");
        let database = RwLock::new(database);
        Self { controllers, database, url, hosts, absent, fleet, history, starts, helper }
    }

    /// The API of any of the controllers: nothing that is asked for needs a certain one.
    pub fn api(&self) -> &Api {
        &self.controllers[fastrand::usize(0..self.controllers.len())].api
    }

    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// A connection as the owner of the tables; none while Postgres is away.
    pub async fn sql(&self) -> Option<PgConnection> {
        PgConnection::connect(&self.url).await.ok()
    }

    /// Keeps the logs of everything beside the history.
    pub async fn keep_logs(&self, folder: &std::path::Path) {
        let keep = |name: String, log: &std::path::Path| {
            // One that is missing is none to look at.
            let _ = std::fs::copy(log, folder.join(name));
        };
        for controller in &self.controllers {
            keep(format!("{}.log", controller.name), &controller.world.folder().join("controller.log"));
        }
        for host in &self.hosts {
            let agent = host.agent.lock().await;
            keep(format!("{}.log", host.name), agent.log_file());
        }
    }
}

/// The hosts, each with its agent enrolled and running, and the groups with their members.
async fn hosts(count: usize, controllers: &[Controller]) -> (Vec<Host>, Vec<(String, Vec<String>)>) {
    let world = &controllers[0].world;
    let doors: Vec<_> = controllers.iter().map(|controller| controller.world.door()).collect();
    let (mut hosts, mut groups) = (Vec::new(), Vec::<(String, Vec<String>)>::new());
    for index in 0..count {
        let (name, group) = (format!("h{index:02}"), format!("g{}", index / GROUP));
        let network = Network::start(&doors).await.expect("there is a port");
        // Each half of them turns to another controller first.
        let mut order = network.doors().to_vec();
        order.rotate_left(index % doors.len());
        let new = world.agent(&name).label("group", &group).through(order[0]).controllers(&order);
        let mut new = new.variable("OPSC_AGENT_TIMING__SILENCE_SECONDS", "3");
        if scene::is_root() && index % 3 == 1 {
            new = new.without_groups();
        }
        let disk = (scene::is_root() && index % 3 == 2).then(|| Disk::create(&name)).flatten();
        if let Some(disk) = &disk {
            new = new.data(&disk.mounted().join("data")).own_boot();
        }
        let mut agent = new.enroll().await;
        agent.run();
        match groups.last_mut().filter(|(last, _)| *last == group) {
            Some((_, members)) => members.push(name.clone()),
            None => groups.push((group, vec![name.clone()])),
        }
        let data = agent.data.clone();
        hosts.push(Host { name, data, agent: Arc::new(Mutex::new(agent)), network, disk });
    }
    (hosts, groups)
}

impl Controller {
    /// The controller of this name, which runs.
    fn new((name, world): (&'static str, World)) -> Self {
        let id = std::fs::read_to_string(world.data().join("controller-id")).expect("a start writes it");
        Self { name, id: id.trim().to_owned(), api: world.api(), world, turn: Mutex::new(()) }
    }

    /// Starts it, again when it ends before it is ready: a supervisor does no less. Says how often.
    ///
    /// # Panics
    /// When it does not come back.
    pub async fn start(&self) -> u32 {
        let begun = std::time::Instant::now();
        let nobody = self.world.api_as_nobody();
        for start in 1..=STARTS {
            self.world.run_controller_with(&[]);
            while self.world.controller_ended().is_none() {
                if nobody.try_get("/ready").await.is_some_and(|answer| answer.status == 200) {
                    return start;
                }
                assert!(begun.elapsed() < READY_WITHIN, "{} does not come back", self.name);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("{} does not come back", self.name);
    }

    /// Starts it when it has ended, and tells how it did; nobody else may be breaking it.
    pub async fn mend(&self, history: &History) {
        if let Some(status) = self.world.controller_ended() {
            let (at, who) = (history.now(), self.name.to_owned());
            history.add(Record::Fell { at, who, how: status.to_string() });
            self.start().await;
        }
    }
}
