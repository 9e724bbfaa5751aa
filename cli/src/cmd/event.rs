//! `opsctl event`: what happened, and events of one's own.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use model::api::event::{CreateEvent, Event, EventPage};
use serde_json::{Map, Value};

use crate::{
    args::Shown,
    client::Client,
    clock,
    exit::{Exit, Usage},
    output::{self, Format, human},
    parse,
};

const EVENTS: [&str; 3] = ["api", "v1", "events"];
const HEADER: &[&str] = &["TIME", "KIND", "OBJECT", "ACTOR", "DATA"];
/// Pause between two looks of a follower.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks in succession that may fail before a follower gives up.
const PATIENCE: u32 = 60;

#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// List events, the newest first
    List(ListEvents),
    /// Add an event of your own; its kind begins with 'custom.'
    Create {
        /// Kind, as custom.deploy.done
        #[arg(long)]
        kind: String,
        /// What it happened to
        #[arg(long, default_value = "")]
        object: String,
        /// What else there is to know, as a JSON object
        #[arg(long, value_name = "JSON", value_parser = object, default_value = "{}")]
        data: Map<String, Value>,
        #[command(flatten)]
        shown: Shown,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ListEvents {
    /// Only of this kind, or of all that begin so, as 'agent.*'
    #[arg(long)]
    kind: Option<String>,
    /// Only of this object, as agent/ID
    #[arg(long)]
    object: Option<String>,
    /// Only since: how long ago (10m), or an RFC 3339 time
    #[arg(long, value_name = "WHEN", value_parser = parse::Since::parse)]
    since: Option<parse::Since>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Go on with what happens from now on, until interrupted; json is one event a line
    #[arg(short, long, conflicts_with = "limit")]
    follow: bool,
    #[command(flatten)]
    shown: Shown,
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not a JSON object: {error}"))
}

/// # Errors
/// As the requests, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: EventCommand) -> Result<Exit> {
    match command {
        EventCommand::List(list) => {
            let mut query = Vec::new();
            query.extend(list.kind.map(|kind| ("kind", kind)));
            query.extend(list.object.map(|object| ("object", object)));
            if let Some(since) = list.since {
                query.push(("since", since.resolve(clock::now()).map_err(Usage)?.to_string()));
            }
            if list.follow {
                return follow(client, &query, list.shown.output).await;
            }
            output::list(client.pages(&EVENTS, query, Some(list.limit)), list.shown.output, HEADER, row)
                .await?;
        }
        EventCommand::Create { kind, object, data, shown } => {
            let body = CreateEvent { kind, object, data };
            body.validate().map_err(|invalid| Usage(invalid.to_string()))?;
            let event: Event = client.post(&EVENTS, &body).await?;
            output::show(shown.output, &event, |event| format!("{}\n", event.id))?;
        }
    }
    Ok(Exit::Succeeded)
}

/// Looks again and again behind the last event. It never ends by itself.
async fn follow(client: &Client, query: &[(&'static str, String)], format: Format) -> Result<Exit> {
    let ask = async |more: Vec<(&'static str, String)>| {
        let query: Vec<_> = query.iter().cloned().chain(more).collect();
        client.get::<EventPage>(&EVENTS, &query).await
    };
    // Where it begins; what was before is not shown.
    let mut after = ask(vec![("limit", "1".to_owned())]).await?.next_after;
    let (mut table, mut failures) = (output::Table::new(HEADER), 0);
    loop {
        match ask(vec![("after", after.clone())]).await {
            Ok(page) => {
                failures = 0;
                after = page.next_after;
                if !page.items.is_empty() {
                    write(&page.items, format, &mut table)?;
                    continue;
                }
            }
            Err(error) if error.is_transient() && failures < PATIENCE => {
                if failures == 0 {
                    output::note(&format!("{error}; trying again"));
                }
                failures += 1;
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn write(events: &[Event], format: Format, table: &mut output::Table) -> Result<()> {
    match format {
        Format::Table => {
            events.iter().for_each(|event| table.row(row(event)));
            output::print(&table.take())
        }
        Format::Json | Format::Yaml => events.iter().try_for_each(|event| {
            let line = serde_json::to_string(event).context("cannot write the event as JSON")?;
            output::write(model::api::output::Stream::Stdout, format!("{line}\n").as_bytes())
        }),
    }
}

fn row(event: &Event) -> Vec<String> {
    vec![
        event.time.to_string(),
        event.kind.clone(),
        event.object.clone(),
        human::or_dash(event.actor.as_ref()),
        Value::Object(event.data.clone()).to_string(),
    ]
}
