//! What somebody does who wants the audit to stop, to fill up, or to believe him: the chain goes on all the same.

use jiff::{SignedDuration, Timestamp};
use model::{
    api::audit::ExportRecord,
    id::{ControllerId, OrgId},
};
use opsconductor_tests::{SOON, World, clock, eventually, player::Player};
use pki::{
    Authority, AuthorityPem, DispatchKey, Signer,
    audit::{Checkpoint, Place},
};
use proto::agent_frame::Frame;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use uuid::Uuid;

use super::{act, export, findings, records};

async fn organization(sql: &mut PgConnection) -> OrgId {
    let id: Uuid = sqlx::query_scalar("select id from organizations").fetch_one(sql).await.expect("one");
    id.into()
}

async fn number(sql: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(sql).await.unwrap_or_else(|error| panic!("{query}: {error}"))
}

/// Signs a checkpoint with a key of the World's own authority whose certificate is valid so, and keeps it.
async fn sign_as(
    world: &World,
    sql: &mut PgConnection,
    place: Place,
    at: Timestamp,
    (from, to): (Timestamp, Timestamp),
) {
    let read = |name: &str| std::fs::read_to_string(world.data().join("ca").join(name)).expect("it is there");
    let authority = Authority::from_pem(&AuthorityPem {
        trust_domain: read("trust-domain").trim().to_owned(),
        root_cert: read("root.pem"),
        agents_cert: read("agents.pem"),
        controllers_cert: read("controllers.pem"),
        agents_key: read("agents.key").into(),
        controllers_key: read("controllers.key").into(),
    })
    .expect("it is an authority");
    let key = DispatchKey::generate();
    let certificate = authority.issue_dispatch(ControllerId(Uuid::now_v7()), &key, from, to).expect("it may");
    let signer = Signer::new(key, certificate);
    let organization = organization(sql).await;
    let signed = Checkpoint { organization, place, at, previous: None }.sign(&signer);
    sqlx::query("insert into audit_checkpoints values ($1, $2, $3, $4::text::timestamptz, $5, $6, $7)")
        .bind(organization.0)
        .bind(place.seq)
        .bind(&place.hash[..])
        .bind(at.to_string())
        .bind(signed.payload.as_bytes())
        .bind(hex::decode(&signed.signature).expect("it is hexadecimal"))
        .bind(signer.certificate())
        .execute(sql)
        .await
        .expect("the owner may");
}

/// The end of the chain.
async fn head(sql: &mut PgConnection) -> Place {
    let (seq, hash): (i64, Vec<u8>) =
        sqlx::query_as("select seq, hash from audit_chain order by seq desc limit 1")
            .fetch_one(sql)
            .await
            .expect("there is one");
    Place { seq, hash: hash.try_into().expect("32 bytes") }
}

async fn all_chained(sql: &mut PgConnection, count: i64) {
    eventually(SOON, "all entries are chained", async || {
        (number(sql, "select count(*) from audit_chain").await == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_alarms_is_one_entry() {
    let world = World::builder().with_an_empty_audit().impatient_but_for_absence().start().await;
    let player = Player::enroll(&world, "one").await;
    let playing = player.play(&[]).await;
    let mut sql = world.sql().await;
    for kind in ["", "gap", "gap", "another", ""].into_iter().cycle().take(500) {
        let alarm = proto::Alarm {
            id: Uuid::now_v7().as_bytes().to_vec(),
            what: "it went back".to_owned(),
            kind: kind.to_owned(),
            ..proto::Alarm::default()
        };
        playing.tell(Frame::Alarm(alarm)).await;
    }
    let metrics = eventually(SOON, "all of them were taken", async || {
        let metrics = world.api().get("/metrics").await.accepted().text();
        metrics.contains("opsc_audit_alarms_repeated_total 498").then_some(metrics)
    })
    .await;
    assert!(metrics.contains("opsc_audit_alarms_total{kind=\"gap\"} 1"), "{metrics}");
    for verb in ["audit.rollback_seen", "audit.gap_seen"] {
        let list = world.api().get(&format!("/api/v1/audit?verb={verb}")).await.accepted().value();
        assert_eq!(list["items"].as_array().expect("a list").len(), 1, "{list}");
    }
    assert_eq!(number(&mut sql, "select count(*) from audit_alarms").await, 2);
}

#[tokio::test]
async fn entries_that_cannot_be_chained_stop_no_other() {
    let world = World::builder().with_an_empty_audit().start().await;
    act(&world, 1).await;
    let mut sql = world.sql().await;
    all_chained(&mut sql, 1).await;
    // More of them than one transaction takes, and before all others.
    let forged = "with new as (
             insert into audit_entries (id, org_id, at, actor, verb, object, outcome, request_id, detail)
             select gen_random_uuid(), o.id, date_trunc('second', now()) - interval '1 second' * (n % 50 + 1), 'a', 'v', 'o/1',
                    'done', '', '{\"n\": 1.5}'
             from organizations o, generate_series(1, 1001) n
             returning org_id, at, id
         )
         insert into audit_queue select org_id, at, id from new";
    sql.execute(sqlx::raw_sql(AssertSqlSafe(forged.to_owned()))).await.expect("the owner may");
    act(&world, 3).await;
    all_chained(&mut sql, 4).await;
    assert_eq!(findings(&world, &export(&world, &[]).await).await, [""; 0]);
    let told = world.controller_log().matches("an entry of the audit cannot be chained").count();
    assert_eq!(told, 1001, "each of them once");
}

#[tokio::test]
async fn a_checkpoint_of_a_clock_that_ran_ahead_stops_no_other() {
    let world = World::builder().with_an_empty_audit().start().await;
    act(&world, 2).await;
    let mut sql = world.sql().await;
    all_chained(&mut sql, 2).await;
    sql.execute("delete from audit_checkpoints").await.expect("the owner may");
    let (place, hour) = (head(&mut sql).await, SignedDuration::from_hours(1));
    let ahead = Timestamp::from_second(clock::now().as_second()).expect("a time") + hour;
    sign_as(&world, &mut sql, place, ahead, (clock::now() - hour, ahead + hour)).await;
    act(&world, 1).await;
    eventually(SOON, "the next one is signed", async || {
        (number(&mut sql, "select max(seq) from audit_checkpoints").await == 3).then_some(())
    })
    .await;
    // That the clock was wrong shows for ever.
    let found = findings(&world, &export(&world, &[]).await).await;
    assert!(
        found.len() == 1 && found[0].starts_with("bad checkpoint: that of entry 3: it was signed at"),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_key_that_is_out_of_use_vouches_for_nothing_new() {
    let world = World::builder().with_an_empty_audit().start().await;
    act(&world, 3).await;
    export(&world, &[]).await;
    let mut sql = world.sql().await;
    let hour = SignedDuration::from_hours(1);
    let old = clock::now() - hour * 48;
    // Its certificate ended a day ago, and it dates what it signs into its life.
    let forged = Place { seq: 50, hash: [7; 32] };
    sign_as(&world, &mut sql, forged, old, (old - hour, old + hour * 24)).await;
    eventually(SOON, "the controller notices it", async || {
        let status = world.api().get("/status").await.accepted().value();
        let parts = status["parts"].as_array()?;
        let part = parts.iter().find(|part| part["name"] == "sequence")?;
        part["message"].as_str()?.contains("is out of use").then_some(())
    })
    .await;
    // The chain goes on behind what counts.
    act(&world, 2).await;
    all_chained(&mut sql, 5).await;
    assert_eq!(head(&mut sql).await.seq, 5);
    let exported = records(&export(&world, &[]).await);
    let signed: Vec<i64> = exported
        .into_iter()
        .filter_map(|record| match record {
            ExportRecord::Checkpoint(checkpoint) => Some(checkpoint.seq),
            _ => None,
        })
        .collect();
    assert!(signed.contains(&5), "{signed:?}");
}

#[tokio::test]
async fn where_nothing_happens_the_newest_checkpoint_is_of_a_key_in_use() {
    let world = World::builder().with_an_empty_audit().dispatch_key_life("8s").start().await;
    act(&world, 1).await;
    eventually(SOON, "a controller writes an entry", async || {
        let list = world.api().get("/api/v1/audit?verb=audit.idle").await.accepted().value();
        (list["items"].as_array()?.len() >= 2).then_some(())
    })
    .await;
    assert_eq!(findings(&world, &export(&world, &[]).await).await, [""; 0]);
    let status = world.api().get("/status").await.accepted().text();
    assert!(!status.contains("was tampered with"), "{status}");
}

#[tokio::test]
async fn only_so_many_exports_run_at_a_time() {
    let world = World::builder().with_an_empty_audit().start().await;
    act(&world, 1).await;
    let mut sql = world.sql().await;
    // Somebody holds the chain, so that exports wait.
    sql.execute(
        "select pg_advisory_lock(hashtextextended('opsconductor.audit.' || id, 0)) from organizations",
    )
    .await
    .expect("the owner may");
    let api = world.api();
    let mut exports: Vec<_> = (0..3)
        .map(|_| {
            let api = api.clone();
            tokio::spawn(async move { api.get("/api/v1/audit/export").await })
        })
        .collect();
    let refused = eventually(SOON, "one of them is refused", async || {
        exports.iter().position(tokio::task::JoinHandle::is_finished)
    })
    .await;
    exports.swap_remove(refused).await.expect("it does not panic").refused(429, "too_many_streams");
    sql.execute("select pg_advisory_unlock_all()").await.expect("the owner may");
    for export in exports {
        export.await.expect("it does not panic").accepted();
    }
    api.get("/api/v1/audit/export").await.accepted();
}
