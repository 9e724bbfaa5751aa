//! Thousands of seeds, and the mutants that they must find.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Mutant, World};

/// Seeds of an ordinary run, and within which each mutant must be found.
const SEEDS: u64 = 3000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{variable}={value}")))
}

/// What one seed comes to: nothing, or what did not hold.
fn play(seed: u64, mutant: Option<Mutant>, verbose: bool) -> Result<(), String> {
    let mut world = World::new(seed, mutant, verbose);
    catch_unwind(AssertUnwindSafe(|| world.play())).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
    })
}

#[test]
fn no_seed_breaks_an_invariant() {
    if let Some(seed) = number("OPSC_SIM_SEED") {
        return play(seed, None, true).unwrap();
    }
    for seed in 0..number("OPSC_SIM_SEEDS").unwrap_or(SEEDS) {
        if let Err(what) = play(seed, None, false) {
            panic!("seed {seed} (replay it with OPSC_SIM_SEED={seed}): {what}");
        }
    }
}

/// The simulation must be able to see: what is broken on purpose is found, and for what it is.
#[test]
fn every_mutant_is_found() {
    for (mutant, invariant) in [
        (Mutant::BeginsUnjournaled, "one-start"),
        (Mutant::BeginsAgain, "one-start"),
        (Mutant::ForgetsCancels, "no-late-start"),
        (Mutant::IgnoresTheWindow, "no-late-start"),
        (Mutant::SettlesEarly, "result-kept"),
        (Mutant::TakesItsTime, "no-late-start"),
        (Mutant::ForgetsRefusals, "result-kept"),
        (Mutant::AnswersEarly, "result-kept"),
        (Mutant::BelievesLateHellos, "no-late-start"),
        (Mutant::WithdrawsFromLostJournals, "one-start"),
        (Mutant::CancelsBlindly, "confirmed-kill"),
    ] {
        let broken = (0..SEEDS).filter_map(|seed| play(seed, Some(mutant), false).err());
        let seen: Vec<String> = broken.take(20).collect();
        let is_found = seen.iter().any(|what| what.starts_with(invariant));
        assert!(is_found, "{mutant:?} was not found by {invariant}, but by {seen:?}");
    }
}
