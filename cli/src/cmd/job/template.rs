//! Documents to begin with: those of `examples/`, which are part of the program.

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Template {
    /// The name of its job.
    pub(crate) name: &'static str,
    text: &'static str,
}

macro_rules! templates {
    ($($name:literal),+ $(,)?) => {
        &[$(Template {
            name: $name,
            text: include_str!(concat!("../../../../examples/", $name, ".yaml")),
        }),+]
    };
}

pub(crate) const TEMPLATES: &[Template] = templates![
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

/// The template of that name, as clap reads it.
///
/// # Errors
/// When there is none.
pub(crate) fn name(text: &str) -> Result<&'static Template, String> {
    find(text).ok_or_else(|| {
        let names: Vec<&str> = TEMPLATES.iter().map(|template| template.name).collect();
        format!("there are: {}", names.join(", "))
    })
}

pub(crate) fn find(name: &str) -> Option<&'static Template> {
    TEMPLATES.iter().find(|template| template.name == name)
}

impl Template {
    /// The document, for a job that is called `name`.
    pub(crate) fn named(&self, name: &str) -> String {
        self.text.replacen(&format!("name: {}\n", self.name), &format!("name: {name}\n"), 1)
    }

    /// The job's own words on what it is for.
    pub(crate) fn description(&self) -> String {
        model::job::parse(self.text).map(|job| job.description).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn all_are_jobs() {
        for template in TEMPLATES {
            let job = model::job::parse(template.text)
                .unwrap_or_else(|bad| panic!("{}.yaml: {bad}", template.name));
            assert_eq!(job.name, template.name);
            assert!(!job.description.is_empty(), "{}", template.name);
            let renamed = model::job::parse(&template.named("another")).expect("a job");
            assert_eq!(renamed.name, "another");
            assert_eq!(model::job::Job { name: job.name.clone(), ..renamed }, job);
        }
    }

    #[test]
    fn all_files_are_templates() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let files: BTreeSet<String> = fs::read_dir(folder)
            .expect("the examples")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|ext| ext == "yaml"))
            .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
            .collect();
        let names: BTreeSet<String> = TEMPLATES.iter().map(|template| template.name.to_owned()).collect();
        assert_eq!(files, names);
    }
}
