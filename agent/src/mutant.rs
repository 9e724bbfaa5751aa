//! Mutations of a test's build (`--features mutants`): lines that are wrong on purpose when `OPSC_MUTANT` names them, so
//! that `make chaos-mutants` can show that the chaos finds them. Any other build has none of it.

use std::ffi::OsString;

const VARIABLE: &str = "OPSC_MUTANT";

/// Whether the line of this name is to be wrong.
#[cfg(feature = "mutants")]
pub(crate) fn is(name: &str) -> bool {
    variable().is_some_and(|(_, mutant)| mutant == name)
}

/// Whether the line of this name is to be wrong: never.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn is(_name: &str) -> bool {
    false
}

/// What a shim and a link have to be told, which have none of the agent's variables.
pub(crate) fn variable() -> Option<(&'static str, OsString)> {
    if cfg!(feature = "mutants") { std::env::var_os(VARIABLE).map(|mutant| (VARIABLE, mutant)) } else { None }
}
