//! Mutations of a test's build (`--features mutants`): lines that are wrong on purpose when `OPSC_MUTANT` names them, so
//! that `make chaos-mutants` can show that the chaos finds them. Any other build has none of it.

/// Whether the line of this name is to be wrong.
#[cfg(feature = "mutants")]
pub(crate) fn is(name: &str) -> bool {
    std::env::var_os("OPSC_MUTANT").is_some_and(|mutant| mutant == name)
}

/// Whether the line of this name is to be wrong: never.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn is(_name: &str) -> bool {
    false
}
