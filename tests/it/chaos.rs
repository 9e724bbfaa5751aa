//! A short chaos: see `make chaos` for a long one.

use opsconductor_tests::{
    chaos::{self, Plan, lab::CONTROLLERS, report},
    scene,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_short_chaos_violates_nothing() {
    let plan = Plan {
        seed: fastrand::u64(..),
        seconds: 20,
        agents: 5,
        faults_per_second: 2.0,
        runs_per_second: 12.0,
        folder: scene::new_folder("chaos"),
        promise: chaos::promise(),
    };
    let outcome = chaos::run(&plan).await;
    let figures = report::figures(&outcome.history, &outcome.violations);
    let told = report::violations(&outcome.history, &outcome.violations);
    assert!(outcome.violations.is_empty(), "seed {}:\n{told}", plan.seed);
    for controller in CONTROLLERS {
        assert!(
            report::serves(&outcome.history, controller) > 0,
            "seed {}: {controller} was idle",
            plan.seed
        );
    }
    assert!(figures.faults >= 15 && figures.runs >= 50, "seed {}: {figures:?}", plan.seed);
}
