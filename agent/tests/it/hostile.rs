//! Programs that want out of their sandbox, what becomes of them on each profile, and what becomes of the profiles where
//! the kernel lacks a part.

mod bombs;
mod corpus;
mod masks;
mod races;
mod stage;
mod table;

use proto::Profile;

/// From the weakest to the strongest.
const PROFILES: [Profile; 4] = [Profile::None, Profile::Standard, Profile::Strict, Profile::Isolated];
/// The interpreter that the host's users share; one of this user's own is not for others.
const PYTHON: &str = "/usr/bin/python3";

/// Whether these tests can be made here: they are about an agent that is root, and name system calls by number.
fn can_try() -> bool {
    let can = nix::unistd::geteuid().is_root()
        && cfg!(target_arch = "x86_64")
        && std::path::Path::new(PYTHON).exists();
    if !can {
        eprintln!("SKIPPED: hostile programs are tried by root, on x86-64, with {PYTHON}");
    }
    can
}

fn name(profile: Profile) -> &'static str {
    match profile {
        Profile::HostDefault => "host_default",
        Profile::None => "none",
        Profile::Standard => "standard",
        Profile::Strict => "strict",
        Profile::Isolated => "isolated",
    }
}
