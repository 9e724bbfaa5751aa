//! Bombs on one host, all at once: it goes on answering, and nothing of them is left.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use model::id::RunId;
use opsconductor_agent::sandbox::strays;
use proto::Profile;

use super::{PYTHON, can_try};
use crate::one_shim::{Shim, argv, spec, take_host, wait_for};

const FORKS: &str = "import os
while True:
    try:
        os.fork()
    except OSError:
        pass";
const MEMORY: &str = "taken = []
while True:
    taken.append(bytearray(b'x' * (8 << 20)))";
const PROCESSOR: &str = "import os
os.fork()
while True:
    pass";
/// Each with the one end that it may have, and the milliseconds that it has for it. One for memory among fifty gets little of a
/// processor, and still has to come to its limit.
const BOMBS: [(&str, &str, u64); 3] =
    [(FORKS, "time_limit", 3_000), (MEMORY, "memory_limit", 60_000), (PROCESSOR, "time_limit", 3_000)];
const TOGETHER: usize = 50;
const TICK: Duration = Duration::from_millis(10);
/// How late the heartbeat may be, but for one of a hundred.
const LATE: Duration = Duration::from_secs(1);
/// After which nothing of a bomb may be left.
const GONE_WITHIN: Duration = Duration::from_secs(10);

struct Bomb {
    shim: Shim,
    run_id: RunId,
    expected: &'static str,
}

fn light((program, expected, timeout_ms): (&str, &'static str, u64)) -> Bomb {
    let mut command = argv(&[PYTHON, "-ISc", program]);
    command.profile = Profile::Standard.into();
    command.cwd = String::new();
    command.timeout_ms = timeout_ms;
    command.limits = Some(proto::Limits {
        memory_bytes: 64 << 20,
        pids: 50,
        cpu_percent: 100,
        ..proto::Limits::default()
    });
    let mut ordered = spec(command);
    (ordered.first_uid, ordered.last_uid) = model::limits::DYNAMIC_UIDS;
    let run_id = RunId::from_bytes(&ordered.run_id).unwrap();
    Bomb { shim: Shim::start(&ordered), run_id, expected }
}

/// Ticks until it is told to stop; how late each tick was.
fn heartbeat(stop: &AtomicBool) -> Vec<Duration> {
    let mut late = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let due = Instant::now() + TICK;
        thread::sleep(TICK);
        late.push(due.elapsed());
    }
    late
}

/// Lights so many at once, and waits for the end of all.
fn explode(bombs: impl Iterator<Item = (&'static str, &'static str, u64)>) {
    let _host = take_host();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let heart = scope.spawn(|| heartbeat(&stop));
        let lit: Vec<Bomb> = bombs.map(light).collect();
        let mut ids = Vec::new();
        let mut wrong = Vec::new();
        for Bomb { shim, run_id, expected } in lit {
            let (record, output) = shim.finish();
            if record.reason != expected {
                let errors = String::from_utf8_lossy(&output.stderr.data).into_owned();
                wrong.push(format!("{expected:?}: {record:?} {errors}"));
            }
            ids.push(run_id);
        }
        stop.store(true, Ordering::Relaxed);
        let mut late = heart.join().unwrap();
        late.sort();
        let p99 = late[late.len() * 99 / 100];
        eprintln!("heartbeat: {} ticks, p99 {p99:?} late, worst {:?}", late.len(), late[late.len() - 1]);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(p99 < LATE, "the heartbeat was {p99:?} late");
        let begun = Instant::now();
        wait_for("the bombs are gone", || ids.iter().all(|id| strays::find(*id, 1).is_empty()));
        assert!(begun.elapsed() < GONE_WITHIN, "something was left for {:?}", begun.elapsed());
    });
}

#[test]
fn fifty_bombs_at_once_leave_the_host_responsive() {
    if can_try() {
        explode(BOMBS.into_iter().cycle().take(TOGETHER));
    }
}

#[test]
fn fifty_bombs_of_each_kind_leave_the_host_responsive() {
    if !can_try() {
        return;
    }
    if std::env::var_os("OPSC_TESTS_FULL").is_none() {
        eprintln!("SKIPPED: fifty of each kind take half a minute; OPSC_TESTS_FULL=1 runs them");
        return;
    }
    for bomb in BOMBS {
        explode(std::iter::repeat_n(bomb, TOGETHER));
    }
}
