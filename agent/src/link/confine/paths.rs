//! The files that the link may reach: its own folder, and what it takes to find a controller and to describe the host.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus,
    PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, Scope,
};

/// What was written against; of an older kernel as much is taken as it has.
const VERSION: ABI = ABI::V6;

/// Read, never written or executed. What a host does not have is left out.
const READ: [&str; 17] = [
    // Names and addresses, certificates, the time zone, what the host is.
    "/etc",
    "/usr/share/zoneinfo",
    "/run/systemd/resolve",
    "/run/systemd/container",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/nscd",
    // The resolver loads its parts from there.
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib",
    "/lib64",
    // Facts and metrics. What belongs to other processes stays closed: it is guarded as if they were to be traced.
    "/proc",
    "/sys",
    "/dev/urandom",
    "/dev/random",
];

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
pub(super) enum PathsError {
    #[error(transparent)]
    Rules(#[from] RulesetError),
    #[error(transparent)]
    Path(#[from] PathFdError),
}

/// Opens all of it, as long as this process may; the folder where it stands is the link's own.
pub(super) fn open() -> Result<RulesetCreated, PathsError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let null: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::WriteFile;
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(VERSION))?
        // It calls, and is never called.
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(VERSION))?
        .create()?
        .add_rules(landlock::path_beneath_rules(READ, read))?
        .add_rule(PathBeneath::new(PathFd::new("/dev/null")?, null))?
        .add_rule(PathBeneath::new(PathFd::new(".")?, own()))?;
    Ok(rules)
}

/// All but programs and devices.
fn own() -> BitFlags<AccessFs> {
    AccessFs::from_all(VERSION)
        & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev)
}

/// Lets them hold from now on. What the kernel lacks of it comes back.
pub(super) fn enforce(rules: RulesetCreated) -> Result<Option<String>, PathsError> {
    let status = rules.restrict_self()?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced, _) => None,
        (RulesetStatus::PartiallyEnforced, LandlockStatus::Available { effective_abi, .. }) => Some(format!(
            "parts of landlock (the kernel has {effective_abi:?} of it, and {VERSION:?} is meant)"
        )),
        (_, status) => Some(format!("landlock ({status:?})")),
    })
}
