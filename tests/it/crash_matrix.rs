//! A process dies at each step on the way of an execution, one after the other: nothing is started twice, every run
//! ends, and no result and no byte of output is lost.
//!
//! The list of steps are the fault points in the sources. One that no run reaches fails the test by its name.
//! `OPSC_CRASH_HITS=5` lets each process die at the second to fifth hit of each point too.

mod jobs;
mod points;
mod stand;

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
};

use self::stand::Stand;

/// Points that are tried at the same time, each in a World of its own.
const AT_A_TIME: usize = 4;

#[test]
fn a_process_dies_at_each_step() {
    points::check_that_they_are_built();
    let hits: u32 =
        std::env::var("OPSC_CRASH_HITS").map_or(1, |hits| hits.parse().expect("a number of hits"));
    let only = std::env::var("OPSC_CRASH_POINT").unwrap_or_default();
    let points = points::all().into_iter().filter(|point| point.contains(&only));
    let tasks: VecDeque<(String, u32)> =
        points.flat_map(|point| (1..=hits).map(move |hit| (point.clone(), hit))).collect();
    let tried = tasks.len();
    let (tasks, wrong) = (Mutex::new(tasks), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.expect("a runtime starts");
                let mut stand = None;
                while let Some((point, hit)) = lock(&tasks).pop_front() {
                    let tried = catch_unwind(AssertUnwindSafe(|| {
                        let begun = std::time::Instant::now();
                        let mut present =
                            stand.take().unwrap_or_else(|| runtime.block_on(Box::pin(Stand::new())));
                        let was_reached = runtime.block_on(Box::pin(present.try_point(&point, hit)));
                        println!("{point}:{hit} {was_reached} after {:?}", begun.elapsed());
                        stand = Some(present);
                        was_reached
                    }));
                    match tried {
                        Ok(was_reached) if was_reached || hit > 1 => {}
                        Ok(_) => lock(&wrong).push(format!("{point} was not reached")),
                        Err(_) => lock(&wrong).push(format!("{point}, hit {hit}: see the panic above")),
                    }
                }
                if let Some(mut stand) = stand {
                    runtime.block_on(Box::pin(stand.check_all_again()));
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(wrong.is_empty(), "of {tried} tries:\n{}", wrong.join("\n"));
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
