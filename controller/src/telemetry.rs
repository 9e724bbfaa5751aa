//! Logs to stderr, for people or as JSON, and the metrics that `/metrics` shows.

use std::{io::IsTerminal as _, time::Duration};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Bounds of the buckets of every histogram in seconds.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// Histograms grow until they are drained.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Sets up the logs of the whole process.
///
/// # Errors
/// When the level cannot be read or logs are set up already.
pub(crate) fn logs(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let done = match log.format {
        LogFormat::Human => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
        }
    };
    done.map_err(|error| anyhow::anyhow!("cannot set up the logs: {error}"))
}

/// Sets up the metrics of the whole process; the handle renders them.
///
/// # Errors
/// When metrics are set up already.
pub(crate) fn metrics() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()?;
    metrics::describe_counter!("opsc_http_requests_total", "HTTP requests by method, route and status");
    metrics::describe_histogram!(
        "opsc_http_request_seconds",
        metrics::Unit::Seconds,
        "Time until an HTTP answer began, by method and route"
    );
    metrics::gauge!("opsc_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

/// Keeps the histograms small until the controller stops.
pub(crate) fn spawn_upkeep(handle: PrometheusHandle, tracker: &TaskTracker, stop: CancellationToken) {
    tracker.spawn(async move {
        let mut every = tokio::time::interval(UPKEEP_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = every.tick() => handle.run_upkeep(),
            }
        }
    });
}
