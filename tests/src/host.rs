//! A host of its own on this machine: a network namespace that a pair of virtual interfaces connects with the test's
//! network, and partitions between the two. Needs root and iproute2.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::scene;

/// The host's own interface.
const INSIDE: &str = "eth0";
/// Networks of two addresses each below 10.231/16.
const NETWORKS: u32 = 1 << 14;

/// What a partition stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partition {
    Both,
    /// What the host sends.
    ToController,
    /// What is sent to the host.
    ToAgent,
    /// Everything, and both sides are told: the cable is out.
    Unplugged,
}

/// Removed when it is dropped; what a killed test leaves, the scene's janitor removes.
#[derive(Debug)]
pub struct Host {
    name: String,
    /// The test's end of the pair.
    outer: String,
    outside: Ipv4Addr,
}

impl Host {
    /// A host that reaches the test's machine; none where such a thing cannot be made, which the test's output says.
    ///
    /// # Panics
    /// When it cannot be made and `CI` is `true`.
    pub fn new() -> Option<Self> {
        if scene::is_root() && Command::new("ip").arg("-V").output().is_ok() {
            return Some(Self::make());
        }
        assert!(std::env::var("CI").as_deref() != Ok("true"), "network namespaces need root and iproute2");
        scene::skipped("network namespaces need root and iproute2");
        None
    }

    fn make() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let taken = run("ip", "-o -4 address show");
        let (network, outside, inside) = (0..NETWORKS)
            .map(|offset| {
                let network = (pid.wrapping_mul(31) + number + offset * 257) % NETWORKS;
                let base = u32::from(Ipv4Addr::new(10, 231, 0, 0)) + network * 4;
                (network, Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2))
            })
            .find(|(_, outside, _)| !taken.contains(&format!(" {outside}/")))
            .expect("a network is free");
        // The janitor knows the name.
        let host = Self { name: format!("opsc-{pid}-{number}"), outer: format!("opsc{network}"), outside };
        let Self { name, outer, .. } = &host;
        run("ip", &format!("netns add {name}"));
        run("ip", &format!("link add {outer} type veth peer name {INSIDE} netns {name}"));
        run("ip", &format!("address add {outside}/30 dev {outer}"));
        run("ip", &format!("link set {outer} up"));
        run("ip", &format!("-n {name} address add {inside}/30 dev {INSIDE}"));
        run("ip", &format!("-n {name} link set {INSIDE} up"));
        run("ip", &format!("-n {name} link set lo up"));
        host
    }

    /// Where the host reaches the test's machine.
    pub(crate) fn outside(&self) -> IpAddr {
        self.outside.into()
    }

    /// What a process enters to be on the host.
    pub(crate) fn network(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Nothing gets through any more, in silence or with a word, until [`Self::heal`].
    pub fn part(&self, partition: Partition) {
        let Self { name, outer, .. } = self;
        // A queue without a place drops all that is sent.
        let drop_all = "root pfifo limit 0";
        if matches!(partition, Partition::Both | Partition::ToController) {
            run("tc", &format!("-n {name} qdisc replace dev {INSIDE} {drop_all}"));
        }
        if matches!(partition, Partition::Both | Partition::ToAgent) {
            run("tc", &format!("qdisc replace dev {outer} {drop_all}"));
        }
        if partition == Partition::Unplugged {
            run("ip", &format!("link set {outer} down"));
        }
    }

    pub fn heal(&self) {
        let Self { name, outer, .. } = self;
        run("ip", &format!("link set {outer} up"));
        run("tc", &format!("-n {name} qdisc replace dev {INSIDE} root pfifo limit 1000"));
        run("tc", &format!("qdisc replace dev {outer} root pfifo limit 1000"));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The interfaces go with the namespace, once its last process is gone.
        let _ = Command::new("ip").args(["link", "delete", &self.outer]).output();
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

/// Runs a tool of iproute2 and gives what it says.
#[track_caller]
fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output().expect("iproute2 is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
