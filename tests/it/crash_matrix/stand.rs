//! A World with one agent whose processes may die at any moment, and are started again, as a supervisor would.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use model::{
    api::{
        Page,
        execution::{Execution, Run},
        output::{OutputPage, OutputPiece, Stream},
    },
    id::ExecutionId,
};
use nix::sys::signal::Signal;
use opsconductor_tests::{Agent, Answer, Api, World, agent::UNCONFINED, api, process};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    jobs::{Excuse, Job, KINDS, Kind},
    points::Victim,
};

/// How long something may take that happens after one crash and one restart.
const WITHIN: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The shim has recorded the end then, and nothing is unknown.
const RECORDED: [&str; 2] = ["shim.record.renamed", "shim.ended.told"];

pub(super) struct Stand {
    world: World,
    agent: Agent,
    api: Api,
    log: PathBuf,
    /// What is armed now, as `OPSC_FAULT` says it; nothing once it was reached and its process started again.
    armed: Option<String>,
    jobs: Vec<Job>,
    started: u32,
}

impl Stand {
    pub(super) async fn new() -> Self {
        let world = World::builder().forwarding().prepare();
        world.configure("\n[egress]\nallow = ['127.0.0.1']\n");
        world.start_controller().await;
        Self::on(world).await
    }

    pub(super) async fn on(world: World) -> Self {
        let agent = world.agent("one").start().await;
        let (api, log) = (world.api(), world.folder().join("fault.log"));
        Self { world, agent, api, log, armed: None, jobs: Vec::new(), started: 0 }
    }

    /// Lets a process die at the `hit`th time that it reaches `point`, and checks what comes of it. Tells whether it was
    /// reached.
    pub(super) async fn try_point(&mut self, point: &str, hit: u32) -> bool {
        self.arm(point, hit);
        let excuse = match Victim::of(point) {
            Victim::Shim if !RECORDED.contains(&point) => Excuse::ShimDied,
            Victim::Agent | Victim::Controller | Victim::Link | Victim::Shim => Excuse::None,
        };
        for kind in KINDS {
            self.run(kind, excuse).await;
            if self.was_reached() {
                break;
            }
        }
        let was_reached = self.was_reached();
        self.disarm();
        was_reached
    }

    /// Starts the process anew with the point armed.
    fn arm(&mut self, point: &str, hit: u32) {
        // A log that is not there is as good as an empty one.
        let _ = std::fs::remove_file(&self.log);
        self.armed = Some(format!("{point}:{hit}"));
        self.restart(Victim::of(point));
    }

    /// Starts what is still armed anew, without.
    fn disarm(&mut self) {
        if let Some(point) = self.armed.take() {
            self.restart(Victim::of(&point));
        }
    }

    /// Kills the process, and starts it with what is armed of it.
    fn restart(&mut self, victim: Victim) {
        let log = self.log.to_str().expect("our paths are UTF-8");
        let is_controller = |victim: Victim| victim == Victim::Controller;
        let armed = self.armed.as_deref().filter(|it| is_controller(Victim::of(it)) == is_controller(victim));
        let armed = armed.map(|point| [("OPSC_FAULT", point), ("OPSC_FAULT_LOG", log)]);
        let variables = armed.as_ref().map_or(&[][..], |armed| &armed[..]);
        match victim {
            Victim::Controller => {
                self.world.kill_controller();
                self.world.run_controller_with(variables);
            }
            // Its other processes have the agent's variables.
            Victim::Agent | Victim::Link | Victim::Shim => {
                self.agent.kill();
                self.agent.run_armed(variables);
            }
        }
    }

    fn was_reached(&self) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|log| !log.is_empty())
    }

    /// Starts again what has died, which only the armed process may.
    fn tend(&mut self) {
        let (agent, controller) = (self.agent.has_ended(), self.world.controller_ended().is_some());
        if !agent && !controller {
            return;
        }
        let died = self.armed.take().filter(|_| self.was_reached()).map(|point| Victim::of(&point));
        match died {
            Some(Victim::Controller) if !agent => self.restart(Victim::Controller),
            Some(Victim::Agent) if !controller => self.restart(Victim::Agent),
            _ => panic!("the agent ({agent}) or the controller ({controller}) has ended by itself"),
        }
    }

    /// Waits for a condition while processes die.
    async fn until<T>(&mut self, what: &str, mut look: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            self.tend();
            if let Some(found) = look(self).await {
                return found;
            }
            assert!(begun.elapsed() < WITHIN, "not within {WITHIN:?}: {what}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The answer to a GET, from whichever controller gives one.
    async fn get(&mut self, path: &str) -> Answer {
        self.until(&format!("an answer to GET {path}"), async |stand| {
            stand.api.try_get(path).await.filter(|answer| answer.status == 200)
        })
        .await
    }

    /// Runs a job of this kind to its end, and waits until nothing of it is left to do.
    async fn run(&mut self, kind: Kind, excuse: Excuse) {
        let policy = self.agent.policy();
        if kind == Kind::Refused {
            std::fs::write(&policy, "paused = true").expect("the agent's folder can be written");
        }
        let mut job = self.start(kind).await;
        match kind {
            Kind::Cancelled => self.cancel(&job).await,
            Kind::Long => {
                self.has_saved_its_place(&job).await;
                self.tend();
                self.restart(Victim::Agent);
            }
            Kind::Again => {
                self.has_begun(&job).await;
                for shim in self.agent.shims() {
                    process::signal(shim, Signal::SIGKILL);
                }
            }
            Kind::Short | Kind::Planned | Kind::Refused | Kind::Stubborn => {}
        }
        job.check(self, excuse).await;
        if kind == Kind::Refused {
            std::fs::write(&policy, UNCONFINED).expect("it was written before");
        }
        self.lets_go().await;
        self.jobs.push(job);
    }

    /// Waits until the agent has removed all that it had of runs.
    pub(super) async fn lets_go(&mut self) {
        let attempts = self.agent.data.join("executor/attempts");
        self.until("the agent lets go of what is over", async |_| {
            std::fs::read_dir(&attempts).ok()?.next().is_none().then_some(())
        })
        .await;
    }

    pub(super) async fn start(&mut self, kind: Kind) -> Job {
        self.started += 1;
        let (body, tale, mark) = Job::request(kind, self.world.folder(), self.started, self.world.http());
        let key = format!("matrix-{}", self.started);
        let (path, body) = match kind {
            Kind::Planned => self.save(&Job::name(self.started), &body).await,
            _ => ("/api/v1/executions".to_owned(), body),
        };
        let execution: Execution = self
            .until("the execution is taken", async |stand| {
                let request = stand.api.request(Method::POST, &path).header("Idempotency-Key", &key);
                let answer = stand.api.try_send(request.json(&body)).await?;
                (answer.status / 100 == 2).then(|| answer.json())
            })
            .await;
        Job::new(kind, execution.id, tale, mark)
    }

    /// Saves a job; the path and the body of its start.
    async fn save(&mut self, name: &str, body: &Value) -> (String, Value) {
        let path = format!("/api/v1/jobs/{name}");
        self.until("the job is saved", async |stand| {
            let request = stand.api.request(Method::PUT, &path);
            stand.api.try_send(request.json(body)).await.filter(|answer| answer.status / 100 == 2)
        })
        .await;
        (format!("{path}/execute"), json!({ "targets": { "hosts": ["one"] } }))
    }

    /// Cancels a run that has begun.
    pub(super) async fn cancel(&mut self, job: &Job) {
        self.has_begun(job).await;
        let path = format!("/api/v1/executions/{}/cancel", job.id);
        self.until("the cancel is taken", async |stand| {
            let request = stand.api.request(Method::POST, &path);
            stand.api.try_send(request).await.filter(|answer| answer.status / 100 == 2)
        })
        .await;
    }

    /// Waits until the run's program was started, or it is known that it is over.
    async fn has_begun(&mut self, job: &Job) {
        let path = format!("/api/v1/executions/{}", job.id);
        self.until("the run begins", async |stand| {
            if job.starts() > 0 {
                return Some(());
            }
            let execution: Execution =
                stand.api.try_get(&path).await.filter(|answer| answer.status == 200)?.json();
            execution.state.is_terminal().then_some(())
        })
        .await;
    }

    /// Waits until much of its output is stored, or it is over.
    async fn has_saved_its_place(&mut self, job: &Job) {
        const BYTES: i64 = 70;
        let path = format!("/api/v1/executions/{}/runs", job.id);
        self.until("most of the output arrives", async |stand| {
            let answer = stand.api.try_get(&path).await.filter(|answer| answer.status == 200)?;
            let run = answer.json::<Page<Run>>().items.pop()?;
            (run.output.stdout.stored_bytes > BYTES || run.state.is_terminal()).then_some(())
        })
        .await;
    }

    /// Asks for an execution, and takes no answer for one.
    pub(super) async fn look(&mut self, id: ExecutionId) {
        self.tend();
        let _ = self.api.try_get(&format!("/api/v1/executions/{id}")).await;
    }

    /// The only run of an execution that has ended; of one that succeeded, all output is stored.
    pub(super) async fn ended(&mut self, id: ExecutionId) -> Run {
        let path = format!("/api/v1/executions/{id}/runs");
        self.until(&format!("the end of execution {id}"), async |stand| {
            let answer = stand.api.try_get(&path).await.filter(|answer| answer.status == 200)?;
            let run = answer.json::<Page<Run>>().items.pop()?;
            let is_whole = run.state != model::run::RunState::Succeeded || run.output.complete == Some(true);
            (run.state.is_terminal() && is_whole).then_some(run)
        })
        .await
    }

    /// What both streams of an execution's only run hold; panics at a hole or a gap.
    pub(super) async fn output(&mut self, id: ExecutionId) -> [Vec<u8>; 2] {
        let (mut after, mut pieces) = (0, Vec::<OutputPiece>::new());
        loop {
            let path = format!("/api/v1/executions/{id}/output?limit=1000&after={after}");
            let page: OutputPage = self.get(&path).await.json();
            let is_last = page.items.is_empty() || page.end;
            after = page.next_after;
            pieces.extend(page.items);
            if is_last {
                break;
            }
        }
        [Stream::Stdout, Stream::Stderr].map(|stream| {
            let of_stream: Vec<_> = pieces.iter().filter(|piece| piece.stream == stream).cloned().collect();
            api::bytes(&of_stream)
        })
    }

    /// Checks that all results are still what they were when they were shown first, and that nothing is open.
    pub(super) async fn check_all_again(&mut self) {
        let open = "select count(*) from attempts where state in ('offered', 'accepted', 'started')";
        let open: i64 =
            sqlx::query_scalar(open).fetch_one(&mut self.world.sql().await).await.expect("it answers");
        assert_eq!(open, 0, "attempts are open, and all runs are over");
        for job in std::mem::take(&mut self.jobs) {
            job.check_again(self).await;
        }
    }
}
