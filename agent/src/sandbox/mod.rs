//! What a run is confined by. Profiles, namespaces, landlock and seccomp are absent so far.

pub mod cgroup;
pub mod strays;
