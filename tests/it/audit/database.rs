//! What the database does for the audit: rights, what was there before the chain, and two controllers.

use std::collections::BTreeMap;

use model::{
    api::audit::ExportRecord,
    audit::AuditEntry,
    id::{AgentId, OrgId},
};
use opsconductor_tests::{SOON, World, eventually, postgres};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};
use uuid::Uuid;

use super::{act, export, findings, numbers, records};

async fn run(sql: &mut PgConnection, statement: String) -> Result<u64, sqlx::Error> {
    sql.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await.map(|done| done.rows_affected())
}

#[tokio::test]
async fn no_role_of_the_controller_can_change_what_is_written() {
    let world = World::builder().with_an_empty_audit().start().await;
    act(&world, 3).await;
    export(&world, &[]).await;
    let mut sql = world.sql().await;
    let org: Uuid =
        sqlx::query_scalar("select id from organizations").fetch_one(&mut sql).await.expect("there is one");
    let partitions: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class where relkind in ('r', 'p')
         and relname ~ '^audit_(entries|chain|checkpoints)' order by 1",
    )
    .fetch_all(&mut sql)
    .await
    .expect("the catalogue can be read");
    assert!(partitions.len() > 6, "{partitions:?}");
    for role in ["opsc_app", "opsc_worker"] {
        for table in &partitions {
            for statement in [
                format!("update {table} set at = at"),
                format!("delete from {table}"),
                format!("truncate {table}"),
                format!("drop table {table}"),
                format!("alter table {table} disable row level security"),
            ] {
                let tried =
                    format!("set role {role}; select set_config('opsc.org', '{org}', false); {statement}");
                let refused = run(&mut sql, tried).await.expect_err(&statement);
                let code =
                    refused.as_database_error().and_then(|error| error.code().map(|code| code.to_string()));
                assert_eq!(code.as_deref(), Some("42501"), "{role}: {statement}: {refused}");
                run(&mut sql, "reset role".to_owned()).await.expect("it may be the owner again");
            }
        }
    }
    // An organization's people see nothing of another's.
    let other = Uuid::now_v7();
    let tried = format!("set role opsc_app; select set_config('opsc.org', '{other}', false)");
    run(&mut sql, tried).await.expect("it may");
    for table in ["audit_entries", "audit_chain", "audit_checkpoints"] {
        let seen: i64 = sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {table}")))
            .fetch_one(&mut sql)
            .await
            .expect("it may be read");
        assert_eq!(seen, 0, "{table}");
    }
    assert_eq!(findings(&world, &export(&world, &[]).await).await, [""; 0]);
}

#[tokio::test]
async fn entries_from_before_the_chain_are_queued() {
    let url = postgres::empty_database();
    let mut sql = PgConnection::connect(&url).await.expect("the database answers");
    let before = [
        include_str!("../../../controller/migrations/0001_foundation.sql"),
        include_str!("../../../controller/migrations/0002_usage.sql"),
        include_str!("../../../controller/migrations/0003_queue_expiry.sql"),
        include_str!("../../../controller/migrations/0004_people.sql"),
    ];
    for migration in before {
        run(&mut sql, format!("begin; {migration}; commit")).await.expect("it migrates");
    }
    let entries = "select ensure_partitions(now(), 2);
         insert into audit_entries (id, org_id, at, actor, verb, object, outcome, request_id)
         select gen_random_uuid(), gen_random_uuid(), now() + n * interval '1 hour', 'a', 'v', 'o/1', 'done', ''
         from generate_series(1, 200) n";
    run(&mut sql, entries.to_owned()).await.expect("they are written");
    let chain = include_str!("../../../controller/migrations/0005_audit_chain.sql");
    run(&mut sql, format!("begin; {chain}; commit")).await.expect("it migrates");
    let row = sqlx::query(
        "select (select count(*) from audit_queue q join audit_entries e on e.id = q.entry_id and e.at = q.at
                                                                        and e.org_id = q.org_id) as queued,
                (select count(*) from pg_inherits where inhparent = 'audit_entries'::regclass) as entries,
                (select count(*) from pg_inherits where inhparent = 'audit_chain'::regclass) as chain",
    )
    .fetch_one(&mut sql)
    .await
    .expect("it can be read");
    let count = |column| row.get::<i64, _>(column);
    assert_eq!((count("queued"), count("entries")), (200, count("chain")));
    run(&mut sql, "select ensure_partitions(now() + interval '5 weeks', 2)".to_owned())
        .await
        .expect("it makes more");
}

/// Details that a careless form would write in two ways.
fn details() -> Vec<Value> {
    let deep = (0..60).fold(json!(1), |inner, number| json!({ number.to_string(): [inner] }));
    vec![
        json!({}),
        json!([]),
        json!(null),
        json!(""),
        json!({ "": "" }),
        json!({ "b": 1, "a": 2, "B": 3, "aa": 4, "ä": 5, "\u{1F600}": 6, "\u{FFFF}": 7 }),
        json!([u64::MAX, i64::MIN, i64::MAX, 0, -1]),
        json!("\u{1}\u{7f}\u{2028}\"\\/\t\r\n ünï\u{0301} \u{1F469}\u{200D}\u{1F469}"),
        json!({ "before": { "labels": { "z": "1", "a": "2" } }, "after": null, "list": [[], {}, [null]] }),
        deep,
    ]
}

#[tokio::test]
async fn what_went_through_the_database_gives_the_same_bytes() {
    let world = World::builder().with_an_empty_audit().start().await;
    let mut sql = world.sql().await;
    let org: Uuid =
        sqlx::query_scalar("select id from organizations").fetch_one(&mut sql).await.expect("there is one");
    let mut written = BTreeMap::new();
    for (index, detail) in details().into_iter().enumerate() {
        let micros = jiff::Timestamp::now().as_microsecond() + i64::try_from(index).expect("it is small");
        let entry = AuditEntry {
            id: Uuid::now_v7(),
            org_id: OrgId(org),
            at: jiff::Timestamp::from_microsecond(micros).expect("it is now"),
            actor: "süß\n".to_owned(),
            actor_id: String::new(),
            verb: "test.write".to_owned(),
            object: format!("test/{}", AgentId(Uuid::now_v7())),
            outcome: "done".to_owned(),
            request_id: String::new(),
            source: "::ffff:1".to_owned(),
            detail,
        };
        sqlx::query(
            "with entry as (
                 insert into audit_entries (id, org_id, at, actor, actor_id, verb, object, outcome, request_id, source, detail)
                 values ($1, $2, $3::timestamptz, $4, '', 'test.write', $5, 'done', '', $6, $7)
             )
             insert into audit_queue (org_id, at, entry_id) values ($2, $3::timestamptz, $1)",
        )
        .bind(entry.id)
        .bind(org)
        .bind(jiff_sqlx::ToSqlx::to_sqlx(entry.at))
        .bind(&entry.actor)
        .bind(&entry.object)
        .bind(&entry.source)
        .bind(&entry.detail)
        .execute(&mut sql)
        .await
        .expect("it is written");
        written.insert(entry.id, entry);
    }
    let exported = export(&world, &[]).await;
    assert_eq!(findings(&world, &exported).await, [""; 0]);
    let mut seen = 0;
    for record in records(&exported) {
        if let ExportRecord::Entry(entry) = record {
            let entry = entry.entry.expect("it is there");
            let original = &written[&entry.id];
            assert_eq!(&entry, original);
            assert_eq!(entry.encode().expect("it has bytes"), original.encode().expect("it has bytes"));
            seen += 1;
        }
    }
    assert_eq!(seen, written.len());
}

/// Numbers, entries with one, all entries, and what waits.
async fn counts(world: &World) -> [i64; 4] {
    let mut sql = world.sql().await;
    let row = sqlx::query(
        "select coalesce(max(seq), 0) as max, count(distinct seq) as seqs,
                (select count(*) from audit_entries) as entries, (select count(*) from audit_queue) as waiting
         from audit_chain",
    )
    .fetch_one(&mut sql)
    .await
    .expect("it can be read");
    ["max", "seqs", "entries", "waiting"].map(|column| row.get(column))
}

#[tokio::test]
async fn two_controllers_never_fork_the_chain_and_a_killed_one_leaves_it_whole() {
    let first = World::builder().with_an_empty_audit().impatient_but_for_absence().start().await;
    let second = first.second_controller().await;
    let write = async |world: &World, count: usize| {
        let mut done = 0;
        while done < count {
            let request =
                world.api().request(reqwest::Method::POST, "/api/v1/enroll-tokens").json(&json!({}));
            match world.api().try_send(request).await {
                Some(answer) if answer.status == 201 => done += 1,
                // It is dead for the moment.
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let kill = async {
        for limit in [60, 120, 180, 240] {
            eventually(SOON, "entries were written", async || {
                (counts(&first).await[2] > limit).then_some(())
            })
            .await;
            first.kill_controller();
            first.start_controller().await;
        }
    };
    // Exports sign and chain too, at the same time.
    let exports = async {
        for _ in 0..10 {
            let exported = export(&second, &[]).await;
            assert_eq!(findings(&second, &exported).await, [""; 0]);
        }
    };
    tokio::join!(write(&first, 150), write(&second, 150), write(&second, 100), kill, exports);
    let [_, _, entries, _] = counts(&first).await;
    eventually(SOON, "all are chained", async || (counts(&first).await[3] == 0).then_some(())).await;
    assert_eq!(counts(&first).await, [entries, entries, entries, 0]);
    let exported = export(&first, &[]).await;
    assert_eq!(numbers(&exported), (1..=entries).collect::<Vec<_>>());
    assert_eq!(findings(&first, &exported).await, [""; 0]);
    for world in [&first, &second] {
        let status = world.api().get("/status").await.accepted().value();
        assert_eq!(status["state"], "ok", "{status}");
    }
}
