//! **one-start**: each attempt starts at most once, and only while nothing of its run is left of an earlier one.

use model::run::RunState;

use super::Book;

impl Book<'_> {
    /// What starts is an attempt that the tables know and that was not called off; it starts once, after the earlier ones,
    /// and finds none of them alive. What succeeded has started.
    pub(super) fn one_start(&mut self) {
        self.all("one-start", |book| {
            let mut found = Vec::new();
            for (id, run) in &book.runs {
                let what = format!("run {id} on {}", run.host);
                if !run.starts.is_sorted_by(|(one, _), (next, _)| one < next) {
                    found.push((run.number, format!("{what} started as {:?}", run.starts)));
                }
                for (number, beside) in &run.starts {
                    let known = run.attempts.iter().find(|attempt| attempt.number == *number);
                    match known {
                        None => found.push((run.number, format!("{what}: nobody offered attempt {number}"))),
                        Some(known) if !known.counts() => {
                            found.push((run.number, format!("{what}: {}, and started", known.tell())));
                        }
                        Some(_) => {}
                    }
                    if !beside.is_empty() {
                        let text = format!("{what}: attempt {number} began while {beside:?} lived");
                        found.push((run.number, text));
                    }
                }
                if let Some(end) = run.end()
                    && end.state == RunState::Succeeded
                    && !run.tries().last().is_some_and(|last| run.has_started(last.number))
                {
                    found.push((run.number, format!("{what} succeeded and never started")));
                }
            }
            found
        });
    }
}
