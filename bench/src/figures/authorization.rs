//! What many roles cost: the same request by a person with a thousand bindings, each for other hosts, and by one with a
//! single binding for all.

use std::time::Instant;

use serde_json::json;

use super::{millis, number};
use crate::{
    figure::Book,
    lab::{Connection, Lab, Request},
    plan::Plan,
    stats::percentile,
};

/// What one of the two was measured to take in a round, in milliseconds.
#[derive(Debug, Default)]
struct Took(Vec<f64>);

impl Took {
    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / number(self.0.len())
    }

    fn p50(&self) -> Option<f64> {
        percentile(&self.0, 50.0)
    }

    fn max(&self) -> Option<f64> {
        percentile(&self.0, 100.0)
    }
}

/// The two ask in turn, request by request, so that what else the machine does hits both. The mean counts: once a second
/// what is granted is read anew, which is most of what many bindings cost.
pub(super) async fn measure(lab: &mut Lab, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
    lab.simulated(1).await?;
    let host = lab.simulated_id(0);
    for name in ["one", "many"] {
        lab.api.person(name).await?;
    }
    lab.api.bind("one", "administrator", None).await?;
    for number in 1..plan.bindings {
        lab.api.bind("many", "operator", Some(format!("service=s{number} and env!=test"))).await?;
    }
    // The one that the host is among is the last that is looked at.
    lab.api.bind("many", "operator", Some("bench=simulated and env!=test".to_owned())).await?;

    let path = format!("/api/v1/agents/{host}");
    let mut asking = Vec::new();
    for name in ["one", "many"] {
        let request = Request::get(&path, &lab.api.log_in(name).await?);
        let mut connection = Connection::open(lab.http).await?;
        // Its connection to the database may have to be made first.
        for _ in 0..plan.warm_up {
            connection.send(&request).await?;
        }
        asking.push((connection, request));
    }
    let (mut samples, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..plan.repetitions {
        let mut took = [Took::default(), Took::default()];
        for _ in 0..plan.authorized {
            for ((connection, request), took) in asking.iter_mut().zip(&mut took) {
                let begun = Instant::now();
                connection.send(request).await?;
                took.0.push(millis(begun.elapsed()));
            }
        }
        let [one, many] = took;
        samples.push(many.mean() - one.mean());
        raw.push(json!({
            "one": { "mean_ms": one.mean(), "p50_ms": one.p50(), "max_ms": one.max() },
            "many": { "mean_ms": many.mean(), "p50_ms": many.p50(), "max_ms": many.max() },
        }));
    }
    let note = format!(
        "{} times one host, asked for in turn by a person with {} bindings and by one with a single one; means",
        plan.authorized, plan.bindings
    );
    book.enter("authorization_ms", samples, note, json!(raw));
    Ok(())
}
