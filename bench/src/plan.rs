//! How much is measured: the full numbers, and small ones to see that everything works.

use std::time::Duration;

/// All numbers of a measurement.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) quick: bool,
    /// Of every figure but those of connecting.
    pub(crate) repetitions: usize,
    /// Executions before the first repetition that are not counted.
    pub(crate) warm_up: usize,
    pub(crate) floor_window: Duration,
    pub(crate) floor_connections: usize,
    pub(crate) fanout_agents: usize,
    pub(crate) great_fanout_agents: usize,
    pub(crate) fanout_real_agents: usize,
    /// Executions one after the other, in each repetition.
    pub(crate) execs: usize,
    /// Executions several at a time, in each repetition.
    pub(crate) flights: usize,
    pub(crate) in_flight: usize,
    pub(crate) job_hosts: usize,
    pub(crate) job_steps: usize,
    /// Rollouts with planted failures, each on all hosts of a job.
    pub(crate) rollouts: usize,
    pub(crate) matrix_hosts: usize,
    pub(crate) matrix_steps: usize,
    /// Due in the same second, and in the table besides.
    pub(crate) schedules_due: usize,
    pub(crate) schedules_idle: usize,
    /// Firings at each full second, and for how many.
    pub(crate) schedules_per_second: usize,
    pub(crate) schedules_seconds: i64,
    /// Executions of each profile in turn, in each repetition.
    pub(crate) sandboxed: usize,
    pub(crate) connect_agents: usize,
    /// Each on a controller process of its own.
    pub(crate) connect_repetitions: usize,
    /// From the last connection to the reading of the controller's memory.
    pub(crate) connect_settle: Duration,
    pub(crate) tail_agents: usize,
    pub(crate) tail_rate: u32,
    pub(crate) tail_seconds: u32,
    pub(crate) sequence_last: u64,
    pub(crate) flood_agents: usize,
    /// Of each agent, when as fast as it can.
    pub(crate) flood_mib: u32,
    /// Of all agents, each second, and for how long.
    pub(crate) flood_rate_mib: u32,
    pub(crate) flood_seconds: u32,
    pub(crate) reconnect_repetitions: usize,
    pub(crate) api_connections: usize,
    pub(crate) api_window: Duration,
    /// Requests a second of the open loop.
    pub(crate) api_rate: u32,
    /// Of the person who has many.
    pub(crate) bindings: usize,
    /// Requests of each of two people, in each repetition.
    pub(crate) authorized: usize,
    /// Of an export that is verified.
    pub(crate) verified_entries: i64,
    pub(crate) idle_settle: Duration,
    pub(crate) idle_window: Duration,
}

impl Plan {
    pub(crate) const fn full() -> Self {
        Self {
            quick: false,
            repetitions: 5,
            warm_up: 3,
            floor_window: Duration::from_millis(500),
            floor_connections: 2000,
            fanout_agents: 1000,
            great_fanout_agents: 5000,
            fanout_real_agents: 50,
            execs: 300,
            flights: 600,
            in_flight: 16,
            job_hosts: 500,
            job_steps: 20,
            rollouts: 200,
            matrix_hosts: 10_000,
            matrix_steps: 10,
            schedules_due: 2000,
            schedules_idle: 98_000,
            schedules_per_second: 200,
            schedules_seconds: 10,
            sandboxed: 60,
            connect_agents: 10_000,
            connect_repetitions: 5,
            connect_settle: Duration::from_secs(12),
            tail_agents: 20,
            tail_rate: 1000,
            tail_seconds: 5,
            sequence_last: 2_000_000,
            flood_agents: 4,
            flood_mib: 64,
            flood_rate_mib: 48,
            flood_seconds: 5,
            reconnect_repetitions: 3,
            api_connections: 16,
            api_window: Duration::from_secs(4),
            api_rate: 1000,
            bindings: 1000,
            authorized: 5000,
            verified_entries: 1_000_000,
            idle_settle: Duration::from_secs(5),
            idle_window: Duration::from_secs(20),
        }
    }

    pub(crate) const fn quick() -> Self {
        Self {
            quick: true,
            repetitions: 1,
            warm_up: 1,
            floor_window: Duration::from_millis(50),
            floor_connections: 50,
            fanout_agents: 40,
            great_fanout_agents: 60,
            fanout_real_agents: 3,
            execs: 20,
            flights: 40,
            in_flight: 16,
            job_hosts: 20,
            job_steps: 4,
            rollouts: 5,
            matrix_hosts: 250,
            matrix_steps: 3,
            schedules_due: 20,
            schedules_idle: 500,
            schedules_per_second: 5,
            schedules_seconds: 2,
            sandboxed: 3,
            connect_agents: 100,
            connect_repetitions: 1,
            connect_settle: Duration::from_millis(200),
            tail_agents: 2,
            tail_rate: 200,
            tail_seconds: 1,
            sequence_last: 20_000,
            flood_agents: 2,
            flood_mib: 2,
            flood_rate_mib: 4,
            flood_seconds: 1,
            reconnect_repetitions: 1,
            api_connections: 4,
            api_window: Duration::from_millis(500),
            api_rate: 200,
            bindings: 20,
            authorized: 100,
            verified_entries: 10_000,
            idle_settle: Duration::from_millis(200),
            idle_window: Duration::from_secs(1),
        }
    }
}
