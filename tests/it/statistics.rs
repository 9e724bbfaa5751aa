//! Statistics: who is there, what was started and how it went, and the same as metrics.

use jiff::SignedDuration;
use model::api::statistics::{People, Statistics};
use opsconductor_tests::{
    Api, World, clock,
    people::password_of,
    world::{ADMINISTRATOR, PASSWORD},
};
use serde_json::json;

use crate::access::api_token;

#[tokio::test]
async fn figures_are_those_of_what_was_done() {
    let world = World::start().await;
    let api = world.api();
    let _one = world.agent("one").start().await;
    let mut two = world.agent("two").start().await;
    two.stop();
    two.is("offline").await;
    for line in ["true", "true", "sleep 1", "exit 1"] {
        api.shell("one", line).await;
    }
    let waiting = api.start_shell("two", "true").await;

    let statistics: Statistics = api.get("/api/v1/statistics").await.accepted().json();
    assert_eq!((statistics.hosts["online"], statistics.hosts["offline"]), (1, 1), "{statistics:?}");
    let total = &statistics.total;
    assert_eq!((total.executions["succeeded"], total.executions["failed"]), (3, 1), "{total:?}");
    assert_eq!(total.executions["pending"], 1, "{total:?}");
    assert_eq!(
        (total.runs["succeeded"], total.runs["failed"], total.runs["waiting"]),
        (3, 1, 1),
        "{total:?}"
    );
    assert_eq!(total.success_rate, Some(0.75));
    let (p50, p95) =
        (total.duration_p50_seconds.expect("runs ended"), total.duration_p95_seconds.expect("runs ended"));
    assert!(p50 < 1.0 && p95 > p50 && p95 < 60.0, "{p50} {p95}");
    assert!((24..=25).contains(&statistics.buckets.len()), "{}", statistics.buckets.len());
    let in_buckets: i64 =
        statistics.buckets.iter().flat_map(|bucket| bucket.figures.executions.values()).sum();
    assert_eq!(in_buckets, 5);
    let days: Statistics = api.get("/api/v1/statistics?bucket=day").await.accepted().json();
    assert_eq!(
        (days.total.clone(), days.buckets.last().map(|day| day.figures.clone())),
        (total.clone(), Some(total.clone()))
    );
    let before = format!("/api/v1/statistics?until={}", waiting.created_at - SignedDuration::from_hours(1));
    let nothing: Statistics = api.get(&before).await.accepted().json();
    assert_eq!((nothing.total.executions.len(), nothing.total.success_rate), (0, None));

    let metrics = api.get("/metrics").await.accepted().text();
    for line in [
        "opsc_hosts{state=\"online\"} 1",
        "opsc_hosts{state=\"offline\"} 1",
        "opsc_executions_last_hour{state=\"succeeded\"} 3",
        "opsc_executions_last_hour{state=\"failed\"} 1",
        "opsc_execution_success_ratio_last_hour 0.75",
        "opsc_run_seconds_last_hour{quantile=\"0.95\"} ",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let table = world.opsctl(&["statistics"]).await.ended(0).text();
    assert!(table.contains("1 online") && table.contains("in all") && table.contains("75.0 %"), "{table}");
    let shown =
        world.opsctl(&["statistics", "--bucket", "day", "--since", "2d", "-o", "json"]).await.ended(0).json();
    assert_eq!(shown["bucket"], "day");
    world.opsctl(&["statistics", "--bucket", "week"]).await.ended(2);
}

async fn people(api: &Api, query: &str) -> People {
    api.get(&format!("/api/v1/statistics{query}")).await.accepted().json::<Statistics>().people
}

#[tokio::test]
async fn people_are_counted_where_they_are_members() {
    let world = World::start().await;
    let administrator = world.administrator().await;
    let ada = world.person("ada", Some("operator")).await;
    world.person("bob", Some("viewer")).await;
    // One who has never entered.
    let invitation = administrator.post("/api/v1/invitations", &json!({})).await.accepted().value();
    let accept = json!({ "token": invitation["token"], "user": "carol", "password": password_of("carol") });
    world.stranger().post("/api/v1/auth/accept-invitation", &accept).await.accepted();
    administrator.post("/api/v1/service-accounts", &json!({ "name": "builder" })).await.accepted();
    administrator.act("/api/v1/users/bob/disable").await.accepted();
    let mut database = world.sql().await;
    sqlx::query("update users set totp_confirmed_at = now() where name = 'ada'")
        .execute(&mut database)
        .await
        .expect("the column is there");
    // Another organization, with people of its own and one of here.
    administrator.post("/api/v1/organizations", &json!({ "name": "other" })).await.accepted();
    let there = world.session(&world.log_in(ADMINISTRATOR, PASSWORD, Some("other")).await);
    world.person_of(&there, "dora", None, Some("other")).await;

    let here = People { total: 4, disabled: 1, with_second_factor: 1, active: 3, service_accounts: 1 };
    assert_eq!(people(&administrator, "").await, here);
    let other = People { total: 2, disabled: 0, with_second_factor: 0, active: 2, service_accounts: 0 };
    assert_eq!(people(&there, "").await, other);
    // Who was active is told from `since` on.
    let later = clock::now() + SignedDuration::from_hours(1);
    let until = later + SignedDuration::from_hours(1);
    let nobody = People { active: 0, ..here };
    assert_eq!(people(&administrator, &format!("?since={later}&until={until}")).await, nobody);
    // A token's use counts as its owner's.
    let token = ada.post("/api/v1/tokens", &json!({ "name": "script" })).await.accepted().value();
    sqlx::query("update login_sessions set last_used_at = now() - interval '2 days'")
        .execute(&mut database)
        .await
        .expect("the column is there");
    sqlx::query("update api_tokens set last_used_at = null").execute(&mut database).await.expect("so it is");
    let reader = world.api_as(&api_token(&world, "statistician", &["statistics.read"], "").await);
    let before = people(&reader, "").await;
    world.api_as(token["token"].as_str().expect("a token")).get("/api/v1/whoami").await.accepted();
    assert_eq!(people(&reader, "").await, People { active: before.active + 1, ..before });

    let metrics = world.api().get("/metrics").await.accepted().text();
    for line in [
        "opsc_members{organization=\"main\",state=\"enabled\"} 3",
        "opsc_members{organization=\"main\",state=\"disabled\"} 1",
        "opsc_members{organization=\"other\",state=\"enabled\"} 2",
        "opsc_members_with_second_factor{organization=\"main\"} 1",
        "opsc_members_active_last_hour{organization=\"other\"} 0",
        "opsc_service_accounts{organization=\"other\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let table = world.opsctl(&["statistics"]).await.ended(0).text();
    assert!(table.contains("people: 4 members (") && table.contains("1 disabled"), "{table}");
}

#[tokio::test]
async fn what_is_asked_for_is_bounded() {
    let world = World::start().await;
    let api = world.api();
    for (query, field) in [
        ("bucket=week", "bucket"),
        ("since=2026-01-01T00:00:00Z&until=2025-12-31T00:00:00Z", "since"),
        ("since=2020-01-01T00:00:00Z", "since"),
        ("since=2026-01-01T00:00:00Z&until=2026-06-01T00:00:00Z&bucket=hour", "since"),
        ("until=-009999-01-02T01:59:59Z", "until"),
        ("host=x", "host"),
    ] {
        let problem = api.get(&format!("/api/v1/statistics?{query}")).await.refused(400, "invalid");
        assert_eq!(problem.field.as_deref(), Some(field), "{query}: {problem:?}");
    }
    let whole = "since=2026-01-01T00:00:00Z&until=2026-06-01T00:00:00Z&bucket=day";
    api.get(&format!("/api/v1/statistics?{whole}")).await.accepted();
    let reader = world.api_as(&api_token(&world, "statistician", &["statistics.read"], "").await);
    reader.get("/api/v1/statistics").await.accepted();
    let other = world.api_as(&api_token(&world, "other", &["agent.read"], "").await);
    let problem = other.get("/api/v1/statistics").await.refused(403, "forbidden");
    assert!(problem.detail.contains("statistics.read"), "{problem:?}");
}
