//! A schedule acts as who saved it last, with the rights of that one when it fires.

use model::api::schedule::{Cause, OccurrenceState, ScheduleState};
use serde_json::json;

use super::{QUICK, create, decided, save_job, show, world_of_one};

#[tokio::test]
async fn who_lost_the_right_starts_nothing_any_more() {
    let (world, _agent) = world_of_one().await;
    let admin = world.api();
    save_job(&admin, QUICK).await;
    let olga = world.person("olga", Some("operator")).await;
    create(&olga, "hers", "quick", json!({ "every": "1s" }), json!({ "overlap": "allow" })).await;
    let all = decided(&admin, "hers", OccurrenceState::Fired, 1).await;
    let id = all[0].execution_id.expect("an execution");
    assert_eq!(admin.finished(id).await.execution.actor, "olga");

    let bindings = admin.get("/api/v1/role-bindings").await.accepted().value();
    let items = bindings["items"].as_array().expect("a list");
    let hers = items.iter().find(|binding| binding["user"] == "olga").expect("a binding");
    let path = format!("/api/v1/role-bindings/{}", hers["id"].as_str().expect("an id"));
    admin.delete(&path).await.accepted();
    let all = decided(&admin, "hers", OccurrenceState::Skipped, 1).await;
    let last = all.iter().find(|one| one.state == OccurrenceState::Skipped).expect("one");
    assert_eq!(last.cause, Some(Cause::NotAllowed), "{last:?}");
    assert!(last.detail.as_deref().is_some_and(|why| why.contains("olga")), "{last:?}");
}

#[tokio::test]
async fn what_nobody_saved_like_this_starts_nothing() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, QUICK).await;
    create(&api, "mine", "quick", json!({ "every": "1s" }), json!({ "overlap": "allow" })).await;
    decided(&api, "mine", OccurrenceState::Fired, 1).await;
    let mut sql = world.sql().await;
    sqlx::query(
        "update schedules set document = replace(document, '\"every\"', '\"every\" ') where name = 'mine'",
    )
    .execute(&mut sql)
    .await
    .expect("the owner may");
    let all = decided(&api, "mine", OccurrenceState::Skipped, 1).await;
    let last = all.last().expect("one");
    assert_eq!(last.cause, Some(Cause::Tampered), "{last:?}");
    let halted = show(&api, "mine").await;
    assert_eq!((halted.state, halted.next), (ScheduleState::Paused, None));
    let audit = api.get("/api/v1/audit?verb=schedule.pause").await.accepted().value();
    assert_eq!(audit["items"][0]["entry"]["outcome"], "alarm", "{audit}");
    let refused = api.act("/api/v1/schedules/mine/resume").await.refused(409, "conflict");
    assert!(refused.detail.contains("save it anew"), "{refused:?}");
}

#[tokio::test]
async fn a_token_with_some_rights_saves_none() {
    let (world, _agent) = world_of_one().await;
    let admin = world.administrator().await;
    save_job(&admin, QUICK).await;
    let permissions = ["schedule.manage", "schedule.read", "job.read", "execution.create", "agent.read"];
    let token = admin
        .post("/api/v1/tokens", &json!({ "name": "part", "permissions": permissions, "hosts": "env=prod" }))
        .await
        .accepted()
        .value();
    let part = world.api_as(token["token"].as_str().expect("a token"));
    let body = super::document("sly", "quick", json!({ "every": "1h" }), json!({}));
    let refused = part.post("/api/v1/schedules", &body).await.refused(403, "forbidden");
    assert!(refused.detail.contains("a part of its owner's rights"), "{refused:?}");
}

#[tokio::test]
async fn what_it_starts_is_what_its_author_named() {
    let (world, _agent) = world_of_one().await;
    let api = world.api();
    save_job(&api, QUICK).await;
    save_job(&api, &QUICK.replace("name: quick", "name: other")).await;
    create(&api, "mine", "quick", json!({ "every": "1s" }), json!({ "overlap": "allow" })).await;
    decided(&api, "mine", OccurrenceState::Fired, 1).await;
    let mut sql = world.sql().await;
    sqlx::query("update schedules set job_id = (select id from jobs where name = 'other')")
        .execute(&mut sql)
        .await
        .expect("the owner may");
    let all = decided(&api, "mine", OccurrenceState::Skipped, 1).await;
    let last = all.iter().find(|one| one.state == OccurrenceState::Skipped).expect("one");
    assert_eq!(last.cause, Some(Cause::Tampered), "{last:?}");
}
