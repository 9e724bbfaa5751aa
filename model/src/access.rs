//! Permissions, what they reach, and the roles that every organization has.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Invalid, limits,
    selector::{Expr, Key, Selector},
};

/// What a permission is about, and so where it can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Everybody who has entered.
    Everyone,
    /// Hosts and what ran on them: a binding may confine it to some.
    Hosts,
    /// Jobs: a binding may confine it to some, by their labels.
    Jobs,
    /// The organization as a whole: only a binding without a scope gives it.
    Organization,
    /// The installation as a whole: the same, and only in the home organization.
    Installation,
}

macro_rules! permissions {
    ($($variant:ident = $text:literal, $reach:ident, $about:literal;)*) => {
        /// One thing that somebody may do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Permission {
            $(#[doc = $about] #[serde(rename = $text)] $variant,)*
        }

        impl Permission {
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$variant),*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            pub const fn reach(self) -> Reach {
                match self { $(Self::$variant => Reach::$reach,)* }
            }

            /// What it allows, for people.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }
        }
    };
}

permissions! {
    SelfRead = "self.read", Everyone, "See and change one's own: sessions, password, tokens";
    AgentRead = "agent.read", Hosts, "See agents with their facts and metrics";
    AgentManage = "agent.manage", Hosts, "Approve and revoke agents, and change their labels";
    AgentDrain = "agent.drain", Hosts, "Drain and resume agents";
    ExecutionRead = "execution.read", Hosts, "See executions and their output";
    ExecutionCreate = "execution.create", Hosts, "Run commands";
    ExecutionCancel = "execution.cancel", Hosts, "Cancel executions";
    JobRead = "job.read", Jobs, "See jobs and their versions";
    JobManage = "job.manage", Jobs, "Save and delete jobs";
    ScheduleRead = "schedule.read", Jobs, "See schedules and what became of their firings";
    ScheduleManage = "schedule.manage", Jobs, "Save, pause, start and delete schedules of jobs that one may start";
    CalendarManage = "calendar.manage", Organization, "Save and delete calendars, which schedules heed";
    ApprovalDecide = "approval.decide", Jobs, "Approve and reject what jobs ask for";
    ApprovalBreakGlass = "approval.break_glass", Organization, "Let a job go on without the approvals that it asks for";
    EnrollTokenRead = "enroll_token.read", Organization, "See enroll tokens, without their secrets";
    EnrollTokenManage = "enroll_token.manage", Organization, "Make and delete enroll tokens";
    UserRead = "user.read", Organization, "See the people of the organization";
    UserManage = "user.manage", Organization, "Invite people, remove them, reset their passwords, end their sessions";
    RoleRead = "role.read", Organization, "See roles, groups and who has which role";
    RoleManage = "role.manage", Organization, "Change roles and groups, and give and take roles";
    TokenRead = "token.read", Organization, "See everybody's API tokens, without their secrets";
    TokenManage = "token.manage", Organization, "Manage service accounts, and revoke everybody's API tokens";
    AuditRead = "audit.read", Organization, "Read, export and verify the audit";
    EventRead = "event.read", Organization, "Read the events";
    EventCreate = "event.create", Organization, "Add events of one's own";
    StatisticsRead = "statistics.read", Organization, "See the organization's statistics";
    ReportRead = "report.read", Organization, "See who may do what, and who did";
    OrganizationRead = "organization.read", Installation, "See all organizations";
    OrganizationManage = "organization.manage", Installation, "Make organizations";
    UserAdminister = "user.administer", Installation, "Disable people, and reset passwords of members of several organizations";
    ControllerRead = "controller.read", Installation, "See the controllers";
    ControllerJoin = "controller.join", Installation, "Let another controller have the installation's keys";
    StatusRead = "status.read", Installation, "See the state and the metrics of the controller";
}

impl Permission {
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|permission| permission.as_str() == text)
    }
}

// By hand: utoipa does not see the names that the macro above gives to serde.
impl utoipa::PartialSchema for Permission {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::Type::String)
            .description(Some("One thing that somebody may do."))
            .enum_values(Some(Self::ALL.map(Self::as_str)))
            .into()
    }
}

impl utoipa::ToSchema for Permission {}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Some permissions, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions(u64);

const _: () = assert!(Permission::ALL.len() <= 64, "a set has 64 bits");

impl Permissions {
    pub const NONE: Self = Self(0);

    pub fn all() -> Self {
        Permission::ALL.into_iter().collect()
    }

    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u32) != 0
    }

    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.into_iter().filter(move |permission| self.contains(*permission))
    }

    /// Reads names; those that this program does not know (any more) give nothing.
    pub fn of_names<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Self {
        names.into_iter().filter_map(|name| Permission::parse(name.as_ref())).collect()
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().fold(0, |bits, permission| bits | 1 << permission as u32))
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Permission::as_str)).finish()
    }
}

/// A role that every organization has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuiltInRole {
    Viewer,
    Operator,
    Author,
    Approver,
    Auditor,
    Administrator,
}

impl BuiltInRole {
    pub const ALL: [Self; 6] =
        [Self::Viewer, Self::Operator, Self::Author, Self::Approver, Self::Auditor, Self::Administrator];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Author => "author",
            Self::Approver => "approver",
            Self::Auditor => "auditor",
            Self::Administrator => "administrator",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    pub fn permissions(self) -> Permissions {
        use Permission as P;
        let viewer = [
            P::SelfRead,
            P::AgentRead,
            P::ExecutionRead,
            P::JobRead,
            P::ScheduleRead,
            P::EventRead,
            P::StatisticsRead,
        ];
        let operator =
            [P::ExecutionCreate, P::ExecutionCancel, P::ScheduleManage, P::AgentDrain, P::EventCreate];
        let auditor = [
            P::AuditRead,
            P::UserRead,
            P::RoleRead,
            P::TokenRead,
            P::EnrollTokenRead,
            P::ReportRead,
            P::OrganizationRead,
            P::ControllerRead,
        ];
        match self {
            Self::Viewer => viewer.into_iter().collect(),
            Self::Approver => viewer.into_iter().chain([P::ApprovalDecide]).collect(),
            Self::Operator => viewer.into_iter().chain(operator).collect(),
            Self::Author => {
                viewer.into_iter().chain(operator).chain([P::JobManage, P::CalendarManage]).collect()
            }
            Self::Auditor => viewer.into_iter().chain(auditor).collect(),
            Self::Administrator => Permissions::all(),
        }
    }
}

/// Checks the name of a role, a group, a service account or an organization: lower-case, so that two names that look alike
/// are one.
///
/// # Errors
/// Names the field and what is allowed.
pub fn validate_slug(field: &str, name: &str) -> Result<(), Invalid> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c);
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if !starts_well || !name.chars().all(good) || name.len() > limits::SLUG_CHARS {
        let allowed = format!(
            "must have 1 to {} lower-case letters, digits and any of _ . -, a letter or digit first",
            limits::SLUG_CHARS
        );
        return Err(Invalid::new(field, allowed));
    }
    Ok(())
}

/// The one form of a person's name: without white space around it and in lower case.
///
/// # Errors
/// Names the field `user` and what is allowed: the characters of a name or of an address of e-mail.
pub fn canonical_user(name: &str) -> Result<String, Invalid> {
    let name = name.trim().to_ascii_lowercase();
    let good = |c: char| c.is_ascii_alphanumeric() || "_.-+@".contains(c);
    if name.is_empty()
        || name.len() > limits::SLUG_CHARS
        || !name.chars().all(good)
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        let allowed = format!(
            "must have 1 to {} letters, digits and any of _ . - + @, a letter or digit first",
            limits::SLUG_CHARS
        );
        return Err(Invalid::new("user", allowed));
    }
    Ok(name)
}

/// Reads the selector of a scope. It may look at labels only: name and facts are what a host says of itself.
///
/// # Errors
/// Names the field, and the place or the key.
pub fn scope_selector(field: &str, text: &str) -> Result<Selector, Invalid> {
    if text.len() > limits::SELECTOR_BYTES {
        return Err(Invalid::over(field, "SELECTOR_BYTES", limits::SELECTOR_BYTES, "bytes"));
    }
    let selector = Selector::parse(text).map_err(|error| Invalid::new(field, error.to_string()))?;
    match foreign_key(selector.expr()) {
        Some(key) => {
            let problem = format!("may look at labels only; '{key}' is what a host says of itself");
            Err(Invalid::new(field, problem))
        }
        None => Ok(selector),
    }
}

fn foreign_key(expr: &Expr) -> Option<&Key> {
    match expr {
        Expr::Or(terms) | Expr::And(terms) => terms.iter().find_map(foreign_key),
        Expr::Not(term) => foreign_key(term),
        Expr::Test(key @ (Key::Name | Key::Fact(_)), _) => Some(key),
        Expr::Test(Key::Label(_), _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_permission_is_read_back_and_has_its_bit() {
        for permission in Permission::ALL {
            assert_eq!(Permission::parse(permission.as_str()), Some(permission));
            assert_eq!(serde_json::to_value(permission).unwrap(), permission.as_str());
            let one: Permissions = [permission].into_iter().collect();
            assert_eq!(one.iter().collect::<Vec<_>>(), [permission]);
        }
        let schema = serde_json::to_value(<Permission as utoipa::PartialSchema>::schema()).unwrap();
        assert_eq!(schema["enum"], serde_json::json!(Permission::ALL.as_slice()));
        assert_eq!(Permissions::all().iter().count(), Permission::ALL.len());
        assert_eq!(Permissions::of_names(["agent.read", "no.such"]).iter().count(), 1);
    }

    #[test]
    fn what_the_built_in_roles_may() {
        let may = |role: BuiltInRole, permission| role.permissions().contains(permission);
        for role in BuiltInRole::ALL {
            assert_eq!(BuiltInRole::parse(role.as_str()), Some(role));
            assert!(may(role, Permission::AgentRead) && may(role, Permission::SelfRead), "{role:?}");
            let runs =
                matches!(role, BuiltInRole::Operator | BuiltInRole::Author | BuiltInRole::Administrator);
            assert_eq!(may(role, Permission::ExecutionCreate), runs, "{role:?}");
            let manages = role == BuiltInRole::Administrator;
            for permission in Permission::ALL {
                if matches!(permission, Permission::JobManage | Permission::CalendarManage) {
                    assert_eq!(may(role, permission), manages || role == BuiltInRole::Author, "{role:?}");
                } else if permission == Permission::ScheduleManage {
                    assert_eq!(may(role, permission), runs, "{role:?}");
                } else if permission == Permission::ApprovalDecide {
                    assert_eq!(may(role, permission), manages || role == BuiltInRole::Approver, "{role:?}");
                } else if permission.as_str().ends_with(".manage")
                    || permission.as_str().ends_with(".join")
                    || permission == Permission::ApprovalBreakGlass
                {
                    assert_eq!(may(role, permission), manages, "{role:?} {permission}");
                }
            }
        }
    }

    #[test]
    fn scopes_look_at_labels_alone() {
        assert!(scope_selector("hosts", "env=staging and not tier in (db, cache)").is_ok());
        for (text, what) in
            [("name=web-1", "name"), ("env=a and (x or not os=linux)", "os"), ("env=", "character 5")]
        {
            let invalid = scope_selector("hosts", text).unwrap_err();
            assert!(invalid.field == "hosts" && invalid.problem.contains(what), "{invalid}");
        }
    }

    #[test]
    fn names_have_one_form() {
        assert_eq!(canonical_user(" Ada.Lovelace@Example.org ").unwrap(), "ada.lovelace@example.org");
        for bad in ["", " ", "a b", "ada\0", "-ada", "ädä", "a/b", "service/x", &"a".repeat(65)] {
            assert!(canonical_user(bad).is_err(), "{bad:?}");
        }
        assert!(validate_slug("name", "web-team.1").is_ok());
        for bad in ["", "Web", "web team", "_x", "x/y", &"a".repeat(65)] {
            assert!(validate_slug("name", bad).is_err(), "{bad:?}");
        }
    }
}
