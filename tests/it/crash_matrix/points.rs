//! The fault points, as they stand in the sources.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use opsconductor_tests::scene;

const CALL: &str = "fault::point(";

/// Whose process dies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    Controller,
    Agent,
    /// The executor starts another one.
    Link,
    Shim,
}

impl Victim {
    pub(super) fn of(point: &str) -> Self {
        match point.split_once('.').map(|(part, _)| part) {
            Some("controller") => Self::Controller,
            Some("executor") => Self::Agent,
            Some("link") => Self::Link,
            Some("shim") => Self::Shim,
            _ => panic!("the fault point '{point}' is of no part: controller, link, executor or shim"),
        }
    }
}

/// Every fault point of the sources, each once.
///
/// # Panics
/// When a name stands twice, or a call has none.
pub(crate) fn all() -> Vec<String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace");
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for package in ["controller", "agent"] {
        for file in sources(&workspace.join(package).join("src")) {
            let text = std::fs::read_to_string(&file).expect("it is a file of ours");
            for line in text.lines().filter(|line| line.contains(CALL)) {
                let name = line.trim().strip_prefix(CALL).and_then(|rest| rest.strip_prefix('"'));
                let name = name.and_then(|rest| rest.strip_suffix("\");"));
                let name =
                    name.unwrap_or_else(|| panic!("{}: not a line of its own: {line}", file.display()));
                let twice = found.insert(name.to_owned(), file.clone());
                assert!(twice.is_none(), "the fault point '{name}' stands twice, in {twice:?} and {file:?}");
            }
        }
    }
    assert!(!found.is_empty(), "there are no fault points");
    found.into_keys().collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("it is a folder of ours").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Checks that the programs were built with their fault points.
///
/// # Panics
/// Says how to build them.
pub(crate) fn check_that_they_are_built() {
    for program in ["opsconductor-agent", "opsconductor-controller"] {
        let bytes = std::fs::read(scene::binary(program)).expect("it can be read");
        let variable = b"OPSC_FAULT_LOG";
        assert!(
            bytes.windows(variable.len()).any(|window| window == variable),
            "{program} was built without its fault points; `make test` does it, or\n    cargo build --workspace \
             --features opsconductor-agent/faults,opsconductor-controller/faults"
        );
    }
}
