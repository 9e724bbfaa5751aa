//! Fault points: places in controller and agent, named after a step, where a test can make the process die.
//!
//! 1. Only a build with the feature `armed` has them; in all others [`point`] is empty, and the variables mean nothing.
//! 2. Each name stands once in the sources, as `part.step.moment`, at a line of its own: the tests read the list there.
//! 3. One point of a process is armed, by its environment: `OPSC_FAULT=name` or `OPSC_FAULT=name:hit` (the first hit
//!    is 1). It kills the process with SIGKILL, as a crash does: nothing is closed, flushed or said.
//! 4. Before that the name is appended to the file `OPSC_FAULT_LOG`, so that a test knows that the point was reached.

#[cfg(feature = "armed")]
mod armed;

/// A place where this process may have to die. Not to be used between fork and exec.
#[inline(always)]
#[cfg_attr(not(feature = "armed"), expect(unused_variables, reason = "there is nothing to die of"))]
pub fn point(name: &'static str) {
    #[cfg(feature = "armed")]
    armed::point(name);
}

/// Opens the file of the names now. For a process that cannot do it later, because it is about to give up its privileges.
pub fn prepare() {
    #[cfg(feature = "armed")]
    armed::prepare();
}

/// The variables that a process hands to one that it starts with an empty environment: none, unless armed.
pub fn variables() -> impl Iterator<Item = (&'static str, String)> {
    #[cfg(feature = "armed")]
    let names = [armed::FAULT, armed::LOG];
    #[cfg(not(feature = "armed"))]
    let names: [&str; 0] = [];
    names.into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?)))
}

/// The variables by which a test sets a process' clock: none, unless armed.
pub fn clock() -> impl Iterator<Item = (&'static str, String)> {
    #[cfg(feature = "armed")]
    let names = armed::CLOCK;
    #[cfg(not(feature = "armed"))]
    let names: [&str; 0] = [];
    names.into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?)))
}
