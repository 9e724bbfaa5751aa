//! `policy check`: what the host's policy file says, or what is wrong with it.

use std::path::Path;

use anyhow::Context as _;

use super::{Failure, USAGE, print};
use crate::executor::policy::Policy;

/// Prints the rules that hold with this file.
pub(super) fn check(file: &Path) -> Result<(), Failure> {
    let there = file.exists();
    let policy = Policy::read(file).map_err(|error| Failure::new(USAGE, error))?;
    let rules = toml::to_string(&policy).context("cannot show the policy")?;
    let said = if there { "holds, from the next order on" } else { "does not exist: nothing is forbidden" };
    print(&format!("# {} {said}\n{rules}", file.display()))
}
