//! A World with agents that the tests of a module share, because none of them breaks it.

use tokio::sync::OnceCell;

use crate::{Agent, World, process::show_log, world::Watch};

/// The name of an agent and its labels.
pub type Cast<'a> = (&'a str, &'a [(&'a str, &'a str)]);

/// A World and its agents. In a static it outlives the tests; the janitor ends it.
#[derive(Debug)]
pub struct Stage {
    pub world: World,
    pub agents: Vec<Agent>,
}

/// A test's use of a stage: shows the logs if the test panics.
#[derive(Debug)]
pub struct Visit {
    stage: &'static Stage,
    _watch: Watch,
}

impl std::ops::Deref for Visit {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        self.stage
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for agent in &self.stage.agents {
                show_log(&format!("agent {}", agent.name), agent.log_file());
            }
        }
    }
}

impl Stage {
    /// The stage in `cell`, which the first test to come sets up.
    pub async fn shared(cell: &'static OnceCell<Self>, cast: &[Cast<'_>]) -> Visit {
        let stage = cell.get_or_init(|| Self::set_up(cast)).await;
        Visit { stage, _watch: stage.world.watch() }
    }

    async fn set_up(cast: &[Cast<'_>]) -> Self {
        let world = World::start().await;
        let mut agents = Vec::new();
        for (name, labels) in cast {
            let agent = labels.iter().fold(world.agent(name), |agent, (key, value)| agent.label(key, value));
            let mut agent = agent.enroll().await;
            agent.run();
            agents.push(agent);
        }
        world.agents_online(agents.len()).await;
        Self { world, agents }
    }
}
