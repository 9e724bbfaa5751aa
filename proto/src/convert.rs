//! Conversions between the wire and `model`.

use model::sandbox::Profile;

impl From<Profile> for crate::Profile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::None => Self::None,
            Profile::Standard => Self::Standard,
            Profile::Strict => Self::Strict,
            Profile::Isolated => Self::Isolated,
        }
    }
}

impl crate::Profile {
    /// The profile; none where the host is to decide.
    pub fn named(self) -> Option<Profile> {
        match self {
            Self::HostDefault => None,
            Self::None => Some(Profile::None),
            Self::Standard => Some(Profile::Standard),
            Self::Strict => Some(Profile::Strict),
            Self::Isolated => Some(Profile::Isolated),
        }
    }
}
