//! Dependencies point one way: between the crates, and between the parts of the controller.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace").to_owned()
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

/// The modules right below the crate that a source file uses: every `crate::x`, and each `x` of `use crate::{x, …}`.
fn used(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // Neither `my_crate::` nor a macro's `$crate::`.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.extend(name(rest)),
            Some(group) => {
                let (mut depth, mut fresh) = (0, true);
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => fresh = true,
                        c if c.is_whitespace() => {}
                        _ if fresh => {
                            found.extend(name(&group[at..]));
                            fresh = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

fn name(text: &str) -> Option<String> {
    let name: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// Fails for every module of `package` that uses one which it must not.
fn check(package: &str, allowed: &BTreeMap<&str, Vec<&str>>) {
    let source = workspace().join(package).join("src");
    let mut wrong = Vec::new();
    for (part, below) in allowed {
        let (folder, file) = (source.join(part), source.join(format!("{part}.rs")));
        let mut files = if folder.is_dir() { sources(&folder) } else { Vec::new() };
        files.extend(file.exists().then_some(file));
        assert!(!files.is_empty(), "{package} has no part '{part}'");
        for file in files {
            let text = std::fs::read_to_string(&file).expect("it is a file of ours");
            let upward =
                used(&text).into_iter().filter(|other| other != part && !below.contains(&&other[..]));
            wrong.extend(upward.map(|other| format!("{} uses crate::{other}", file.display())));
        }
    }
    assert!(wrong.is_empty(), "arrows that point up:\n{}", wrong.join("\n"));
}

#[test]
fn the_parts_of_the_controller() {
    let ground = ["error", "clock", "address", "mutant"];
    let with = |more: &[&'static str]| ground.iter().chain(more).copied().collect::<Vec<_>>();
    check(
        "controller",
        &BTreeMap::from([
            ("error", Vec::new()),
            ("clock", Vec::new()),
            ("address", Vec::new()),
            ("config", vec!["address"]),
            ("lifecycle", Vec::new()),
            ("store", with(&[])),
            ("app", with(&["store", "config"])),
            ("http", with(&["app", "store", "lifecycle"])),
            ("grpc", with(&["app", "store"])),
            ("background", with(&["app", "store"])),
        ]),
    );
}

#[test]
fn the_store_decides_nothing_and_the_app_knows_no_door() {
    let source = workspace().join("controller/src");
    for (part, foreign) in
        [("store", &["axum::", "tonic::"][..]), ("app", &["axum::", "tonic::", "sqlx::query"])]
    {
        for file in sources(&source.join(part)) {
            let text = std::fs::read_to_string(&file).expect("it is a file of ours");
            for word in foreign {
                assert!(!text.contains(word), "{} has {word}", file.display());
            }
        }
    }
}

#[test]
fn the_parts_of_the_agent_share_messages_alone() {
    let ground = ["clock", "messages", "channel", "config", "mutant"];
    let with = |more: &[&'static str]| ground.iter().chain(more).copied().collect::<Vec<_>>();
    check(
        "agent",
        &BTreeMap::from([
            ("messages", Vec::new()),
            ("channel", vec!["messages", "segment"]),
            // Output is shipped from where the shim wrote it.
            ("link", with(&["segment", "sys"])),
            ("executor", with(&["shim", "sandbox", "segment"])),
            ("shim", with(&["sandbox", "segment", "sys"])),
            ("sandbox", with(&["sys"])),
            ("sys", Vec::new()),
        ]),
    );
}

/// The crates of the workspace that a package is built with.
fn dependencies(package: &str) -> BTreeSet<String> {
    const OURS: [&str; 9] = [
        "fault",
        "model",
        "proto",
        "pki",
        "opsconductor-controller",
        "opsconductor-agent",
        "opsctl",
        "opsconductor-tests",
        "opsconductor-bench",
    ];
    let text =
        std::fs::read_to_string(workspace().join(package).join("Cargo.toml")).expect("every package has one");
    let (mut inside, mut found) = (false, BTreeSet::new());
    for line in text.lines() {
        if let Some(section) = line.strip_prefix('[') {
            inside = section.starts_with("dependencies") || section.starts_with("build-dependencies");
        } else if inside
            && let Some(name) = name_of_dependency(line).filter(|name| OURS.contains(&name.as_str()))
        {
            found.insert(name);
        }
    }
    found
}

fn name_of_dependency(line: &str) -> Option<String> {
    let name: String = line.chars().take_while(|c| c.is_alphanumeric() || "_-".contains(*c)).collect();
    (!name.is_empty()).then_some(name)
}

#[test]
fn the_crates() {
    for (package, want) in [
        ("fault", &[][..]),
        ("model", &[]),
        ("proto", &["model"]),
        ("pki", &["model"]),
        ("safety", &["model"]),
        ("cli", &["model", "pki"]),
        ("controller", &["fault", "model", "pki", "proto", "safety"]),
        ("agent", &["fault", "model", "pki", "proto"]),
    ] {
        let allowed: BTreeSet<String> = want.iter().map(|name| (*name).to_owned()).collect();
        let more: Vec<String> = dependencies(package).difference(&allowed).cloned().collect();
        assert!(more.is_empty(), "{package} depends on {more:?}");
    }
}

/// The second of two would take the place of the first in the API's document.
#[test]
fn every_schema_has_a_name_of_its_own() {
    let mut found = BTreeMap::new();
    // Those of the controller are parts of parameters, and stand where they are used.
    for file in sources(&workspace().join("model/src")) {
        let text = std::fs::read_to_string(&file).expect("it is a file of ours");
        for (at, _) in text.match_indices("ToSchema)]") {
            let (attributes, kind) = ["struct ", "enum "]
                .iter()
                .filter_map(|kind| text[at..].split_once(kind))
                .min_by_key(|(attributes, _)| attributes.len())
                .expect("a schema is of a type");
            let written = attributes.split_once("#[schema(as = ").map_or(kind, |(_, renamed)| renamed);
            // A macro's type has none.
            let Some(name) = name(written) else { continue };
            if let Some(other) = found.insert(name.clone(), file.clone()) {
                panic!("{name} is in {} and in {}", other.display(), file.display());
            }
        }
    }
    assert!(found.len() > 100, "{}", found.len());
}

#[test]
fn uses_are_found() {
    let text = "use crate::{app::{a, b}, error::{During}, store};\n// crate::no\nlet x = crate::clock::now(); my_crate::x";
    let found: Vec<String> = used(text).into_iter().collect();
    assert_eq!(found, ["app", "clock", "error", "store"]);
}
