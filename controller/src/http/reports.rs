//! `/api/v1/reports`: who may do what on which host, and who did, as JSON or CSV.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use jiff::{SignedDuration, Timestamp};
use model::{
    api::report::{AccessReport, Did, May, Way},
    limits,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Door,
    auth::Access,
    problem::{Failure, Result},
    query::{Query, time},
};
use crate::{
    app::{
        access::ReportRead,
        reports::{self, Question},
    },
    clock,
    error::Error,
};

/// What a report looks back on where nothing is said.
const DEFAULT_SPAN: SignedDuration = SignedDuration::from_hours(30 * 24);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    #[default]
    Json,
    Csv,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// What was started from then on; 30 days before `until` by default, 366 at most.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// And before then; now by default.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Only of this person, or `service/NAME`.
    who: Option<String>,
    /// Only of this host.
    host: Option<String>,
    /// `json` (the default) or `csv`: one table, whose first column is `may`, `way` or `did`.
    #[param(inline)]
    format: Option<Format>,
}

/// Who may do what on which host, as it is now, and who had what run there in that time.
#[utoipa::path(get, path = "/api/v1/reports/access", tag = "reports", operation_id = "report_access",
    params(Parameters), responses((status = 200, content((AccessReport = "application/json"), (String = "text/csv")))))]
pub(super) async fn access(
    Access(by): Access<ReportRead>,
    State(door): State<Arc<Door>>,
    Query(query): Query<Parameters>,
) -> Result<Response> {
    let until = time("until", query.until)?.unwrap_or_else(clock::now);
    let since = match time("since", query.since)? {
        Some(since) => since,
        None => until.saturating_sub(DEFAULT_SPAN).unwrap_or(Timestamp::MIN),
    };
    let longest = SignedDuration::try_from(limits::STATISTICS_SPAN).unwrap_or(SignedDuration::MAX);
    if since >= until || until.duration_since(since) > longest {
        return Err(Failure::invalid("since", "must be before 'until', by 366 days at most"));
    }
    let question = Question { since, until, who: query.who.as_deref(), host: query.host.as_deref() };
    let report = reports::access(&door.app, &by, question).await?;
    Ok(match query.format.unwrap_or_default() {
        Format::Json => Json(report).into_response(),
        Format::Csv => {
            let csv = csv(&report).map_err(|error| Error::internal("cannot write the report", error))?;
            ([(header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present")], csv).into_response()
        }
    })
}

fn csv(report: &AccessReport) -> Result<Vec<u8>, csv::Error> {
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(["kind", "who", "host", "what", "by", "at", "execution", "state"])?;
    for May { who, host, permissions, by, disabled } in &report.may {
        let names: Vec<&str> = permissions.iter().map(|permission| permission.as_str()).collect();
        let state = if *disabled { "disabled" } else { "" };
        let host = host.as_deref().unwrap_or("*");
        table.write_record([
            "may",
            &plain(who),
            &plain(host),
            &names.join(" "),
            &plain(&by.join(", ")),
            "",
            "",
            state,
        ])?;
    }
    for Way { kind, who, name, gives, hosts, created_by, expires_at } in &report.ways {
        let (who, hosts) = (who.as_deref().unwrap_or_default(), hosts.as_deref().unwrap_or("*"));
        let what = format!("{kind} {name}: {gives}");
        let end = format!("until {expires_at}");
        table.write_record([
            "way",
            &plain(who),
            &plain(hosts),
            &plain(&what),
            &plain(created_by),
            "",
            "",
            &end,
        ])?;
    }
    for Did { at, who, host, execution_id, summary, state } in &report.did {
        let (at, id) = (at.to_string(), execution_id.to_string());
        table.write_record(["did", &plain(who), &plain(host), &plain(summary), "", &at, &id, state])?;
    }
    table.into_inner().map_err(|error| error.into_error().into())
}

/// A cell that no spreadsheet takes for a formula.
fn plain(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_is_no_formula_and_breaks_no_row() {
        let report = AccessReport {
            organization: "main".to_owned(),
            made_at: Timestamp::UNIX_EPOCH,
            since: Timestamp::UNIX_EPOCH,
            until: Timestamp::UNIX_EPOCH,
            may: vec![May {
                who: "ada".to_owned(),
                host: None,
                permissions: vec![model::access::Permission::AuditRead],
                by: vec!["auditor".to_owned(), "x (group y)".to_owned()],
                disabled: true,
            }],
            ways: vec![Way {
                kind: "api_token".to_owned(),
                who: Some("ada".to_owned()),
                name: "ci".to_owned(),
                gives: "agent.read".to_owned(),
                hosts: None,
                created_by: "ada".to_owned(),
                expires_at: Timestamp::UNIX_EPOCH,
            }],
            did: vec![Did {
                at: Timestamp::UNIX_EPOCH,
                who: "ada".to_owned(),
                host: "web-1".to_owned(),
                execution_id: model::id::ExecutionId(uuid::Uuid::nil()),
                summary: "=cmd|'/c calc'!A1, \"a\"\nb".to_owned(),
                state: "succeeded".to_owned(),
            }],
        };
        let text = String::from_utf8(csv(&report).expect("it is written")).expect("UTF-8");
        assert_eq!(
            text,
            "kind,who,host,what,by,at,execution,state\n\
             may,ada,*,audit.read,\"auditor, x (group y)\",,,disabled\n\
             way,ada,*,api_token ci: agent.read,ada,,,until 1970-01-01T00:00:00Z\n\
             did,ada,web-1,\"'=cmd|'/c calc'!A1, \"\"a\"\"\nb\",,1970-01-01T00:00:00Z,00000000-0000-0000-0000-000000000000,succeeded\n"
        );
    }
}
