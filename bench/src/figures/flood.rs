//! Much output: how fast it is taken in while somebody tails it, how late the tail is, and how much room it takes.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use model::{
    api::{
        execution::Targets,
        output::{Data, OutputPiece},
    },
    id::ExecutionId,
};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{EXECUTION_WITHIN, millis, only, run};
use crate::{
    bare::own_program,
    clock, corpus, emit,
    figure::Book,
    lab::{Agents, Lab, Parser, check_succeeded},
    plan::Plan,
    stats::percentile,
};

const MIB: f64 = 1024.0 * 1024.0;
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of what `seq 1 LAST` writes are counted, not taken from a table.
const DIGITS: u32 = 10;

/// One run of `seq`: from the call until its last byte is committed.
pub(super) async fn sequence(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    lab.real(1).await?;
    let mut database = lab.database().await?;
    let last = plan.sequence_last.to_string();
    let bytes = bytes_of_sequence(plan.sequence_last);
    let mut samples = Vec::new();
    for _ in 0..plan.repetitions {
        let begun = Instant::now();
        let (_, id) = run(lab, &mut database, only(0), 1, &["seq", "1", &last]).await?;
        let stored = database.wait_output(id, bytes, EXECUTION_WITHIN).await?;
        samples.push((stored - begun).as_secs_f64());
        sleep(PAUSE).await;
    }
    let note = format!("{bytes} bytes of one run; SQL look at its cursor every ms");
    book.enter("seq_2m_s", samples, note, json!({ "bytes": bytes }));
    Ok(())
}

fn bytes_of_sequence(last: u64) -> u64 {
    let count = |digits: u32| {
        let (low, high) = (10_u64.pow(digits - 1), 10_u64.pow(digits));
        (last + 1).min(high).saturating_sub(low) * u64::from(digits + 1)
    };
    (1..=DIGITS).map(count).sum()
}

/// Several hosts write ordinary logs as fast as they are let, and one client tails all of it.
pub(super) async fn rate(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    lab.real(plan.flood_agents).await?;
    let mut database = lab.database().await?;
    let (mut rates, mut shares, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.repetitions {
        let before = database.output_room().await?;
        let begun = Instant::now();
        let id = start(lab, plan, plan.flood_mib, None).await?;
        let tailed =
            timeout(EXECUTION_WITHIN, follow(lab, id)).await.context("the output does not end")??;
        let took = database.wait_output(id, tailed.bytes, EXECUTION_WITHIN).await? - begun;
        check_succeeded(&lab.api.execution(id).await?, plan.flood_agents)?;
        let room = database.output_room().await?.saturating_sub(before);
        rates.push(tailed.bytes as f64 / MIB / took.as_secs_f64());
        shares.push(room as f64 / tailed.bytes as f64);
        raw.push(json!({ "bytes": tailed.bytes, "seconds": took.as_secs_f64(), "room_bytes": room }));
        sleep(PAUSE).await;
    }
    let note = format!(
        "{} agents x {} MiB of ordinary logs as fast as they are let, one SSE client tails all; call to last byte \
         committed and tailed",
        plan.flood_agents, plan.flood_mib
    );
    book.enter("output_mb_per_s", rates, note, json!(raw));
    let note = "growth of the table of chunks with its indexes, for each byte of these logs";
    book.enter("stored_per_raw_byte", shares, note, json!(raw));
    Ok(())
}

/// The same at the rate that is to be reached: how late a line is at the client.
pub(super) async fn tail(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    lab.real(plan.flood_agents).await?;
    let each = plan.flood_rate_mib / u32::try_from(plan.flood_agents)?;
    let (mut tails, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..plan.repetitions {
        let begun = Instant::now();
        let id = start(lab, plan, each * plan.flood_seconds, Some(each)).await?;
        let tailed =
            timeout(EXECUTION_WITHIN, follow(lab, id)).await.context("the output does not end")??;
        let took = millis(begun.elapsed());
        check_succeeded(&lab.api.execution(id).await?, plan.flood_agents)?;
        tails.extend(percentile(&tailed.delays, 99.0));
        raw.push(json!({
            "bytes": tailed.bytes, "took_ms": took, "stamps": tailed.delays.len(),
            "p50": percentile(&tailed.delays, 50.0), "p99": percentile(&tailed.delays, 99.0),
            "max": percentile(&tailed.delays, 100.0),
        }));
        sleep(PAUSE).await;
    }
    let note = format!(
        "{} agents x {each} MiB/s for {} s to one SSE client; one stamp in 32 KiB",
        plan.flood_agents, plan.flood_seconds
    );
    book.enter("tail_flooded_p99_ms", tails, note, json!(raw));
    Ok(())
}

async fn start(lab: &Lab, plan: &Plan, mib: u32, rate: Option<u32>) -> anyhow::Result<ExecutionId> {
    let program = own_program()?;
    let program = program.to_str().context("the bench's own path is no text")?;
    let (mib, rate) = (mib.to_string(), rate.map(|rate| rate.to_string()));
    let mut argv = vec![program, "logs", "--mib", &mib];
    if let Some(rate) = &rate {
        argv.extend(["--rate", rate]);
    }
    let targets = Targets::Names((0..plan.flood_agents).map(Agents::name).collect());
    Ok(lab.api.start(targets, &argv).await?.id)
}

/// What a client that tailed to the end has seen.
#[derive(Debug, Default)]
struct Tailed {
    bytes: u64,
    /// Of each stamp, in milliseconds.
    delays: Vec<f64>,
}

/// The stamps of one target.
#[derive(Debug, Default)]
struct Stamps {
    rest: Vec<u8>,
    next: u64,
}

impl Stamps {
    fn take(&mut self, bytes: &[u8], now_micros: i64, delays: &mut Vec<f64>) -> anyhow::Result<()> {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let lines = self.rest[..end].split(|byte| *byte == b'\n');
        for line in lines.filter_map(|line| line.strip_prefix(corpus::STAMP.as_bytes())) {
            let line = str::from_utf8(line).context("a stamp is no text")?;
            let stamp = emit::parse(line).with_context(|| format!("'{line}' is no stamp of ours"))?;
            ensure!(stamp.number == self.next, "stamp {} came where {} was due", stamp.number, self.next);
            self.next += 1;
            let micros = u32::try_from((now_micros - stamp.written_micros).max(0)).unwrap_or(u32::MAX);
            delays.push(f64::from(micros) / 1000.0);
        }
        self.rest.drain(..=end);
        Ok(())
    }
}

/// Follows an execution to its end; no stamp may be missing.
async fn follow(lab: &Lab, id: ExecutionId) -> anyhow::Result<Tailed> {
    let mut tailed = Tailed::default();
    let mut targets: HashMap<String, Stamps> = HashMap::new();
    let mut stream = lab.api.follow(id).await?;
    let mut parser = Parser::default();
    while let Some(bytes) = stream.chunk().await.context("the output broke off")? {
        let now = clock::now_micros();
        for event in parser.feed(&bytes) {
            match event.name.as_str() {
                "output" => {
                    let piece: OutputPiece =
                        serde_json::from_slice(&event.data).context("a piece of output cannot be read")?;
                    let bytes = match piece.data {
                        Data::Text(text) => text.into_bytes(),
                        // A character is cut in two where a chunk ends.
                        Data::Base64(text) => BASE64_STANDARD.decode(text).context("a piece is no base64")?,
                        Data::Gap(bytes) => bail!("{bytes} bytes of the output are missing"),
                    };
                    tailed.bytes += bytes.len() as u64;
                    targets.entry(piece.target).or_default().take(&bytes, now, &mut tailed.delays)?;
                }
                "end" => return Ok(tailed),
                _ => {}
            }
        }
    }
    bail!("the output ended without saying so")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_sequence_are_counted() {
        for last in [1, 9, 10, 99, 12_345] {
            let text: String = (1..=last).map(|number| format!("{number}\n")).collect();
            assert_eq!(bytes_of_sequence(last), text.len() as u64, "{last}");
        }
    }

    #[test]
    fn stamps_are_found_between_lines() {
        let (mut stamps, mut delays) = (Stamps::default(), Vec::new());
        stamps.take(b"stamp 1000 0\nline\nsta", 3000, &mut delays).unwrap();
        stamps.take(b"mp 2000 1\n", 4000, &mut delays).unwrap();
        assert_eq!(delays, [2.0, 2.0]);
        assert!(stamps.take(b"stamp 2000 3\n", 4000, &mut delays).is_err());
    }
}
