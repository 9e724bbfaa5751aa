//! What a chaos says at its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use model::attempt::AttemptState;

use super::{Plan, checker::Violation, faults::Kind, history::Record, lab::CONTROLLERS};

/// Share of the faults of a kind that must have come about for the chaos to count.
const ENOUGH: f64 = 0.3;
/// Violations that are told one by one, and lines of the history that are told with each.
const TOLD: usize = 20;
const LINES: usize = 60;

/// The figures of the last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    pub faults: usize,
    pub runs: usize,
    pub violations: usize,
}

pub fn figures(history: &[Record], violations: &[Violation]) -> Figures {
    let faults = history.iter().filter(|record| matches!(record, Record::Fault { .. })).count();
    let mut runs: Vec<&str> = history
        .iter()
        .filter_map(|record| match record {
            Record::Seen { run, .. } => Some(&run[..]),
            _ => None,
        })
        .collect();
    runs.sort_unstable();
    runs.dedup();
    Figures { faults, runs: runs.len(), violations: violations.len() }
}

/// Faults by kind, and of what there was too little for the chaos to count.
pub fn faults(history: &[Record], plan: &Plan) -> (String, Vec<String>) {
    let mut by: BTreeMap<Kind, BTreeMap<&str, usize>> = BTreeMap::new();
    for record in history {
        if let Record::Fault { kind, victim, .. } = record {
            *by.entry(*kind).or_default().entry(victim).or_default() += 1;
        }
    }
    let total: usize = Kind::ALL.iter().map(|(_, weight)| weight).sum();
    let (mut text, mut missing) =
        (format!("{:<24}{:>8}{:>10}   victims\n", "fault", "count", "at least"), Vec::new());
    for (kind, weight) in Kind::ALL {
        let victims = by.remove(&kind).unwrap_or_default();
        let count: usize = victims.values().sum();
        let share = weight as f64 / total as f64;
        let least = (plan.faults_per_second * plan.seconds as f64 * share * ENOUGH).floor() as usize;
        if count < least {
            missing.push(format!("{}: {count} of at least {least}", kind.name()));
        }
        let victims: Vec<String> =
            victims.iter().map(|(victim, count)| format!("{victim} {count}")).collect();
        let _ = writeln!(text, "{:<24}{count:>8}{least:>10}   {}", kind.name(), victims.join(", "));
    }
    let idle = CONTROLLERS.into_iter().filter(|controller| serves(history, controller) == 0);
    missing.extend(idle.map(|controller| format!("{controller}: it served no agent")));
    (text, missing)
}

/// How the runs ended, by what they were made for, and how many of them were tried again.
pub fn outcomes(history: &[Record]) -> String {
    let mut kinds = BTreeMap::new();
    let mut last: BTreeMap<&str, (u64, String)> = BTreeMap::new();
    for record in history {
        match record {
            Record::Asked { job, .. } => {
                kinds.insert(job.number, format!("{:?}", job.kind));
            }
            Record::Seen { number, run, state, reason, .. } => {
                let reason = reason.map_or("-", model::Reason::as_str);
                last.insert(run, (*number, format!("{} ({reason})", state.as_str())));
            }
            _ => {}
        }
    }
    let mut table: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (number, state) in last.into_values() {
        let kind = kinds.get(&number).cloned().unwrap_or_default();
        *table.entry((kind, state)).or_default() += 1;
    }
    let mut text = format!("{:<12}{:<34}{:>8}\n", "made for", "ended as", "runs");
    for ((kind, state), count) in table {
        let _ = writeln!(text, "{kind:<12}{state:<34}{count:>8}");
    }
    let (again, after_loss) = tries(history);
    let _ = writeln!(text, "started more than once: {again}, of these after a loss: {after_loss}");
    text
}

/// The most that each part used, and how many agents each controller served at most.
pub fn used(history: &[Record]) -> String {
    let (mut controller, mut agent, mut disk) = (0, 0, 0);
    for record in history {
        match record {
            Record::Used { who, memory_kib, .. } if CONTROLLERS.contains(&&who[..]) => {
                controller = controller.max(*memory_kib);
            }
            Record::Used { memory_kib, disk_kib, .. } => {
                (agent, disk) = (agent.max(*memory_kib), disk.max(*disk_kib));
            }
            _ => {}
        }
    }
    let served = CONTROLLERS.map(|name| format!("{name} served {} agents", serves(history, name)));
    format!(
        "at most: a controller {controller} KiB of memory, an agent {agent} KiB of memory and {disk} KiB of disk; {}\n",
        served.join(", ")
    )
}

/// How many runs started more than once, and how many of these after a try whose end nobody knows.
pub fn tries(history: &[Record]) -> (usize, usize) {
    let (mut started, mut lost) = (BTreeMap::<&str, usize>::new(), BTreeSet::<&str>::new());
    for record in history {
        match record {
            Record::Started { run, .. } => *started.entry(run).or_default() += 1,
            Record::Offered { run, state: AttemptState::Lost, .. } => {
                lost.insert(run);
            }
            _ => {}
        }
    }
    let again: Vec<&str> = started.into_iter().filter(|(_, times)| *times > 1).map(|(run, _)| run).collect();
    (again.len(), again.iter().filter(|run| lost.contains(**run)).count())
}

/// How many agents this controller served at most.
pub fn serves(history: &[Record], controller: &str) -> u64 {
    let counts = history.iter().filter_map(|record| match record {
        Record::Serves { who, agents, .. } if who == controller => Some(*agents),
        _ => None,
    });
    counts.max().unwrap_or(0)
}

/// The violations, each with all that the history knows of its job.
pub fn violations(history: &[Record], violations: &[Violation]) -> String {
    let mut text = String::new();
    for violation in violations.iter().take(TOLD) {
        let _ = writeln!(text, "VIOLATION {}: {}", violation.invariant, violation.text);
        let Some(number) = violation.number else { continue };
        for record in story(history, number).into_iter().take(LINES) {
            let _ = writeln!(text, "    {}", serde_json::to_string(record).unwrap_or_default());
        }
    }
    if violations.len() > TOLD {
        let _ = writeln!(text, "… and {} more", violations.len() - TOLD);
    }
    text
}

/// All records about a job: its own, and the faults that hit its hosts meanwhile.
fn story(history: &[Record], wanted: u64) -> Vec<&Record> {
    let (mut hosts, mut runs, mut span) = (Vec::new(), Vec::new(), (u64::MAX, 0));
    for record in history {
        match record {
            Record::Asked { at, job } if job.number == wanted => {
                hosts.clone_from(&job.hosts);
                span.0 = *at;
            }
            Record::Seen { at, number, run, .. } if *number == wanted => {
                runs.push(run.clone());
                span.1 = span.1.max(*at);
            }
            _ => {}
        }
    }
    let is_of_it = |record: &&Record| match record {
        Record::Asked { job, .. } => job.number == wanted,
        Record::Acknowledged { number, .. }
        | Record::Denied { number, .. }
        | Record::CancelAcknowledged { number, .. }
        | Record::Seen { number, .. }
        | Record::Output { number, .. }
        | Record::Started { number, .. }
        | Record::Ended { number, .. } => *number == wanted,
        Record::Offered { run, .. } | Record::Audited { run } => runs.contains(run),
        Record::Fault { at, until, kind, victim, subjects, .. } => {
            let hits =
                kind.is_central() || hosts.contains(victim) || subjects.iter().any(|s| hosts.contains(s));
            *at <= span.1 && *until + 10_000 >= span.0 && hits
        }
        _ => false,
    };
    history.iter().filter(is_of_it).collect()
}
