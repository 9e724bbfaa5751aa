//! What a run is confined to on its host: a profile, limits, and the folders that it may use beside its own.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Invalid, limits};

/// How far a run is kept apart from its host. Each gives all that the one before it gives.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// A session and a control group of its own, so that it can be ended. Only where the host's policy allows it.
    None,
    /// An unprivileged user, no capabilities, limits, a temporary folder of its own.
    Standard,
    /// Namespaces, a host that it can only read, and no dangerous system calls.
    Strict,
    /// No network, no users but its own, and of the system calls only those that ordinary programs make.
    Isolated,
}

impl Profile {
    /// From the weakest to the strongest.
    pub const ALL: [Self; 4] = [Self::None, Self::Standard, Self::Strict, Self::Isolated];

    /// The name that the API, the command line and policies use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Standard => "standard",
            Self::Strict => "strict",
            Self::Isolated => "isolated",
        }
    }

    /// Reads what [`Self::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.as_str() == text)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an `isolated` run has of a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    #[default]
    None,
    /// A loopback interface that nobody else has.
    Loopback,
}

impl Network {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a run may take of its host. The host's policy may lower each; what the host cannot enforce refuses the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of memory of all its processes together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processes and threads at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Share of the processors, in percent of one: 250 are two and a half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u64>,
    /// Bytes per second that it may read from, and write to, each disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_bytes_per_second: Option<u64>,
    /// Files that each of its processes may have open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Bytes of the largest file that it may write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
}

impl Limits {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// # Errors
    /// The first limit that is none.
    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        let all = [
            ("command.limits.memory_bytes", self.memory_bytes, limits::RUN_MEMORY_BYTES),
            ("command.limits.pids", self.pids, limits::RUN_PIDS),
            ("command.limits.cpu_percent", self.cpu_percent, limits::RUN_CPU_PERCENT),
            ("command.limits.io_bytes_per_second", self.io_bytes_per_second, limits::RUN_IO_BYTES_PER_SECOND),
            ("command.limits.open_files", self.open_files, limits::RUN_OPEN_FILES),
            ("command.limits.file_bytes", self.file_bytes, limits::RUN_FILE_BYTES),
        ];
        for (field, value, allowed) in all {
            if let Some(value) = value.filter(|value| !allowed.contains(value)) {
                let (from, to) = (allowed.start(), allowed.end());
                return Err(Invalid::new(field, format!("is {value}; allowed is {from} to {to}")));
            }
        }
        Ok(())
    }
}

/// An image whose file system the command runs in, by the host's container engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// As the engine knows it; it is not pulled.
    pub image: String,
}

impl Container {
    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        const FIELD: &str = "command.container.image";
        if self.image.len() > limits::IMAGE_BYTES {
            return Err(Invalid::over(FIELD, "IMAGE_BYTES", limits::IMAGE_BYTES, "bytes"));
        }
        let good = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
        if !self.image.starts_with(|c: char| c.is_ascii_alphanumeric()) || !self.image.chars().all(good) {
            return Err(Invalid::new(
                FIELD,
                "is not an image's name (letters, digits and any of . _ - / : @, a letter or digit first)",
            ));
        }
        Ok(())
    }
}

/// Folders that are named beside the working folder.
pub(crate) fn validate_folders(field: &'static str, folders: &[String]) -> Result<(), Invalid> {
    if folders.len() > limits::RUN_FOLDERS {
        return Err(Invalid::over(field, "RUN_FOLDERS", limits::RUN_FOLDERS, "folders"));
    }
    for folder in folders {
        if folder.len() > limits::PATH_BYTES {
            return Err(Invalid::over(field, "PATH_BYTES", limits::PATH_BYTES, "bytes"));
        }
        if folder.contains('\0') {
            return Err(Invalid::new(field, "contains a NUL character"));
        }
        let words = folder.split('/').skip(1);
        if !folder.starts_with('/') || words.clone().any(|word| word == ".." || word == ".") {
            return Err(Invalid::new(
                field,
                format!("'{folder}' is not an absolute path without '.' and '..'"),
            ));
        }
        if words.clone().all(str::is_empty) {
            return Err(Invalid::new(field, "is the root folder; name what is needed below it"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_have_names_and_an_order() {
        for profile in Profile::ALL {
            assert_eq!(Profile::parse(profile.as_str()), Some(profile));
        }
        assert_eq!(Profile::parse("Strict"), None);
        assert!(Profile::ALL.is_sorted());
    }

    #[test]
    fn folders_lead_nowhere_else() {
        let check = |folder: &str| validate_folders("command.write", &[folder.to_owned()]);
        assert!(check("/srv/site").is_ok());
        for bad in ["srv", "", "/", "//", "/srv/../etc", "/srv/.", "/a\0b"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        let many = vec!["/srv".to_owned(); limits::RUN_FOLDERS + 1];
        assert!(validate_folders("command.read", &many).is_err());
    }

    #[test]
    fn limits_have_bounds() {
        let limits = Limits { memory_bytes: Some(1), ..Limits::default() };
        assert!(limits.validate().unwrap_err().to_string().contains("command.limits.memory_bytes"));
        assert!(Limits { pids: Some(0), ..Limits::default() }.validate().is_err());
        assert!(Limits { cpu_percent: Some(250), ..Limits::default() }.validate().is_ok());
    }

    #[test]
    fn an_image_is_a_name() {
        let image = |image: &str| Container { image: image.to_owned() }.validate();
        assert!(image("registry.local:5000/team/app@sha256:abc").is_ok());
        for bad in ["", "-x", "a b", "a\nb", "ä"] {
            assert!(image(bad).is_err(), "{bad:?}");
        }
    }
}
