//! The World: what the integration tests stand on. Everything in it is real: the built controller, agents and `opsctl`
//! as processes, Postgres, mutual TLS, and a TCP proxy whose faults a test can ask for. There are no mocks.
//!
//! Invariants:
//! 1. A test waits for conditions ([`eventually`]), never for a time.
//! 2. Whatever a test starts is ended when its handle is dropped; what a test process leaves when it is killed itself
//!    is ended by its janitor (see [`scene`]).
//! 3. Every process has the scene's folder in its arguments; that, and nothing else, is what the janitor looks for.
//! 4. When a test panics, the logs of its processes are printed.

pub mod agent;
pub mod api;
pub mod chaos;
pub mod clock;
pub mod door;
pub mod host;
pub mod openid;
pub mod opsctl;
pub mod people;
pub mod player;
pub mod podman;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod scene;
pub mod small_disk;
pub mod stage;
pub mod web_server;
pub mod world;

use std::time::Duration;

pub use agent::Agent;
pub use api::{Answer, Api, Finished};
pub use host::Host;
pub use openid::OpenId;
pub use proxy::Proxy;
pub use stage::Stage;
pub use world::World;

/// How long a condition may take that should hold within moments: two slow cores with many processes.
pub const SOON: Duration = Duration::from_secs(30);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a mutant's build is told by (see `make chaos-mutants`); nothing else of the environment reaches a process.
pub(crate) fn mutant() -> Option<(&'static str, std::ffi::OsString)> {
    std::env::var_os(MUTANT).map(|mutant| (MUTANT, mutant))
}

/// Names the mutation of a mutant's build.
pub const MUTANT: &str = "OPSC_MUTANT";

/// Waits until `look` gives something.
///
/// # Panics
/// When it has not within `within`; the message says that `what` did not happen.
pub async fn eventually<T>(within: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = tokio::time::Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
