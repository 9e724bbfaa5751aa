//! The templates that are part of the program: the jobs of `examples/`, under a name to be chosen.

use std::sync::LazyLock;

use super::{Template, parse, placeholder::escaped, written::quoted};
use crate::limits;

macro_rules! examples {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../../examples/", $name, ".yaml")))),+]
    };
}

const EXAMPLES: [(&str, &str); 10] = examples![
    "backup-verify",
    "certificate-expiry",
    "config-push",
    "disk-report",
    "incident-collect",
    "kernel-inventory",
    "log-clean-up",
    "onboard-user",
    "patch-rings",
    "rolling-restart",
];

static TEMPLATES: LazyLock<Vec<Template>> =
    LazyLock::new(|| EXAMPLES.iter().map(|(name, text)| template(name, text)).collect());

/// All of them, by name.
pub fn all() -> &'static [Template] {
    &TEMPLATES
}

/// The one of that name.
pub fn find(name: &str) -> Option<&'static Template> {
    all().iter().find(|template| template.name == name)
}

fn template(name: &str, example: &str) -> Template {
    let job = crate::job::parse(example).expect("an example is a job");
    let description = quoted(&job.description);
    let mut document = format!(
        "name: {name}\n\
         description: {description}\n\
         parameters:\n  \
           name:\n    \
             type: string\n    \
             description: What the job is called\n    \
             default: {name}\n    \
             pattern: \"[a-z0-9][a-z0-9_.-]*\"\n    \
             max_length: {}\n\
         job:\n",
        limits::SLUG_CHARS
    );
    let body = escaped(example).replacen(&format!("name: {name}\n"), "name: ${{ name }}\n", 1);
    for line in body.lines() {
        if !line.is_empty() {
            document.push_str("  ");
            document.push_str(line);
        }
        document.push('\n');
    }
    parse(&document).expect("an example is a template")
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        fs,
        path::Path,
    };

    use super::*;
    use crate::job::{self, Job};

    #[test]
    fn each_gives_its_example_under_any_name() {
        for (name, example) in EXAMPLES {
            let template = find(name).unwrap();
            assert!(!template.description.is_empty(), "{name}");
            let filled = template.fill(&BTreeMap::new()).unwrap_or_else(|bad| panic!("{name}: {bad}"));
            assert_eq!(filled.document, example, "{name}: its remarks stay");
            assert_eq!(filled.job, job::parse(example).unwrap());
            let named = |value: &str| template.fill(&BTreeMap::from([("name".to_owned(), value.into())]));
            for other in ["another", "true", "1.0", "0x10", "1e3"] {
                let renamed = named(other).unwrap_or_else(|bad| panic!("{name}: {bad}"));
                assert_eq!(job::parse(&renamed.document).unwrap(), renamed.job);
                assert_eq!(renamed.job, Job { name: other.into(), ..filled.job.clone() });
                assert_eq!(renamed.document.lines().count(), example.lines().count(), "{name}");
            }
            for bad in ["", "A", "a b", "a\nsteps: []", "validate", &"a".repeat(limits::SLUG_CHARS + 1)] {
                assert!(named(bad).is_err(), "{bad:?}");
            }
        }
    }

    #[test]
    fn all_examples_are_templates() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let files: BTreeSet<String> = fs::read_dir(folder)
            .expect("the examples")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|ext| ext == "yaml"))
            .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
            .collect();
        let names: BTreeSet<String> = all().iter().map(|template| template.name.clone()).collect();
        assert_eq!(files, names);
        assert!(all().is_sorted_by(|a, b| a.name < b.name));
    }
}
