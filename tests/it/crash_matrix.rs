//! A process dies at each step on the way of an execution, one after the other: nothing is started twice, every run
//! ends, and no result and no byte of output is lost.
//!
//! The list of steps are the fault points in the sources. One that no run reaches fails the test by its name.
//! With `OPSC_CRASH_HITS=5` each process dies at the second to the fifth time that it reaches a point too, where it does;
//! `OPSC_CRASH_POINTS` names a part of the points.

mod database;
mod jobs;
pub(crate) mod points;
mod stand;

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard, PoisonError},
};

use self::stand::Stand;
use crate::{containers, schedules};

/// Points that are tried at the same time, each in a World of its own.
const AT_A_TIME: usize = 4;

#[test]
fn a_process_dies_at_each_step() {
    points::check_that_they_are_built();
    let hits: u32 = variable("OPSC_CRASH_HITS").map_or(1, |hits| hits.parse().expect("a number of hits"));
    let only = variable("OPSC_CRASH_POINTS").unwrap_or_default();
    // Those of containers have a test of their own, for which there has to be an engine, and so have those of schedules.
    let of_their_own = [containers::POINTS, schedules::crashes::POINTS, schedules::triggers::POINTS];
    let has_its_own = |point: &String| of_their_own.iter().any(|start| point.starts_with(start));
    let is_meant = |point: &String| point.contains(&only) && !has_its_own(point);
    let points = points::all().into_iter().filter(is_meant);
    let tries: VecDeque<(String, u32)> =
        points.flat_map(|point| (1..=hits).map(move |hit| (point.clone(), hit))).collect();
    let count = tries.len();
    let (tries, wrong) = (Mutex::new(tries), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| work(&tries, &wrong));
        }
    });
    let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(wrong.is_empty(), "{} of {count} tries went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Tries one point after the other on a stand, and on a new one after each that went wrong.
fn work(tries: &Mutex<VecDeque<(String, u32)>>, wrong: &Mutex<Vec<String>>) {
    let next = || lock(tries).pop_front();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    let mut stand = None;
    while let Some((point, hit)) = next() {
        let tried = catch_unwind(AssertUnwindSafe(|| {
            let mut present = stand.take().unwrap_or_else(|| runtime.block_on(Box::pin(Stand::new())));
            let was_reached = runtime.block_on(Box::pin(present.try_point(&point, hit)));
            stand = Some(present);
            was_reached
        }));
        match tried {
            // A second hit is not to be had of every point.
            Ok(was_reached) if was_reached || hit > 1 => {}
            Ok(_) => lock(wrong).push(format!("{point} was not reached")),
            Err(_) => lock(wrong).push(format!("{point}, hit {hit}: the panic is above")),
        }
    }
    let checked = stand.is_none_or(|mut stand| {
        catch_unwind(AssertUnwindSafe(|| runtime.block_on(Box::pin(stand.check_all_again())))).is_ok()
    });
    if !checked {
        lock(wrong).push("what was shown before: the panic is above".to_owned());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
