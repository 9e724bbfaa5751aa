//! Live output: from a line's being written by its process to its being received by a client that tails.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use model::{
    api::{
        execution::Targets,
        output::{Data, OutputPiece},
    },
    id::ExecutionId,
};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::{
    bare::own_program,
    clock, emit,
    figure::Book,
    lab::{Agents, Lab, Parser, check_succeeded},
    plan::Plan,
    stats::percentile,
};

/// How much longer than its processes an execution may take.
const SLACK: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn measure(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    lab.real(plan.tail_agents).await?;
    let program = own_program()?;
    let program = program.to_str().context("the bench's own path is no text")?;
    let (rate, seconds) = (plan.tail_rate.to_string(), plan.tail_seconds.to_string());
    let argv = [program, "emit", "--rate", &rate, "--seconds", &seconds];
    let (mut tails, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..plan.repetitions {
        let targets = Targets::Names((0..plan.tail_agents).map(Agents::name).collect());
        let id = lab.api.start(targets, &argv).await?.id;
        let within = Duration::from_secs(plan.tail_seconds.into()) + SLACK;
        let mut delays =
            timeout(within, follow(lab, plan, id)).await.context("the output does not end")??;
        check_succeeded(&lab.api.execution(id).await?, plan.tail_agents)?;
        tails.extend(percentile(&delays, 99.0));
        delays.sort_by(f64::total_cmp);
        raw.push(json!({
            "lines": delays.len(),
            "p50": percentile(&delays, 50.0),
            "p90": percentile(&delays, 90.0),
            "p99": percentile(&delays, 99.0),
            "max": delays.last(),
            // Every hundredth, smallest first: 100,000 of each repetition would be megabytes.
            "delays_ms": delays.iter().step_by(100).collect::<Vec<_>>(),
        }));
        sleep(PAUSE).await;
    }
    let note = format!(
        "{} agents x {} lines/s for {} s to one SSE client; no line missing",
        plan.tail_agents, plan.tail_rate, plan.tail_seconds
    );
    book.enter("tail_p99_ms", tails, note, json!(raw));
    Ok(())
}

/// The lines of one target, put together again.
#[derive(Debug, Default)]
struct Lines {
    /// The beginning of a line whose end has not come.
    rest: String,
    /// Number of the next line.
    next: u64,
}

impl Lines {
    /// Takes a piece that was received at `now`; the delays of the lines that it completes, in milliseconds.
    fn take(&mut self, text: &str, now_micros: i64, delays: &mut Vec<f64>) -> anyhow::Result<()> {
        self.rest.push_str(text);
        let Some(end) = self.rest.rfind('\n') else { return Ok(()) };
        for line in self.rest[..end].split('\n') {
            let line = emit::parse(line).with_context(|| format!("'{line}' is no line of ours"))?;
            ensure!(line.number == self.next, "line {} came where {} was due", line.number, self.next);
            self.next += 1;
            let micros = u32::try_from((now_micros - line.written_micros).max(0)).unwrap_or(u32::MAX);
            delays.push(f64::from(micros) / 1000.0);
        }
        self.rest.drain(..=end);
        Ok(())
    }
}

/// Follows an execution to its end: the delay of every line in milliseconds.
async fn follow(lab: &Lab, plan: &Plan, id: ExecutionId) -> anyhow::Result<Vec<f64>> {
    let begun = Instant::now();
    let expected = u64::from(plan.tail_rate) * u64::from(plan.tail_seconds);
    let mut delays = Vec::with_capacity(plan.tail_agents * usize::try_from(expected)?);
    let mut targets: HashMap<String, Lines> = HashMap::new();
    let mut stream = lab.api.follow(id).await?;
    let mut parser = Parser::default();
    while let Some(bytes) = stream.chunk().await.context("the output broke off")? {
        let now = clock::now_micros();
        for event in parser.feed(&bytes) {
            match event.name.as_str() {
                "output" => {
                    let piece: OutputPiece =
                        serde_json::from_slice(&event.data).context("a piece of output cannot be read")?;
                    let Data::Text(text) = piece.data else {
                        bail!("output has a gap or is no text: {piece:?}")
                    };
                    targets.entry(piece.target).or_default().take(&text, now, &mut delays)?;
                }
                "end" => {
                    let lines = plan.tail_agents * usize::try_from(expected)?;
                    ensure!(
                        delays.len() == lines && targets.values().all(|lines| lines.next == expected),
                        "{} of {lines} lines came from {} targets in {:?}",
                        delays.len(),
                        targets.len(),
                        begun.elapsed()
                    );
                    return Ok(delays);
                }
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
    fn lines_are_put_together_and_counted() {
        let (mut lines, mut delays) = (Lines::default(), Vec::new());
        lines.take("1000 0\n20", 3000, &mut delays).unwrap();
        assert_eq!(delays, [2.0]);
        lines.take("00 1", 4000, &mut delays).unwrap();
        lines.take("\n", 7000, &mut delays).unwrap();
        assert_eq!(delays, [2.0, 5.0]);
        let error = lines.take("9000 3\n", 9000, &mut delays).unwrap_err();
        assert!(error.to_string().contains("line 3 came where 2 was due"), "{error}");
    }
}
