//! What a container was asked to be, held against what its engine made of it.
//!
//! An engine whose kernel or settings lack something makes the container all the same, without it or with something else. So
//! all that confines is looked at again between the making and the start. What engines say in other words is understood;
//! what is not there, or is not understood, is missing. Not looked at: what the kernel's killer prefers, additional groups, how
//! mounts spread, and the options of the temporary folder.

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, HostConfig, Mount, MountPoint, ResourcesUlimits,
    ThrottleDevice,
};

const ALL_CAPABILITIES: &str = "ALL";
/// How engines write that nobody can get more privileges than he has.
const NO_NEW_PRIVILEGES: [&str; 3] =
    ["no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"];
const SECCOMP: &str = "seccomp=";
/// What podman writes before the name of a limit.
const ULIMIT_PREFIX: &str = "rlimit_";
/// A namespace that is none.
const OF_THE_HOST: &str = "host";
const NO_NETWORK: &str = "none";

/// What was asked for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    host: HostConfig,
    user: Option<String>,
}

impl Asked {
    pub(super) fn of(body: &ContainerCreateBody) -> Self {
        Self { host: body.host_config.clone().unwrap_or_default(), user: body.user.clone() }
    }

    /// Is the container as it was to be? Where a limit was wanted, a warning is taken for one that is not kept: engines give
    /// them up with no more than that.
    ///
    /// # Errors
    /// What is missing, or what the engine warned of.
    pub(super) fn check(
        &self,
        warnings: &[String],
        made: Option<&ContainerInspectResponse>,
    ) -> Result<(), String> {
        let warned = warnings.join(", ");
        match self.compare(made) {
            Err(missing) if warned.is_empty() => Err(missing),
            Err(missing) => Err(format!("{missing} (its engine warned: {warned})")),
            Ok(()) if !warned.is_empty() && self.has_limits() => Err(format!("its engine warned: {warned}")),
            Ok(()) => Ok(()),
        }
    }

    /// Whether somebody wanted a limit of those that a kernel may lack.
    fn has_limits(&self) -> bool {
        let HostConfig { memory, nano_cpus, blkio_device_read_bps, .. } = &self.host;
        memory.is_some() || nano_cpus.is_some() || blkio_device_read_bps.is_some()
    }

    /// Names what the engine left out or made weaker.
    fn compare(&self, made: Option<&ContainerInspectResponse>) -> Result<(), String> {
        let unknown = "the engine does not know the container that it made";
        let made = made.ok_or(unknown)?;
        let host = made.host_config.as_ref().ok_or(unknown)?;
        let user = made.config.as_ref().and_then(|config| config.user.as_ref());
        let mut missing: Vec<String> = self.limits(host);
        let mut want = |what: &str, is_so: bool| {
            if !is_so {
                missing.push(what.to_owned());
            }
        };
        want("its user", self.user.is_none() || user == self.user.as_ref());
        want("dropped capabilities", has_no_capabilities(host));
        want("no_new_privs", host.security_opt.iter().flatten().any(|one| is_no_new_privileges(one)));
        want("seccomp", self.has_seccomp(host));
        want("no privileges", host.privileged != Some(true));
        want(
            "devices of its own",
            is_empty(host.devices.as_ref()) && is_empty(host.device_requests.as_ref()),
        );
        let read_only = self.host.readonly_rootfs != Some(true) || host.readonly_rootfs == Some(true);
        want("read-only file system", read_only);
        let is_alone = self.host.network_mode.as_deref() != Some(NO_NETWORK)
            || host.network_mode.as_deref() == Some(NO_NETWORK);
        want("no network", is_alone);
        for (what, mode) in [
            ("/proc of its own", &host.pid_mode),
            ("shared memory of its own", &host.ipc_mode),
            ("host name of its own", &host.uts_mode),
        ] {
            want(what, mode.as_deref() != Some(OF_THE_HOST));
        }
        let log = |host: &HostConfig| host.log_config.as_ref().and_then(|log| log.typ.clone());
        want("no log at its engine", log(&self.host).is_none() || log(host) == log(&self.host));
        want("an init", self.host.init != Some(true) || host.init == Some(true));
        missing.extend(self.mounts(made.mounts.as_deref().unwrap_or_default()));
        if missing.is_empty() { Ok(()) } else { Err(missing.join(", ")) }
    }

    /// The limits that are not there, or higher.
    fn limits(&self, host: &HostConfig) -> Vec<String> {
        let asked = &self.host;
        let mut missing: Vec<String> = [
            ("memory limit", asked.memory, host.memory),
            ("swap limit", asked.memory_swap, host.memory_swap),
            ("pids limit", asked.pids_limit, host.pids_limit),
            ("cpu limit", asked.nano_cpus, cpus(host)),
        ]
        .into_iter()
        .filter(|(_, asked, got)| asked.is_some_and(|asked| got.is_none_or(|got| got <= 0 || got > asked)))
        .map(|(name, ..)| name.to_owned())
        .collect();
        let throttles = [
            (&asked.blkio_device_read_bps, &host.blkio_device_read_bps),
            (&asked.blkio_device_write_bps, &host.blkio_device_write_bps),
        ];
        if !throttles.into_iter().all(|(asked, got)| {
            asked.iter().flatten().all(|one| got.iter().flatten().any(|got| is_throttled(one, got)))
        }) {
            missing.push("io limit".to_owned());
        }
        for one in asked.ulimits.iter().flatten() {
            if !host.ulimits.iter().flatten().any(|got| is_limited(one, got)) {
                missing.push(format!("limit '{}'", one.name.as_deref().unwrap_or_default()));
            }
        }
        missing
    }

    fn has_seccomp(&self, host: &HostConfig) -> bool {
        let of = |host: &HostConfig| -> Vec<String> {
            let options = host.security_opt.iter().flatten();
            options.filter(|option| option.starts_with(SECCOMP)).cloned().collect()
        };
        of(&self.host) == of(host)
    }

    /// Folders that are not bound as they were to be, and such as nobody asked for.
    fn mounts(&self, made: &[MountPoint]) -> Vec<String> {
        let asked: Vec<&Mount> = self.host.mounts.iter().flatten().collect();
        let is_bound = |one: &&Mount| made.iter().any(|got| is_bind(one, got));
        let lacks = asked.iter().filter(|one| !is_bound(one));
        let lacks = lacks.map(|one| format!("the folder '{}'", one.target.as_deref().unwrap_or_default()));
        let is_sealed = self.host.readonly_rootfs == Some(true);
        // A volume of the image is the container's own; where its file system is read-only there is to be none.
        let is_strange = |got: &&MountPoint| {
            let kind = got.typ.as_deref().unwrap_or_default();
            (kind == "bind" || kind == "volume" && is_sealed) && !asked.iter().any(|one| is_bind(one, got))
        };
        let strange = made.iter().filter(is_strange).map(|got| {
            format!("no folder that was not asked for ('{}')", got.destination.as_deref().unwrap_or_default())
        });
        lacks.chain(strange).collect()
    }
}

fn cpus(host: &HostConfig) -> Option<i64> {
    host.nano_cpus.filter(|nanos| *nanos != 0).or_else(|| {
        let (quota, period) = (host.cpu_quota?, host.cpu_period.filter(|period| *period != 0)?);
        Some(quota.saturating_mul(1_000_000_000) / period)
    })
}

/// Podman names, in the place of `ALL`, those that it would have given.
fn has_no_capabilities(host: &HostConfig) -> bool {
    let dropped = host.cap_drop.as_deref().unwrap_or_default();
    let is_all = dropped.iter().any(|one| one.eq_ignore_ascii_case(ALL_CAPABILITIES));
    is_empty(host.cap_add.as_ref()) && (is_all || dropped.len() > 1)
}

fn is_no_new_privileges(option: &str) -> bool {
    NO_NEW_PRIVILEGES.contains(&option)
}

fn is_throttled(asked: &ThrottleDevice, got: &ThrottleDevice) -> bool {
    let rate = |device: &ThrottleDevice| device.rate.filter(|rate| *rate > 0);
    asked.path == got.path && rate(got).is_some_and(|got| rate(asked).is_some_and(|asked| got <= asked))
}

fn is_limited(asked: &ResourcesUlimits, got: &ResourcesUlimits) -> bool {
    let name = |limit: &ResourcesUlimits| {
        let name = limit.name.as_deref().unwrap_or_default().to_ascii_lowercase();
        name.strip_prefix(ULIMIT_PREFIX).map_or_else(|| name.clone(), str::to_owned)
    };
    // -1 is none.
    let holds = |asked: Option<i64>, got: Option<i64>| {
        got.is_some_and(|got| got >= 0 && asked.is_some_and(|asked| got <= asked))
    };
    name(asked) == name(got) && holds(asked.soft, got.soft) && holds(asked.hard, got.hard)
}

fn is_bind(asked: &Mount, got: &MountPoint) -> bool {
    let may_write = asked.read_only != Some(true);
    asked.target == got.destination && asked.source == got.source && got.rw == Some(may_write)
}

fn is_empty<T>(list: Option<&Vec<T>>) -> bool {
    list.is_none_or(Vec::is_empty)
}

#[cfg(test)]
mod tests;
