//! Output: what the process wrote is what the store holds, byte for byte, however it is read.

use std::collections::{BTreeMap, HashMap};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::StreamExt;
use model::api::output::{Data, OutputEnd, OutputPiece, Stream};
use opsconductor_tests::{SOON, Stage, World, api::bytes, eventually, stage::Visit};
use reqwest::Method;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::Connection;
use tokio::sync::OnceCell;

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Visit {
    Stage::shared(&STAGE, &[("one", &[]), ("two", &[]), ("three", &[])]).await
}

/// Bytes that look random but are the same everywhere.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    })
    .take(count)
    .collect()
}

/// Lets `one` write these bytes, and checks them wherever they can be read.
async fn arrives(stage: &Stage, stdout: &[u8], stderr: &[u8]) {
    let (world, api) = (&stage.world, stage.world.api());
    let folder = opsconductor_tests::scene::new_folder("bytes");
    let [out, err] = [("out", stdout), ("err", stderr)].map(|(name, bytes)| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).expect("the folder can be written");
        path.display().to_string()
    });
    let execution = api.start_shell("one", &format!("cat '{out}'; cat '{err}' >&2")).await;
    let finished = api.whole(execution.id).await;
    let run = finished.run();
    for (stream, want, told) in
        [(Stream::Stdout, stdout, &run.output.stdout), (Stream::Stderr, stderr, &run.output.stderr)]
    {
        assert!(api.output(execution.id, "one", stream).await == want, "{stream:?} differs");
        let count = i64::try_from(want.len()).expect("it fits");
        assert_eq!((told.stored_bytes, told.written_bytes, told.gap_bytes), (count, Some(count), 0));
        assert_eq!(told.sha256.as_deref(), Some(hex::encode(Sha256::digest(want)).as_str()));
    }
    let id = execution.id.to_string();
    let raw = world.opsctl(&["logs", &id, "--raw", "--stream", "stdout"]).await.ended(0);
    assert!(raw.stdout == stdout, "raw output differs");
    let raw = world.opsctl(&["logs", &id, "--raw", "-t", "one", "--stream", "stderr"]).await.ended(0);
    assert!(raw.stdout == stderr, "raw output differs");
}

#[tokio::test]
async fn any_bytes_arrive_as_they_were_written() {
    let stage = stage().await;
    arrives(&stage, &noise(300_000), b"").await;
    arrives(&stage, b"no newline at the end", b"here neither").await;
    arrives(&stage, b"\0nul\0\n\0", b"\xff\xfe invalid \xc3( UTF-8 \xed\xa0\x80\n").await;
    arrives(&stage, b"", b"").await;
}

#[tokio::test]
async fn a_line_of_a_mebibyte_arrives() {
    let stage = stage().await;
    let mut line = vec![b'x'; 1024 * 1024];
    line.push(b'\n');
    arrives(&stage, &line, &line[1..]).await;
}

#[tokio::test]
async fn a_character_that_is_cut_between_pieces_arrives() {
    let stage = stage().await;
    let api = stage.world.api();
    let finished = api.shell("one", r"printf '\303'; sleep 0.2; printf '\251'").await;
    assert_eq!(api.stdout(&finished).await, "é");
}

#[tokio::test]
async fn both_streams_are_whole_when_they_alternate() {
    let stage = stage().await;
    let api = stage.world.api();
    let finished = api.shell("one", "for i in $(seq 2000); do echo o$i; echo e$i >&2; done").await;
    let finished = api.whole(finished.id()).await;
    for (stream, letter) in [(Stream::Stdout, 'o'), (Stream::Stderr, 'e')] {
        let want: String = (1..=2000).map(|i| format!("{letter}{i}\n")).collect();
        assert_eq!(
            String::from_utf8(api.output(finished.id(), "one", stream).await).as_deref(),
            Ok(want.as_str())
        );
    }
}

#[tokio::test]
async fn small_pages_make_the_same_whole() {
    let stage = stage().await;
    let api = stage.world.api();
    let line = "for i in $(seq 300); do echo $i $(hostname); [ $((i % 100)) = 0 ] && sleep 0.1; done; true";
    let execution = api.start(json!({ "all": true }), json!({ "program": { "shell": line } })).await;
    api.whole(execution.id).await;
    let whole = api.pieces(execution.id, "", 1000).await;
    assert!(whole.len() > 6, "{} pieces", whole.len());
    for limit in [1, 2, 7] {
        assert_eq!(api.pieces(execution.id, "", limit).await, whole);
    }
    assert!(whole.windows(2).all(|pair| pair[0].position < pair[1].position));
    let of_two: Vec<_> = whole.iter().filter(|piece| piece.target == "two").cloned().collect();
    assert_eq!(api.pieces(execution.id, "&target=two", 3).await, of_two);
    assert_eq!(bytes(&of_two).split(|byte| *byte == b'\n').count(), 301);
    assert_eq!(api.pieces(execution.id, "&stream=stderr", 3).await, []);
}

#[tokio::test]
async fn plain_text_is_the_lines() {
    let stage = stage().await;
    let api = stage.world.api();
    let finished = api.shell("one", "echo first; echo second").await;
    let finished = api.whole(finished.id()).await;
    let path = format!("/api/v1/executions/{}/output", finished.id());
    let answer = api.send(api.request(Method::GET, &path).header("Accept", "text/plain")).await.accepted();
    let kind = answer.headers["content-type"].to_str().expect("it is text").to_owned();
    assert!(kind.starts_with("text/plain"), "{kind}");
    let text = answer.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text:?}");
    assert!(lines[0].ends_with("first") && lines[1].ends_with("second"), "{text:?}");
}

#[tokio::test]
async fn logs_can_be_narrowed_down() {
    let stage = stage().await;
    let (world, api) = (&stage.world, stage.world.api());
    let line = "echo early; echo wrong >&2; sleep 1.2; for i in 1 2 3; do echo late$i; done";
    let finished = api.shell("one", line).await;
    let finished = api.whole(finished.id()).await;
    let id = finished.id();
    let said = world.opsctl(&["logs", &id, "--raw", "--tail", "2"]).await.ended(0);
    assert_eq!(said.text(), "late2\nlate3\n");
    let said = world.opsctl(&["logs", &id, "--stream", "stderr"]).await.ended(0);
    let shown = said.text() + &said.stderr;
    assert!(shown.contains("wrong") && !shown.contains("early") && !shown.contains("late"), "{shown}");
    let late = api.pieces(&id, "", 1000).await.last().expect("there is output").time;
    let since = (late - jiff::SignedDuration::from_millis(500)).to_string();
    let said = world.opsctl(&["logs", &id, "--raw", "--since", &since]).await.ended(0);
    assert_eq!(said.text(), "late1\nlate2\nlate3\n");
    world.opsctl(&["logs", &id, "-t", "two"]).await.ended(5);
    // What ended already is followed to its end, too.
    let said = world.opsctl(&["logs", &id, "-f", "--raw"]).await.ended(0);
    assert_eq!(said.text(), "early\nlate1\nlate2\nlate3\n");
    assert_eq!(said.stderr, "wrong\n");
}

/// Reads events until the stream ends, or `stop_after` of them have come. Tells the end, if it came.
async fn follow(
    stage: &Stage,
    id: &str,
    after: Option<i64>,
    stop_after: usize,
    pieces: &mut Vec<OutputPiece>,
) -> Option<OutputEnd> {
    let api = stage.world.api();
    let mut request = api
        .request(Method::GET, &format!("/api/v1/executions/{id}/output?follow=true"))
        .header("Accept", "text/event-stream");
    if let Some(after) = after {
        request = request.header("Last-Event-ID", after.to_string());
    }
    let response = request.send().await.expect("the controller answers");
    assert_eq!(response.status(), 200);
    let (mut body, mut text, mut seen) = (response.bytes_stream(), Vec::new(), 0);
    while let Some(part) = body.next().await {
        text.extend_from_slice(&part.expect("the connection holds"));
        while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = text.drain(..end + 2).collect();
            let event = String::from_utf8(event).expect("events are UTF-8");
            let fields: HashMap<&str, &str> = event
                .lines()
                .filter_map(|line| line.split_once(':'))
                .map(|(k, v)| (k, v.trim_start()))
                .collect();
            let Some(data) = fields.get("data") else { continue };
            if fields.get("event") == Some(&"end") {
                return Some(serde_json::from_str(data).expect("the end is one"));
            }
            let piece: OutputPiece =
                serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {event}"));
            assert_eq!(fields.get("id").map(|id| id.parse()), Some(Ok(piece.position)), "{event}");
            pieces.push(piece);
            seen += 1;
            if seen == stop_after {
                return None;
            }
        }
    }
    None
}

#[tokio::test]
async fn following_with_many_reconnects_has_no_gap_and_no_repeat() {
    let stage = stage().await;
    let api = stage.world.api();
    let line = "for i in $(seq 40); do echo $i; echo -$i >&2; sleep 0.06; done";
    let execution = api.start(json!({ "all": true }), json!({ "program": { "shell": line } })).await;
    let id = execution.id.to_string();
    let (mut pieces, mut reconnects) = (Vec::new(), 0);
    let end = loop {
        let after = pieces.last().map(|piece: &OutputPiece| piece.position);
        let end = follow(&stage, &id, after, 1 + reconnects % 5, &mut pieces).await;
        if let Some(end) = end {
            break end;
        }
        reconnects += 1;
    };
    assert!(reconnects > 10, "{reconnects}");
    assert_eq!((end.runs.total, end.runs.succeeded), (3, 3), "{end:?}");
    assert!(pieces.windows(2).all(|pair| pair[0].position < pair[1].position), "positions go back");
    let mut streams: BTreeMap<(String, i16), Vec<OutputPiece>> = BTreeMap::new();
    for piece in &pieces {
        streams.entry((piece.target.clone(), piece.stream.number())).or_default().push(piece.clone());
    }
    assert_eq!(streams.len(), 6);
    for ((target, stream), pieces) in streams {
        let sign = if stream == Stream::Stderr.number() { "-" } else { "" };
        let want: String = (1..=40).map(|i| format!("{sign}{i}\n")).collect();
        assert_eq!(String::from_utf8(bytes(&pieces)).as_deref(), Ok(want.as_str()), "{target} {stream}");
    }
    // What was followed is what is stored.
    assert_eq!(api.pieces(&id, "", 1000).await, pieces);
}

#[tokio::test]
async fn invalid_utf8_comes_as_base64() {
    let stage = stage().await;
    let api = stage.world.api();
    let finished = api.shell("one", r"printf '\377\376'").await;
    let finished = api.whole(finished.id()).await;
    let pieces = api.pieces(finished.id(), "", 10).await;
    assert_eq!(pieces.len(), 1, "{pieces:?}");
    assert_eq!(pieces[0].data, Data::Base64(BASE64_STANDARD.encode(b"\xff\xfe")));
    let said =
        stage.world.opsctl(&["exec", "-t", "one", "-o", "json", "--shell", r"printf '\377'"]).await.ended(0);
    assert_eq!(said.json()["runs"][0]["stdout_base64"], "/w==", "{said}");
}

/// A batch that is lost on its way into the tables ends its stream: the agent has nothing more to say, and would wait.
#[tokio::test]
async fn output_that_was_not_stored_is_sent_again() {
    let world = World::start().await;
    let _agent = world.agent("one").start().await;
    let (mut holder, mut other) = (world.sql().await, world.sql().await);
    let mut held = holder.begin().await.expect("the database answers");
    sqlx::query("lock table output_chunks in access exclusive mode")
        .execute(&mut *held)
        .await
        .expect("the owner may");
    let execution = world.api().start_shell("one", "echo all of it").await;
    eventually(SOON, "the output waits for its table, and its connection is ended", async || {
        let ended = sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock' and query like '%insert into output_chunks%'
                 and pid <> pg_backend_pid()",
        );
        ended.fetch_optional(&mut other).await.expect("the owner may").map(drop)
    })
    .await;
    held.rollback().await.expect("the database answers");
    let finished = world.api().finished(execution.id).await;
    assert_eq!(world.api().stdout(&finished).await, "all of it\n");
}
