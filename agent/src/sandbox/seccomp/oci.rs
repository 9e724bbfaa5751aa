//! The same filters as a container engine takes them: JSON that Docker, podman and the runtimes below them read.
//!
//! 1. Such a filter takes the place of the engine's own, so it forbids what that would.
//! 2. Arguments are compared by their lower 32 bits, which are all that the kernel looks at: a runtime compares 64.
//! 3. No architecture is named: the filter is for the host's, and a call by another one's table ends the process.
//! 4. A runtime passes over names that it does not know. All here are the kernel's.

use model::sandbox::Profile;
use serde_json::{Value, json};

use super::{ALLOWED_SOCKETS, Call, FORBIDDEN_SOCKETS, NEW_NAMESPACES, TIOCLINUX, allowed, forbidden};

const ALLOW: &str = "SCMP_ACT_ALLOW";
const FAIL: &str = "SCMP_ACT_ERRNO";
/// What engines forbid by themselves and we have no rule for: it is of no use without privileges.
const FORBIDDEN_BY_ENGINES: [&str; 10] = [
    "create_module",
    "get_kernel_syms",
    "query_module",
    "mbind",
    "set_mempolicy",
    "set_mempolicy_home_node",
    "stime",
    "sysfs",
    "umount",
    "ustat",
];
/// Controls of terminals by which one pushes input into another's.
const FORBIDDEN_CONTROLS: [u64; 2] = [libc::TIOCSTI, TIOCLINUX];
/// All bits of an argument that the kernel looks at.
const ARGUMENT: u64 = 0xFFFF_FFFF;
const ARGUMENT_BITS: u32 = 32;

/// What a container of this profile may call; none where the engine's own filter is as good as what the profile promises.
pub(crate) fn filter(profile: Profile) -> Option<String> {
    let (otherwise, mut rules) = match profile {
        Profile::None | Profile::Standard => return None,
        Profile::Strict => (ALLOW, forbidding()),
        Profile::Isolated => (FAIL, allowing()),
    };
    rules.push(fails(&names(forbidden::CALLS, forbidden::CALLS_HERE), libc::EPERM));
    let all = json!({ "defaultAction": otherwise, "defaultErrnoRet": libc::ENOSYS, "syscalls": rules });
    Some(all.to_string())
}

/// What `strict` forbids besides whole calls.
fn forbidding() -> Vec<Value> {
    let deny = |call: &str, argument: u32, mask: u64, value: u64| json!({ "names": [call], "action": FAIL, "errnoRet": libc::EPERM, "args": [masked(argument, mask, value)] });
    let controls = FORBIDDEN_CONTROLS.iter().map(|control| deny("ioctl", 1, ARGUMENT, *control));
    let sockets = FORBIDDEN_SOCKETS.iter().flat_map(|kind| {
        ["socket", "socketpair"].map(|call| deny(call, 0, ARGUMENT, u64::from(kind.unsigned_abs())))
    });
    let bits = (0..64).map(|bit| 1 << bit).filter(|bit| NEW_NAMESPACES & bit != 0);
    let of_engines = fails(&FORBIDDEN_BY_ENGINES.map(str::to_owned), libc::EPERM);
    // Its flags are behind a pointer, which no filter can follow.
    let clone3 = fails(&["clone3".to_owned()], libc::ENOSYS);
    let clones = bits.map(|bit| deny("clone", 0, bit, bit));
    controls.chain(sockets).chain(clones).chain([of_engines, clone3]).collect()
}

/// What `isolated` allows.
fn allowing() -> Vec<Value> {
    const BY_ARGUMENT: [&str; 4] = ["ioctl", "socket", "socketpair", "clone"];
    let mut whole = names(allowed::CALLS, allowed::CALLS_HERE);
    whole.retain(|name| !BY_ARGUMENT.contains(&name.as_str()));
    let allow = |call: &str, argument: u32, mask: u64, value: u64| json!({ "names": [call], "action": ALLOW, "args": [masked(argument, mask, value)] });
    let sockets = ALLOWED_SOCKETS.iter().flat_map(|kind| {
        ["socket", "socketpair"].map(|call| allow(call, 0, ARGUMENT, u64::from(kind.unsigned_abs())))
    });
    let controls = all_but(&FORBIDDEN_CONTROLS).into_iter();
    std::iter::once(json!({ "names": whole, "action": ALLOW }))
        .chain(sockets)
        .chain(controls.map(|(mask, value)| allow("ioctl", 1, mask, value)))
        .chain([allow("clone", 0, NEW_NAMESPACES, 0)])
        .collect()
}

/// Masks and values, one of which fits each argument but these. A runtime takes no two conditions on one argument.
fn all_but(values: &[u64]) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    // What the bits from the top on are, of arguments that are in question still.
    let mut open = vec![(0, 0)];
    for bit in (0..ARGUMENT_BITS).rev().map(|bit| 1_u64 << bit) {
        let longer = open.iter().flat_map(|(mask, value)| [0, bit].map(|set| (mask | bit, value | set)));
        let (still, free): (Vec<_>, Vec<_>) =
            longer.partition(|(mask, value)| values.iter().any(|one| one & mask == *value));
        all.extend(free);
        open = still;
    }
    all
}

fn masked(argument: u32, mask: u64, value: u64) -> Value {
    json!({ "index": argument, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" })
}

fn fails(names: &[String], errno: libc::c_int) -> Value {
    json!({ "names": names, "action": FAIL, "errnoRet": errno })
}

fn names(everywhere: &[Call], here: &[Call]) -> Vec<String> {
    let all = everywhere.iter().chain(here).map(|call| call.name);
    all.map(|name| name.strip_prefix("SYS_").unwrap_or(name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profiles_have_filters_of_which_no_rule_contradicts_another() {
        assert_eq!((filter(Profile::None), filter(Profile::Standard)), (None, None));
        for profile in [Profile::Strict, Profile::Isolated] {
            let all: Value = serde_json::from_str(&filter(profile).unwrap()).unwrap();
            let rules = all["syscalls"].as_array().unwrap();
            let of = |action: &str| -> Vec<&str> {
                let rules = rules.iter().filter(|rule| rule["action"] == action);
                let names = rules.flat_map(|rule| rule["names"].as_array().unwrap());
                names.map(|name| name.as_str().unwrap()).collect()
            };
            let denied = of(FAIL);
            for call in ["mount", "unshare", "bpf", "io_uring_setup", "ptrace"] {
                assert!(denied.contains(&call), "{profile}: {call}");
            }
            assert!(profile == Profile::Isolated || denied.contains(&"clone3"));
            assert!(of(ALLOW).iter().all(|call| !denied.contains(call) && *call != "clone3"), "{profile}");
            let is_plain = |call: &&str| !call.is_empty() && !call.starts_with("SYS_");
            assert!(denied.iter().chain(&of(ALLOW)).all(is_plain));
        }
    }

    #[test]
    fn all_but_some_is_all_but_these() {
        let masks = all_but(&FORBIDDEN_CONTROLS);
        let fits = |argument: u64| masks.iter().any(|(mask, value)| argument & mask == *value);
        for control in 0..=0xFFFF {
            assert_eq!(fits(control), !FORBIDDEN_CONTROLS.contains(&control), "{control:x}");
        }
        assert!(fits(ARGUMENT) && fits(1 << 31 | libc::TIOCSTI));
        assert!(!fits(1 << 32 | libc::TIOCSTI), "the kernel does not look at what is above");
        assert_eq!(all_but(&[]), [(1 << 31, 0), (1 << 31, 1 << 31)]);
    }
}
