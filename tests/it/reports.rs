//! The report of access: who may do what on which host, and who did.

use model::{access::Permission, api::report::AccessReport};
use opsconductor_tests::{World, door::Puppet};
use serde_json::json;

#[tokio::test]
async fn who_may_and_who_did_is_what_requests_would_show() {
    let world = World::start().await;
    let watch = world.watch();
    for (name, env) in [("s1", "staging"), ("p1", "prod"), ("p2", "prod")] {
        let token = world.enroll_token(&json!({ "labels": { "env": env } })).await;
        Puppet::enroll(world.door(), &token, name).await;
    }
    let admin = world.administrator().await;
    let dora = world.person("dora", None).await;
    world.person("idle", None).await;
    admin.post("/api/v1/groups", &json!({ "name": "deployers" })).await.accepted();
    admin.put("/api/v1/groups/deployers/members/dora", &json!({})).await.accepted();
    for binding in [
        json!({ "role": "operator", "group": "deployers", "hosts": "env=staging" }),
        json!({ "role": "viewer", "user": "dora", "hosts": "env=prod" }),
        json!({ "role": "operator", "user": "idle", "jobs": "team=web" }),
    ] {
        admin.post("/api/v1/role-bindings", &binding).await.accepted();
    }
    admin.post("/api/v1/service-accounts", &json!({ "name": "robot" })).await.accepted();
    admin
        .post("/api/v1/role-bindings", &json!({ "role": "auditor", "service_account": "robot" }))
        .await
        .accepted();
    let run = |host: &str| json!({ "targets": { "names": [host] }, "command": { "program": { "argv": ["=true"] } } });
    dora.post("/api/v1/executions", &run("s1")).await.accepted();
    admin.post("/api/v1/executions", &run("p1")).await.accepted();

    admin.post("/api/v1/invitations", &json!({ "role": "viewer" })).await.accepted();
    let report: AccessReport = admin.get("/api/v1/reports/access").await.accepted().json();
    let of = |who: &str, host: Option<&str>| {
        report.may.iter().find(|row| row.who == who && row.host.as_deref() == host)
    };
    // The whole of it against what each pair is really answered.
    for (who, host) in
        [("dora", "s1"), ("dora", "p1"), ("administrator", "p2"), ("idle", "s1"), ("service/robot", "p1")]
    {
        for permission in [Permission::AgentRead, Permission::ExecutionCreate, Permission::AgentManage] {
            let path = format!("/api/v1/auth/can-i?permission={permission}&host={host}&as={who}");
            let verdict = admin.get(&path).await.accepted().value();
            let rows = [of(who, Some(host)), of(who, None)];
            let reported = rows.into_iter().flatten().any(|row| row.permissions.contains(&permission));
            assert_eq!(verdict["allowed"], reported, "{who} {permission} {host}: {verdict}");
        }
    }
    assert_eq!(of("dora", Some("s1")).expect("a row").by, ["operator (group deployers)"]);
    assert_eq!(of("dora", Some("p1")).expect("a row").by, ["viewer"]);
    // What jobs and schedules there are she sees whole: that is about no host. What a schedule starts is.
    let about_jobs = [Permission::JobRead, Permission::ScheduleRead, Permission::ScheduleManage];
    assert_eq!(of("dora", None).expect("a row").permissions, about_jobs);
    assert!(of("idle", Some("s1")).is_none());
    // Who may it everywhere has no row for each host.
    assert!(of("administrator", Some("p1")).is_none());
    assert!(
        report.ways.iter().any(|way| way.kind == "api_token" && way.who.as_deref() == Some("administrator"))
    );
    assert!(
        report.ways.iter().any(|way| way.kind == "invitation" && way.gives == "viewer"),
        "{:?}",
        report.ways
    );
    assert!(of("service/robot", None).expect("a row").permissions.contains(&Permission::AuditRead));
    let did: Vec<(&str, &str)> = report.did.iter().map(|row| (row.who.as_str(), row.host.as_str())).collect();
    assert_eq!(did, [("dora", "s1"), ("administrator", "p1")]);

    let one: AccessReport = admin.get("/api/v1/reports/access?who=dora&host=s1").await.accepted().json();
    assert_eq!((one.may.len(), one.did.len()), (1, 1));
    for (query, noun) in [("who=nobody", "user"), ("host=nowhere", "agent")] {
        let problem = admin.get(&format!("/api/v1/reports/access?{query}")).await.refused(404, "not_found");
        assert!(problem.detail.contains(noun), "{problem:?}");
    }
    admin.get("/api/v1/reports/access?who=Dora").await.accepted();
    admin.get("/api/v1/reports/access?since=2020-01-01T00:00:00Z").await.refused(400, "invalid");
    let before = "/api/v1/reports/access?since=2020-01-01T00:00:00Z&until=2020-02-01T00:00:00Z";
    let before: AccessReport = admin.get(before).await.accepted().json();
    assert!(before.did.is_empty() && !before.may.is_empty());

    let csv = world.opsctl(&["report", "access", "--user", "dora", "-o", "csv"]).await.ended(0).text();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "kind,who,host,what,by,at,execution,state");
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("may,dora,s1,") && line.contains("operator (group deployers)")),
        "{csv}"
    );
    assert!(lines.iter().any(|line| line.starts_with("did,dora,s1,'=true,,20")), "{csv}");
    world.opsctl(&["report", "access"]).await.ended(0);
    dora.get("/api/v1/reports/access").await.refused(403, "forbidden");
    drop(watch);
}
