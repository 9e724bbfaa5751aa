//! Postgres dies while runs are on their way, at moments that follow no plan of theirs.

use opsconductor_tests::{World, postgres::Mortal};

use super::{
    jobs::{Excuse, Kind},
    stand::Stand,
};

const DEATHS: usize = 8;
/// What is started between two deaths.
const KINDS: [Kind; 4] = [Kind::Short, Kind::Long, Kind::Cancelled, Kind::Short];
/// Between two deaths the end of a run is asked for so many times at most.
const LOOKS: usize = 40;

#[tokio::test]
async fn a_database_that_dies_takes_nothing_with_it() {
    let mut postgres = Mortal::start();
    let world = World::builder().database(postgres.url()).start().await;
    let mut stand = Stand::on(world).await;
    let mut jobs = Vec::new();
    for death in 0..DEATHS {
        for kind in KINDS {
            let job = stand.start(kind).await;
            if kind == Kind::Cancelled {
                stand.cancel(&job).await;
            }
            jobs.push(job);
        }
        let newest = jobs.last().expect("some were started").id;
        // Steps that share no divisor with the number of looks: each death finds the runs elsewhere.
        for _ in 0..(death * 13) % LOOKS {
            stand.look(newest).await;
        }
        postgres.die_and_start();
    }
    for job in &mut jobs {
        job.check(&mut stand, Excuse::None).await;
    }
    stand.lets_go().await;
    for job in &jobs {
        job.check_again(&mut stand).await;
    }
    stand.check_all_again().await;
}
