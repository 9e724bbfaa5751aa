//! What is looked at from outside, while everything runs and when all is over.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use model::{Reason, api::controller::Controllers, attempt::AttemptState};
use sqlx::Row;
use tokio::time::sleep;

use super::{history::Record, job::MARK, lab::Lab, workload};

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// So many looks at processes for one at memory and disks.
const USE_EVERY: u32 = 4;
/// What is left over may take so long to be cleared away.
const CLEARED_WITHIN: Duration = Duration::from_secs(60);
const PROBED_WITHIN: Duration = Duration::from_secs(60);

/// Looks at processes, memory and disks for as long as it is let.
pub async fn watch(lab: Arc<Lab>) {
    for look in 0_u32.. {
        let (looking, at) = (Arc::clone(&lab), lab.history.now());
        let runs = tokio::task::spawn_blocking(alive).await.expect("it does not panic");
        lab.history.add(Record::Alive { at, runs: runs.into_iter().collect() });
        if look.is_multiple_of(USE_EVERY) {
            used(&looking).await;
            serves(&looking).await;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The runs that have a living process, by the environment of the processes.
fn alive() -> BTreeSet<String> {
    let mark = format!("{MARK}=");
    let mut runs = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if !entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
            continue;
        }
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        let variables =
            || environment.split(|byte| *byte == 0).filter_map(|pair| std::str::from_utf8(pair).ok());
        if variables().any(|variable| variable.starts_with(&mark)) {
            runs.extend(
                variables().filter_map(|variable| variable.strip_prefix("OPSC_RUN_ID=")).map(str::to_owned),
            );
        }
    }
    runs
}

async fn used(lab: &Lab) {
    let add = |who: &str, memory_kib: Option<u64>, disk_kib| {
        if let Some(memory_kib) = memory_kib {
            lab.history.add(Record::Used {
                at: lab.history.now(),
                who: who.to_owned(),
                memory_kib,
                disk_kib,
            });
        }
    };
    for controller in &lab.controllers {
        // Whoever is just being broken is looked at another time.
        let Ok(_turn) = controller.turn.try_lock() else { continue };
        add(controller.name, memory(controller.world.controller_pid()), 0);
    }
    for host in &lab.hosts {
        let Ok(agent) = host.agent.try_lock() else { continue };
        add(&host.name, memory(agent.pid()), folder_kib(&host.data));
    }
}

/// How many agents each controller serves.
async fn serves(lab: &Lab) {
    let at = lab.history.now();
    let answer = lab.api().try_get("/api/v1/controllers").await.filter(|answer| answer.status == 200);
    let Some(list) = answer.map(|answer| answer.json::<Controllers>()) else { return };
    for one in list.items {
        if let Some(known) = lab.controllers.iter().find(|known| known.id == one.id.to_string()) {
            let (who, agents) = (known.name.to_owned(), one.sessions.unsigned_abs());
            lab.history.add(Record::Serves { at, who, agents });
        }
    }
}

fn memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// What a folder takes; files that vanish meanwhile take nothing.
fn folder_kib(folder: &Path) -> u64 {
    std::fs::read_dir(folder).into_iter().flatten().flatten().fold(0, |sum, entry| {
        let Ok(metadata) = entry.metadata() else { return sum };
        sum + if metadata.is_dir() { folder_kib(&entry.path()) } else { metadata.len() / 1024 }
    })
}

/// Starts whatever ended by itself, and notes it.
pub async fn supervise(lab: Arc<Lab>) {
    loop {
        sleep(Duration::from_millis(500)).await;
        for host in &lab.hosts {
            let Ok(mut agent) = host.agent.try_lock() else { continue };
            if agent.has_ended() {
                let (at, log) = (lab.history.now(), agent.log());
                let last = log.lines().last().unwrap_or_default().to_owned();
                lab.history.add(Record::Fell { at, who: host.name.clone(), how: last });
                agent.run();
            }
        }
        for controller in &lab.controllers {
            if let (Ok(_database), Ok(_turn)) = (lab.database.try_read(), controller.turn.try_lock()) {
                controller.mend(&lab.history).await;
            }
        }
    }
}

/// When all is over: does every host work, is nothing left, and what do rows, audit and the hosts' own file say?
pub async fn last_look(lab: &Lab) {
    let history = &lab.history;
    for host in &lab.hosts {
        let succeeded = probe(lab, &host.name).await;
        history.add(Record::Probed { host: host.name.clone(), succeeded });
    }
    for host in &lab.hosts {
        let attempts = host.data.join("executor/attempts");
        let names = || -> Vec<String> {
            let entries = std::fs::read_dir(&attempts).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        let begun = Instant::now();
        while !names().is_empty() && begun.elapsed() < CLEARED_WITHIN {
            sleep(LOOK_EVERY).await;
        }
        history.add(Record::Left { at: history.now(), host: host.name.clone(), folders: names() });
    }
    executions(lab).await;
    starts(lab);
    rows(lab).await;
}

async fn probe(lab: &Lab, host: &str) -> bool {
    let body = serde_json::json!({
        "targets": { "names": [host] }, "command": { "program": { "shell": "true" } },
    });
    let api = lab.api();
    let request = api.request(reqwest::Method::POST, "/api/v1/executions").json(&body);
    let Some(answer) = api.try_send(request).await.filter(|answer| answer.status < 300) else {
        return false;
    };
    let id = answer.value()["id"].as_str().unwrap_or_default().to_owned();
    let begun = Instant::now();
    while begun.elapsed() < PROBED_WITHIN {
        if let Some(runs) = workload::runs(lab, &id).await
            && runs.iter().all(|run| run.state.is_terminal())
        {
            return runs.iter().all(|run| run.state == model::run::RunState::Succeeded);
        }
        sleep(Duration::from_millis(50)).await;
    }
    false
}

/// What has become of every execution that was acknowledged.
async fn executions(lab: &Lab) {
    let acknowledged: Vec<(u64, String)> = lab
        .history
        .all()
        .into_iter()
        .filter_map(|record| match record {
            Record::Acknowledged { number, execution, .. } => Some((number, execution)),
            _ => None,
        })
        .collect();
    for (number, execution) in acknowledged {
        let answer = lab.api().try_get(&format!("/api/v1/executions/{execution}")).await;
        let shown = answer.filter(|answer| answer.status == 200).map(|answer| answer.json());
        let ended = shown.is_some_and(|shown: model::api::execution::Execution| shown.state.is_terminal());
        lab.history.add(Record::Ended { number, execution, ended });
    }
}

/// What the hosts' processes have told.
fn starts(lab: &Lab) {
    let text = std::fs::read_to_string(&lab.starts).unwrap_or_default();
    for line in text.lines() {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (run, attempt, number, token, folder) = (word(), word(), word(), word(), word());
        let beside = word().split(',').filter_map(|number| number.parse().ok()).collect();
        let host =
            lab.hosts.iter().find(|host| host.data.parent().is_some_and(|of| of == Path::new(&folder)));
        let host = host.map_or_else(|| "?".to_owned(), |host| host.name.clone());
        let (attempt, number) = (attempt.parse().unwrap_or(0), number.parse().unwrap_or(0));
        lab.history.add(Record::Started { run, attempt, number, token, host, beside });
    }
}

/// What the tables say of attempts and of refusals.
async fn rows(lab: &Lab) {
    let mut sql = lab.sql().await.expect("nothing is broken any more");
    let attempts = sqlx::query(
        "select t.run_id::text as run, t.number, a.name, t.fence, t.state, t.reason, t.exit_code,
             (extract(epoch from t.offered_at) * 1000)::bigint as at, (extract(epoch from t.ended_at) * 1000)::bigint as ended
         from attempts t join agents a on a.id = t.agent_id order by t.offered_at, t.run_id",
    );
    for row in attempts.fetch_all(&mut sql).await.expect("the owner may") {
        let (state, reason): (String, Option<String>) = (row.get("state"), row.get("reason"));
        let ended: Option<i64> = row.get("ended");
        lab.history.add(Record::Offered {
            at: lab.history.at(row.get("at")),
            run: row.get("run"),
            attempt: row.get("number"),
            host: row.get("name"),
            fence: row.get("fence"),
            state: AttemptState::parse(&state).expect("the tables hold no other"),
            reason: reason.as_deref().and_then(Reason::parse),
            exit_code: row.get("exit_code"),
            ended: ended.map(|ended| lab.history.at(ended)),
        });
    }
    let audited = sqlx::query("select object from audit_entries where verb = 'run.manifest_mismatch'");
    for row in audited.fetch_all(&mut sql).await.expect("the owner may") {
        let object: String = row.get("object");
        let run = object.strip_prefix("run/").unwrap_or_default().to_owned();
        lab.history.add(Record::Audited { run });
    }
}
