//! `opsconductor-chaos [--seconds N] [--agents N] [--seed N] [--faults-per-second X] [--runs-per-second X] [--folder DIR]`
//!
//! Breaks things for a while and says what must not have happened. The last line of its output has the figures; exits with
//! 1 when anything was violated, or when too little was broken.

#![expect(clippy::print_stdout, reason = "its report is what it is for")]

use std::{path::PathBuf, process::ExitCode};

use opsconductor_tests::chaos::{self, Plan, report};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let plan = match plan(&arguments) {
        Ok(plan) => plan,
        Err(wrong) => {
            eprintln!("{wrong}");
            return ExitCode::from(2);
        }
    };
    println!("seed={} seconds={} agents={}", plan.seed, plan.seconds, plan.agents);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    let outcome = runtime.block_on(chaos::run(&plan));
    let figures = report::figures(&outcome.history, &outcome.violations);
    let (faults, missing) = report::faults(&outcome.history, &plan);
    print!("{faults}\n{}\n{}", report::outcomes(&outcome.history), report::used(&outcome.history));
    print!("{}", report::violations(&outcome.history, &outcome.violations));
    for kind in &missing {
        println!("too little of {kind}");
    }
    println!("seed={} history: {}", plan.seed, plan.folder.display());
    println!("faults={} runs={} violations={}", figures.faults, figures.runs, figures.violations);
    if figures.violations == 0 && missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn plan(arguments: &[String]) -> Result<Plan, String> {
    let mut plan = Plan {
        seed: fastrand::u64(..),
        seconds: 600,
        agents: 20,
        faults_per_second: 4.5,
        runs_per_second: 36.0,
        folder: std::env::temp_dir().join("opsconductor-chaos"),
        promise: chaos::promise(),
    };
    let mut folder = None;
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return Err(format!("{} needs a value", pair[0])) };
        let wrong = |_| format!("{name} cannot be '{value}'");
        let wrong_share = |_| format!("{name} cannot be '{value}'");
        match &name[..] {
            "--seed" => plan.seed = value.parse().map_err(wrong)?,
            "--seconds" => plan.seconds = value.parse().map_err(wrong)?,
            "--agents" => plan.agents = value.parse().map_err(wrong)?,
            "--faults-per-second" => plan.faults_per_second = value.parse().map_err(wrong_share)?,
            "--runs-per-second" => plan.runs_per_second = value.parse().map_err(wrong_share)?,
            "--folder" => folder = Some(PathBuf::from(value)),
            _ => return Err(format!("{name} is unknown")),
        }
    }
    plan.folder = folder.unwrap_or_else(|| plan.folder.join(plan.seed.to_string()));
    Ok(plan)
}
