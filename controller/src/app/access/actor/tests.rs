use model::access::{BuiltInRole, scope_selector};
use uuid::Uuid;

use super::*;

fn grant(role: BuiltInRole, hosts: Option<&str>, jobs: Option<&str>) -> Grant {
    Grant {
        id: RoleBindingId(Uuid::nil()),
        role: role.as_str().to_owned(),
        permissions: role.permissions(),
        group: None,
        hosts: hosts.map(|text| scope_selector("hosts", text).expect("a scope")),
        jobs: jobs.map(|text| scope_selector("jobs", text).expect("a scope")),
    }
}

fn actor(grants: Vec<Grant>) -> Actor {
    Actor::new(who(), grants)
}

fn who() -> Who {
    Who {
        org_id: OrgId(Uuid::nil()),
        organization: "main".to_owned(),
        is_home: true,
        subject: Subject::User(UserId(Uuid::nil())),
        name: "ada".to_owned(),
        credential: Credential::Session(LoginSessionId(Uuid::nil())),
        narrowed: Narrowed::default(),
    }
}

/// `all`, the selector, or `no`.
fn answer(actor: &Actor, permission: Permission) -> String {
    match actor.judge(permission) {
        Ok(Hosts::All) => "all".to_owned(),
        Ok(Hosts::Where(selector)) => selector.to_string(),
        Err(_) => "no".to_owned(),
    }
}

#[test]
fn what_is_granted_and_where() {
    use BuiltInRole::{Administrator, Operator, Viewer};
    use Permission::{
        AgentManage, AgentRead, AuditRead, ControllerJoin, ExecutionCreate, SelfRead, UserManage,
    };
    let staging = Some("env=staging");
    let table: [(Vec<Grant>, Permission, &str); 16] = [
        (vec![], SelfRead, "all"),
        (vec![], AgentRead, "no"),
        (vec![grant(Viewer, None, None)], AgentRead, "all"),
        (vec![grant(Viewer, None, None)], ExecutionCreate, "no"),
        (vec![grant(Viewer, staging, None)], AgentRead, "env=staging"),
        (vec![grant(Operator, staging, None), grant(Viewer, None, None)], AgentRead, "all"),
        (vec![grant(Operator, staging, None), grant(Viewer, None, None)], ExecutionCreate, "env=staging"),
        (
            vec![
                grant(Operator, staging, None),
                grant(Operator, Some("team=web"), None),
                grant(Operator, staging, None),
            ],
            ExecutionCreate,
            "env=staging or team=web",
        ),
        // For some jobs: not for commands, which are none.
        (vec![grant(Operator, None, Some("team=web"))], ExecutionCreate, "no"),
        (
            vec![grant(Operator, None, Some("team=web")), grant(Operator, staging, None)],
            ExecutionCreate,
            "env=staging",
        ),
        // About the whole organization: never by a binding with a scope.
        (vec![grant(Administrator, staging, None)], UserManage, "no"),
        (vec![grant(Administrator, None, Some("team=web"))], AuditRead, "no"),
        (vec![grant(Administrator, staging, None)], AgentManage, "env=staging"),
        (vec![grant(Administrator, staging, None)], ControllerJoin, "no"),
        (vec![grant(Administrator, None, None)], ControllerJoin, "all"),
        (vec![grant(Administrator, None, None)], UserManage, "all"),
    ];
    for (grants, permission, want) in table {
        let actor = actor(grants);
        assert_eq!(answer(&actor, permission), want, "{:?} {permission}", actor.grants);
    }
}

#[test]
fn only_the_home_organization_gives_what_concerns_the_installation() {
    let elsewhere =
        Actor::new(Who { is_home: false, ..who() }, vec![grant(BuiltInRole::Administrator, None, None)]);
    for permission in Permission::ALL {
        let want = if permission.reach() == Reach::Installation { "no" } else { "all" };
        assert_eq!(answer(&elsewhere, permission), want, "{permission}");
    }
}

#[test]
fn a_token_only_takes_away() {
    let narrow = |permissions: Option<&[Permission]>, hosts: Option<&str>, grants| {
        let narrowed = Narrowed {
            permissions: permissions.map(|kept| kept.iter().copied().collect()),
            hosts: hosts.map(|text| scope_selector("hosts", text).expect("a scope")),
            expires_at: None,
        };
        Actor::new(Who { narrowed, ..who() }, grants)
    };
    let staging = || grant(BuiltInRole::Operator, Some("env=staging"), None);
    let administrator = || grant(BuiltInRole::Administrator, None, None);

    let token = narrow(Some(&[Permission::AgentRead, Permission::UserManage]), None, vec![staging()]);
    assert_eq!(answer(&token, Permission::AgentRead), "env=staging");
    assert_eq!(answer(&token, Permission::ExecutionCreate), "no");
    assert_eq!(answer(&token, Permission::UserManage), "no", "its owner does not have it");

    let token = narrow(None, Some("team=web"), vec![administrator()]);
    assert_eq!(answer(&token, Permission::ExecutionCreate), "team=web");
    assert_eq!(answer(&token, Permission::UserManage), "no", "that is not about hosts");
    assert!(token.unconfined().iter().eq([Permission::SelfRead]));

    let token = narrow(None, Some("team=web"), vec![administrator(), staging()]);
    assert_eq!(answer(&token, Permission::ExecutionCreate), "team=web");
    let token = narrow(None, Some("team=web"), vec![staging()]);
    assert_eq!(answer(&token, Permission::ExecutionCreate), "env=staging and team=web");
}

#[test]
fn what_is_held_for_some_jobs_is_not_given_for_all() {
    let author = actor(vec![grant(BuiltInRole::Author, None, Some("team=web"))]);
    let (web, db) = ([("team", "web")], [("team", "db")]);
    let labels =
        |pairs: [(&str, &str); 1]| pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    for permission in [Permission::JobRead, Permission::JobManage] {
        assert!(author.reaches_job(permission, &labels(web)), "{permission}");
        assert!(!author.reaches_job(permission, &labels(db)), "{permission}");
        assert!(!author.unconfined().contains(permission), "{permission}");
    }
    assert_eq!(author.jobs_seen().map(|jobs| jobs.to_string()).as_deref(), Some("team=web"));
    assert!(author.judge_for_job(Permission::ExecutionCreate, &labels(web)).is_ok());
    assert!(author.judge_for_job(Permission::ExecutionCreate, &labels(db)).is_err());
    assert!(author.judge(Permission::ExecutionCreate).is_err(), "a command is no job");
    // What a job does is not confined to hosts.
    let confined = actor(vec![grant(BuiltInRole::Author, Some("env=staging"), None)]);
    assert!(confined.judge(Permission::JobRead).is_ok() && confined.judge(Permission::JobManage).is_err());
    assert!(!confined.reaches_job(Permission::JobManage, &labels(web)));
}
