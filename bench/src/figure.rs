//! The figures: their names, units and targets, and what was measured of them.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{figures::floors::Floors, plan::Plan, stats::median};

/// Whether more or less of a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Better {
    Less,
    More,
}

/// What a figure is and what it should reach.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Definition {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) target: f64,
    pub(crate) better: Better,
}

const fn less(name: &'static str, unit: &'static str, target: f64) -> Definition {
    Definition { name, unit, target, better: Better::Less }
}

const fn more(name: &'static str, unit: &'static str, target: f64) -> Definition {
    Definition { name, unit, target, better: Better::More }
}

/// All figures, in the order in which they are shown.
pub(crate) const ALL: [Definition; 34] = [
    less("fanout_1000_ms", "ms", 300.0),
    less("fanout_5000_ms", "ms", 1500.0),
    less("fanout_real_50_ms", "ms", 250.0),
    less("exec_p50_ms", "ms", 12.0),
    less("exec_p99_ms", "ms", 40.0),
    more("exec_per_s", "1/s", 200.0),
    less("job_overhead_s", "s", 4.0),
    more("rollouts_exact", "rollouts", 200.0),
    less("plan_10k_s", "s", 1.0),
    less("matrix_page_ms", "ms", 50.0),
    less("matrix_page_p99_ms", "ms", 50.0),
    less("matrix_failed_page_p99_ms", "ms", 50.0),
    less("schedules_due_2000_s", "s", 2.0),
    less("schedules_late_p99_ms", "ms", 250.0),
    less("schedules_idle_cpu_percent", "%", 1.0),
    less("sandbox_standard_ms", "ms", 3.0),
    less("sandbox_strict_ms", "ms", 8.0),
    less("sandbox_isolated_ms", "ms", 12.0),
    more("agents_connected", "agents", 10_000.0),
    more("connect_per_s", "1/s", 700.0),
    less("controller_kib_per_agent", "KiB", 120.0),
    less("tail_p99_ms", "ms", 100.0),
    less("seq_2m_s", "s", 2.0),
    more("output_mb_per_s", "MiB/s", 50.0),
    less("tail_flooded_p99_ms", "ms", 250.0),
    less("stored_per_raw_byte", "", 0.25),
    less("reconnect_1000_s", "s", 10.0),
    more("api_reads_per_s", "1/s", 5000.0),
    less("api_p99_ms", "ms", 10.0),
    less("authorization_ms", "ms", 0.2),
    more("audited_writes_per_s", "1/s", 500.0),
    less("audit_verify_1m_s", "s", 20.0),
    less("agent_idle_rss_mib", "MiB", 25.0),
    less("agent_idle_cpu_percent", "%", 0.3),
];

/// One figure as it was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) definition: Definition,
    /// One value for each repetition; the figure is their median.
    pub(crate) samples: Vec<f64>,
    /// How it was measured, in a line.
    pub(crate) note: String,
    /// What the samples were made of.
    pub(crate) raw: Value,
}

impl Measured {
    pub(crate) fn value(&self) -> Option<f64> {
        median(&self.samples)
    }

    /// Whether the target is reached.
    pub(crate) fn is_reached(&self) -> Option<bool> {
        let value = self.value()?;
        Some(match self.definition.better {
            Better::Less => value <= self.definition.target,
            Better::More => value >= self.definition.target,
        })
    }
}

/// All that was measured, and what could not be.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) measured: Vec<Measured>,
    pub(crate) floors: Option<Floors>,
    /// What went wrong, by what was being measured.
    pub(crate) failures: Vec<(String, String)>,
}

impl Book {
    /// Enters a figure by its name.
    pub(crate) fn enter(
        &mut self,
        name: &'static str,
        samples: Vec<f64>,
        note: impl Into<String>,
        raw: Value,
    ) {
        let definition =
            ALL.into_iter().find(|known| known.name == name).expect("figures are entered by known names");
        self.measured.push(Measured { definition, samples, note: note.into(), raw });
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Measured> {
        self.measured.iter().find(|measured| measured.definition.name == name)
    }

    /// The figures as `results.json` has them.
    pub(crate) fn figures(&self, plan: &Plan) -> Value {
        let figures = ALL.into_iter().filter_map(|definition| {
            let measured = self.get(definition.name)?;
            let floor = self.floor(definition.name, plan);
            let value = json!({
                "value": measured.value(),
                "unit": definition.unit,
                "target": definition.target,
                "better": definition.better,
                "reached": measured.is_reached(),
                "floor": floor,
                "ratio": self.ratio(measured, plan),
                "repetitions": measured.samples.len(),
                "note": measured.note,
            });
            Some((definition.name.to_owned(), value))
        });
        Value::Object(figures.collect::<Map<_, _>>())
    }

    /// What the same machine could do at best, where there is such a number.
    pub(crate) fn floor(&self, name: &str, plan: &Plan) -> Option<f64> {
        self.floors.as_ref()?.of(name, plan)
    }

    /// How many times worse than the floor.
    pub(crate) fn ratio(&self, measured: &Measured, plan: &Plan) -> Option<f64> {
        let (value, floor) = (measured.value()?, self.floor(measured.definition.name, plan)?);
        let (worse, better) = match measured.definition.better {
            Better::Less => (value, floor),
            Better::More => (floor, value),
        };
        (better > 0.0).then(|| worse / better)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_the_median_and_is_held_against_its_target() {
        let mut book = Book::default();
        book.enter("exec_p50_ms", vec![11.0, 30.0, 12.0], "", Value::Null);
        book.enter("exec_per_s", vec![150.0], "", Value::Null);
        assert_eq!(book.get("exec_p50_ms").unwrap().is_reached(), Some(true));
        assert_eq!(book.get("exec_per_s").unwrap().is_reached(), Some(false));
        let figures = book.figures(&Plan::quick());
        assert_eq!(figures["exec_p50_ms"]["value"], 12.0);
        assert_eq!(figures["exec_p50_ms"]["floor"], Value::Null);
        assert_eq!(figures["exec_per_s"]["repetitions"], 1);
    }
}
