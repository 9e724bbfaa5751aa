//! A folder that a run may write, or begins in, is swapped for a link to elsewhere all the time: nothing is ever written
//! there.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use proto::Profile;

use super::can_try;
use crate::one_shim::{Shim, shell, spec};

const SWAPS: usize = 100_000;
/// Within which enough must have happened.
const WITHIN: Duration = Duration::from_secs(20);

/// Where a run is told to write.
#[derive(Debug, Clone, Copy)]
enum How {
    /// As a folder that it names.
    Named,
    /// As where it begins.
    Begins,
}

fn write_there(place: &Path, profile: Profile, how: How) -> (proto::ExitRecord, String) {
    let place = place.display().to_string();
    let line = match how {
        How::Named => format!("for i in 1 2 3 4 5 6 7 8; do echo x > {place}/named-$$-$i; done; true"),
        How::Begins => "for i in 1 2 3 4 5 6 7 8; do echo x > begun-$$-$i; done; true".to_owned(),
    };
    let mut command = shell(&line);
    command.profile = profile.into();
    command.cwd = String::new();
    match how {
        How::Named => command.write = vec![place],
        How::Begins => command.cwd = place,
    }
    let mut ordered = spec(command);
    (ordered.first_uid, ordered.last_uid) = model::limits::DYNAMIC_UIDS;
    ordered.cwd_is_resolved = true;
    let (record, output) = Shim::start(&ordered).finish();
    (record, String::from_utf8_lossy(&output.stderr.data).into_owned())
}

#[test]
fn a_folder_that_becomes_a_link_leads_nowhere() {
    if !can_try() {
        return;
    }
    let base = tempfile::Builder::new().prefix("opsc-race-").tempdir_in("/var/lib").unwrap();
    let open = |path: &Path| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    };
    let [place, link, target] = ["place", "link", "target"].map(|name| base.path().join(name));
    for folder in [&place, &target] {
        std::fs::create_dir(folder).unwrap();
        open(folder);
    }
    open(base.path());
    std::os::unix::fs::symlink(&target, &link).unwrap();

    let (stop, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
    let begun = Instant::now();
    let (mut ran, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &place, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        let cases = [
            (Profile::Strict, How::Named),
            (Profile::Isolated, How::Named),
            (Profile::Strict, How::Begins),
            (Profile::Isolated, How::Begins),
            (Profile::Standard, How::Begins),
        ];
        let mut rounds = 0;
        let is_enough = |ran, refused, rounds| {
            rounds >= 6 && ran > 0 && refused > 0 && swaps.load(Ordering::Relaxed) >= SWAPS
        };
        while !is_enough(ran, refused, rounds) && begun.elapsed() < WITHIN {
            for (profile, how) in cases {
                let (record, errors) = write_there(&place, profile, how);
                match record.reason.as_str() {
                    "exited" => ran += 1,
                    "sandbox_unavailable" | "bad_working_directory" => refused += 1,
                    _ => panic!("{profile:?}, {how:?}: {record:?} {errors}"),
                }
            }
            rounds += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    let swaps = swaps.load(Ordering::Relaxed);
    assert!(ran > 0 && refused > 0 && swaps >= SWAPS, "{ran} ran, {refused} were refused, {swaps} swaps");
    let written: Vec<_> = std::fs::read_dir(&target).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(written.is_empty(), "written outside: {written:?}");
    let inside = if place.is_symlink() { &link } else { &place };
    assert!(std::fs::read_dir(inside).unwrap().count() > 0, "nothing was written inside either");
}
