//! The agent's own place: a leaf in which it is beside its runs, with more of the processors than they.

use std::{io, path::Path};

use super::{
    files,
    host::{AGENT_LEAF, Host, Place, RUNS},
    v2::{CONTROLLERS, SUBTREE},
};

/// The controllers of version 2 that groups of runs should have.
const WANTED: [&str; 4] = ["memory", "pids", "cpu", "io"];
/// A hundred times what a group has by default, in either version's unit: many runs together still leave the agent time.
const CPU_WEIGHT: &str = "10000";
const CPU_SHARES: &str = "102400";

/// Moves this process into the leaf `opsconductor-agent` of its group, and enables for the groups beside it what limits
/// them. To be called when the agent starts, before there is a shim; again, it changes nothing.
///
/// Says what could not be had, for the log: what that means for a run is told by [`super::Created::missing`].
pub fn settle_agent() -> Vec<String> {
    settle(&Host::look())
}

pub(super) fn settle(host: &Host) -> Vec<String> {
    let mut trouble = Vec::new();
    if let Some(place) = &host.v2 {
        trouble.extend(settle_v2(place));
    }
    for hierarchy in &host.v1 {
        if hierarchy.controllers.iter().any(|name| name == "cpu") {
            trouble.extend(settle_v1(&hierarchy.place));
        }
    }
    trouble
}

fn settle_v2(place: &Place) -> Vec<String> {
    let own = &place.0;
    if !WANTED.iter().any(|name| lists(own, CONTROLLERS, name)) && !place.is_leaf() {
        // Its groups would limit nothing.
        return Vec::new();
    }
    if let Some(slice) = place.slice() {
        let runs = slice.join(RUNS);
        if let Err(error) = make(&runs) {
            return vec![format!("the control group {} cannot be made: {error}", runs.display())];
        }
        // How much of the processors the unit gets, its own settings say.
        return [enable(slice), enable(&runs)].concat();
    }
    if place.is_left_to_systemd() {
        return vec![format!(
            "the unit of {} has neither DelegateSubgroup={AGENT_LEAF} nor a slice of its own: runs cannot be limited",
            own.display()
        )];
    }
    let leaf = if place.is_leaf() { own.clone() } else { own.join(AGENT_LEAF) };
    if let Err(error) = enter(&leaf) {
        return vec![format!("the control group {} cannot be entered: {error}", leaf.display())];
    }
    let mut trouble = leaf.parent().map(enable).unwrap_or_default();
    trouble.extend(weigh(&leaf, "cpu.weight", CPU_WEIGHT));
    trouble
}

fn settle_v1(place: &Place) -> Option<String> {
    let leaf = if place.is_leaf() { place.0.clone() } else { place.0.join(AGENT_LEAF) };
    match enter(&leaf) {
        Ok(()) => weigh(&leaf, "cpu.shares", CPU_SHARES),
        Err(error) => Some(format!("the control group {} cannot be entered: {error}", leaf.display())),
    }
}

/// Moves this process into the group, which is made where it is not there.
fn enter(leaf: &Path) -> io::Result<()> {
    make(leaf)?;
    files::write(leaf, files::PROCESSES, &std::process::id().to_string())
}

/// Makes a group that may be there.
fn make(group: &Path) -> io::Result<()> {
    match std::fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Enables for the groups below what is not enabled yet.
fn enable(group: &Path) -> Vec<String> {
    let mut trouble = Vec::new();
    for name in WANTED {
        if lists(group, SUBTREE, name) {
            continue;
        }
        if !lists(group, CONTROLLERS, name) {
            trouble.push(format!("the control group {} has no controller '{name}'", group.display()));
        } else if let Err(error) = files::write(group, SUBTREE, &format!("+{name}")) {
            trouble
                .push(format!("the controller '{name}' cannot be enabled in {}: {error}", group.display()));
        }
    }
    trouble
}

fn weigh(leaf: &Path, name: &str, weight: &str) -> Option<String> {
    if !files::has(leaf, name) {
        return None;
    }
    let error = files::write(leaf, name, weight).err()?;
    Some(format!("{} cannot be set in {}: {error}", name, leaf.display()))
}

fn lists(group: &Path, file: &str, name: &str) -> bool {
    files::read(group, file).is_some_and(|text| text.split_ascii_whitespace().any(|word| word == name))
}
