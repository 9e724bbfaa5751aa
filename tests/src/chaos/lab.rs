//! What the chaos is made in: a controller, its Postgres, hosts with their networks; all real, all breakable.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sqlx::{Connection, PgConnection};
use tokio::sync::Mutex;

use super::{
    Plan,
    database::Database,
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

/// A host: its agent, and the network between it and the controller.
#[derive(Debug)]
pub struct Host {
    pub name: String,
    pub data: PathBuf,
    pub agent: Arc<Mutex<Agent>>,
    pub network: Network,
}

#[derive(Debug)]
pub struct Lab {
    pub world: World,
    pub api: Api,
    /// Whoever breaks Postgres or the controller holds this.
    pub database: Mutex<Database>,
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
        let world = Builder::default().impatient().database(url.clone()).start().await;
        let (mut hosts, mut groups) = (Vec::new(), Vec::<(String, Vec<String>)>::new());
        for index in 0..plan.agents {
            let (name, group) = (format!("h{index:02}"), format!("g{}", index / GROUP));
            let network = Network::start(world.door()).await.expect("there is a port");
            let new = world.agent(&name).label("group", &group).through(network.address());
            let mut agent = new.variable("OPSC_AGENT_TIMING__SILENCE_SECONDS", "3").enroll().await;
            agent.run();
            match groups.last_mut().filter(|(last, _)| *last == group) {
                Some((_, members)) => members.push(name.clone()),
                None => groups.push((group, vec![name.clone()])),
            }
            hosts.push(Host { name, data: agent.data.clone(), agent: Arc::new(Mutex::new(agent)), network });
        }
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
        Self {
            api: world.api(),
            world,
            database: Mutex::new(database),
            url,
            hosts,
            absent,
            fleet,
            history,
            starts,
            helper,
        }
    }

    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// A connection as the owner of the tables; none while Postgres is away.
    pub async fn sql(&self) -> Option<PgConnection> {
        PgConnection::connect(&self.url).await.ok()
    }

    /// Starts the controller, again when it ends before it is ready: a supervisor does no less. Says how often.
    ///
    /// # Panics
    /// When it does not come back.
    pub async fn start_controller(&self) -> u32 {
        let begun = std::time::Instant::now();
        let nobody = self.world.api_as_nobody();
        for start in 1..=STARTS {
            self.world.run_controller_with(&[]);
            while self.world.controller_ended().is_none() {
                if nobody.try_get("/ready").await.is_some_and(|answer| answer.status == 200) {
                    return start;
                }
                assert!(begun.elapsed() < READY_WITHIN, "the controller does not come back");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("the controller does not come back");
    }

    /// Keeps the logs of everything beside the history.
    pub async fn keep_logs(&self, folder: &std::path::Path) {
        let keep = |name: String, log: &std::path::Path| {
            // One that is missing is none to look at.
            let _ = std::fs::copy(log, folder.join(name));
        };
        keep("controller.log".to_owned(), &self.world.folder().join("controller.log"));
        for host in &self.hosts {
            let agent = host.agent.lock().await;
            keep(format!("{}.log", host.name), agent.log_file());
        }
    }
}
