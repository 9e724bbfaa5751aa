//! What the agent finds out about its host. Names are those of [`model::label::FACT_NAMES`] and no others; a fact that
//! cannot be found out is left out.

use std::{fs, net::IpAddr, path::Path};

use model::label::{Facts, accept_facts};
use sysinfo::{MemoryRefreshKind, System};

/// Version of this agent.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Collects the facts; `ip` is the address from which the controller is reached. Reads a dozen small files.
pub(crate) fn collect(ip: Option<IpAddr>) -> Facts {
    let found = [
        ("os", Some(std::env::consts::OS.to_owned())),
        ("os_version", System::os_version().ok()),
        ("distro", Some(System::distribution_id())),
        ("arch", Some(std::env::consts::ARCH.to_owned())),
        ("kernel", System::kernel_version().ok()),
        ("cpus", std::thread::available_parallelism().ok().map(|cpus| cpus.to_string())),
        ("memory_mib", memory_mib()),
        ("hostname", hostname()),
        ("ip", ip.map(|ip| ip.to_string())),
        ("agent_version", Some(VERSION.to_owned())),
        ("boot_id", boot_id()),
        ("virtualization", Some(virtualization().to_owned())),
        ("cgroup", Some(cgroup().to_owned())),
        ("machine_id", line("/etc/machine-id")),
    ];
    accept_facts(
        found
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .filter(|(_, value)| !value.is_empty()),
    )
}

/// The host's name, as it calls itself.
pub fn hostname() -> Option<String> {
    System::host_name().ok()
}

/// New whenever the host starts.
pub(crate) fn boot_id() -> Option<String> {
    line("/proc/sys/kernel/random/boot_id")
}

fn memory_mib() -> Option<String> {
    let mut system = System::new().ok()?;
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    Some((system.total_memory() / (1024 * 1024)).to_string())
}

/// A container's kind, a hypervisor's name, `vm` for one without a name, or `none`.
fn virtualization() -> &'static str {
    if Path::new("/run/.containerenv").exists() {
        return "podman";
    }
    if Path::new("/.dockerenv").exists() {
        return "docker";
    }
    if line("/run/systemd/container").is_some() {
        return "container";
    }
    let vendor = line("/sys/class/dmi/id/sys_vendor").unwrap_or_default().to_ascii_lowercase();
    let product = line("/sys/class/dmi/id/product_name").unwrap_or_default().to_ascii_lowercase();
    let known = [
        ("qemu", "kvm"),
        ("kvm", "kvm"),
        ("vmware", "vmware"),
        ("virtualbox", "virtualbox"),
        ("virtual machine", "hyperv"),
        ("xen", "xen"),
        ("amazon ec2", "kvm"),
        ("google", "kvm"),
    ];
    for (word, name) in known {
        if vendor.contains(word) || product.contains(word) {
            return name;
        }
    }
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpu.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    if flags.split_ascii_whitespace().any(|flag| flag == "hypervisor") { "vm" } else { "none" }
}

/// Which version of control groups the host has.
fn cgroup() -> &'static str {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        "v2"
    } else if root.join("unified").exists() {
        "hybrid"
    } else if root.join("memory").exists() {
        "v1"
    } else {
        "none"
    }
}

/// The first line of a small file.
fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use model::label::FACT_NAMES;

    use super::*;

    #[test]
    fn facts_have_known_names_and_the_important_ones_are_there() {
        let facts = collect(Some(IpAddr::from([10, 0, 0, 1])));
        assert!(facts.keys().all(|name| FACT_NAMES.contains(&name.as_str())), "{facts:?}");
        for name in ["os", "arch", "kernel", "cpus", "memory_mib", "hostname", "agent_version", "cgroup"] {
            assert!(facts.contains_key(name), "{name} is missing in {facts:?}");
        }
        assert_eq!(facts["ip"], "10.0.0.1");
    }
}
