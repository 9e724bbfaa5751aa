//! `[safety]`: what becomes of what the rules call dangerous.

use serde::Deserialize;

use super::{ConfigError, wrong};

/// What becomes of it, by its severity.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Safety {
    pub(crate) notice: Policy,
    pub(crate) danger: Policy,
    pub(crate) catastrophe: Policy,
}

/// What becomes of something dangerous.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Policy {
    /// It is told.
    #[default]
    Warn,
    /// Somebody has to approve it first.
    Approval,
    /// It is neither saved nor started.
    Refuse,
}

const POLICIES: [(&str, Policy); 3] =
    [("warn", Policy::Warn), ("approval", Policy::Approval), ("refuse", Policy::Refuse)];

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SafetyLayer {
    notice: Option<String>,
    danger: Option<String>,
    catastrophe: Option<String>,
}

impl SafetyLayer {
    /// Both, `above` winning.
    pub(super) fn under(self, above: Self) -> Self {
        Self {
            notice: above.notice.or(self.notice),
            danger: above.danger.or(self.danger),
            catastrophe: above.catastrophe.or(self.catastrophe),
        }
    }
}

impl Safety {
    pub(super) fn read(layer: &SafetyLayer) -> Result<Self, ConfigError> {
        let read = |key, text: Option<&str>| {
            let text = text.unwrap_or("warn");
            let found = POLICIES.iter().find(|(name, _)| *name == text).map(|(_, policy)| *policy);
            found.ok_or_else(|| wrong(key, format!("'{text}' is none of warn, approval and refuse")))
        };
        Ok(Self {
            notice: read("[safety] notice", layer.notice.as_deref())?,
            danger: read("[safety] danger", layer.danger.as_deref())?,
            catastrophe: read("[safety] catastrophe", layer.catastrophe.as_deref())?,
        })
    }

    /// Whether all of it is only told.
    pub(crate) fn only_warns(&self) -> bool {
        [self.notice, self.danger, self.catastrophe].iter().all(|policy| *policy == Policy::Warn)
    }

    pub(super) fn table(&self) -> toml::Table {
        let name =
            |policy| POLICIES.iter().find(|(_, other)| *other == policy).map_or("warn", |(name, _)| name);
        let all = [("notice", self.notice), ("danger", self.danger), ("catastrophe", self.catastrophe)];
        all.into_iter().map(|(key, policy)| (key.to_owned(), name(policy).into())).collect()
    }
}
