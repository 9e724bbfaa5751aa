//! `opsctl audit`: who did what, and whether anybody changed it since.
//!
//! `verify` opens no connection: what it needs is the export and the key, which should be kept where the controller cannot
//! change it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use model::{
    api::audit::{AuditKey, Audited, SignedCheckpoint},
    id::OrgId,
};
use pki::{
    Verifier,
    audit::{Checkpoint, Outcome, Verification},
};
use serde::Serialize;

use crate::{
    args::{AuditCommand, AuditFilter, VerifyArgs},
    client::Client,
    clock,
    exit::{Exit, Usage},
    output::{self, Format, human},
};

const AUDIT: [&str; 3] = ["api", "v1", "audit"];
/// Findings that are shown to people.
const SHOWN: usize = 100;
/// Bytes of a line of an export; a longer one is read in parts, which are no records.
const LINE: u64 = 64 * 1024 * 1024;

/// # Errors
/// As the requests, and when a file or stdout cannot be written.
pub(crate) async fn run(client: &Client, command: AuditCommand) -> Result<Exit> {
    match command {
        AuditCommand::List { filter, limit, shown } => {
            let pages = client.pages(&AUDIT, query(filter)?, Some(limit));
            let now = clock::now();
            let header = &["SEQ", "TIME", "ACTOR", "VERB", "OBJECT", "OUTCOME", "SOURCE", "REQUEST"];
            output::list(pages, shown.output, header, |audited: &Audited| {
                let entry = &audited.entry;
                let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
                vec![
                    human::or_dash(audited.seq),
                    human::moment(entry.at, now),
                    entry.actor.clone(),
                    entry.verb.clone(),
                    entry.object.clone(),
                    entry.outcome.clone(),
                    or_dash(&entry.source),
                    or_dash(&entry.request_id),
                ]
            })
            .await?;
        }
        AuditCommand::Export { since, until, from_seq, file } => {
            let now = clock::now();
            let mut query = Vec::new();
            for (name, time) in [("since", since), ("until", until)] {
                if let Some(time) = time {
                    query.push((name, time.resolve(now).map_err(Usage)?.to_string()));
                }
            }
            query.extend(from_seq.map(|from| ("from_seq", from.to_string())));
            export(client, &query, file.as_deref()).await?;
        }
        AuditCommand::Key(shown) => {
            let key: AuditKey = client.get(&["api", "v1", "audit", "key"], &[]).await?;
            // As a file for `verify` it is JSON; there is nothing else that a person would read in it.
            let format = if shown.output == Format::Table { Format::Json } else { shown.output };
            output::show(format, &key, |_| String::new())?;
        }
        AuditCommand::Verify(args) => return verify(&args),
    }
    Ok(Exit::Succeeded)
}

fn query(filter: AuditFilter) -> Result<Vec<(&'static str, String)>> {
    let now = clock::now();
    let AuditFilter { actor, verb, object, outcome, request_id, since, until } = filter;
    let texts = [
        ("actor", actor),
        ("verb", verb),
        ("object", object),
        ("outcome", outcome),
        ("request_id", request_id),
    ];
    let mut query: Vec<(&'static str, String)> =
        texts.into_iter().filter_map(|(name, text)| Some((name, text?))).collect();
    for (name, time) in [("since", since), ("until", until)] {
        if let Some(time) = time {
            query.push((name, time.resolve(now).map_err(Usage)?.to_string()));
        }
    }
    Ok(query)
}

/// Writes an export as it comes.
async fn export(client: &Client, query: &[(&'static str, String)], file: Option<&Path>) -> Result<()> {
    let mut response = client.download(&["api", "v1", "audit", "export"], query).await?;
    let mut sink: Box<dyn io::Write> = match file {
        Some(path) => {
            Box::new(File::create(path).with_context(|| format!("cannot write '{}'", path.display()))?)
        }
        None => Box::new(io::stdout().lock()),
    };
    while let Some(chunk) = response.chunk().await.map_err(|error| client.broken(&error))? {
        sink.write_all(&chunk).context("cannot write the export")?;
    }
    sink.flush().context("cannot write the export")
}

/// What `verify` says to programs.
#[derive(Serialize)]
struct Verdict {
    organization: Option<OrgId>,
    /// When the newest checkpoint that holds was signed.
    newest_checkpoint_at: Option<Timestamp>,
    entries: u64,
    checkpoints: u64,
    last_seq: i64,
    is_well: bool,
    findings: Vec<String>,
    /// Those that are not shown included.
    findings_total: u64,
}

/// Verifies an export offline.
///
/// # Errors
/// When a file cannot be read or is not what it should be. What is wrong with the export is no error.
pub(crate) fn verify(args: &VerifyArgs) -> Result<Exit> {
    let key: AuditKey = read_json(&args.key, "a key as 'opsctl audit key' gives it")?;
    let certificate = pki::pem::decode(&key.certificate)
        .ok_or_else(|| Usage(format!("'{}' has no certificate", args.key.display())))?;
    let verifier = Verifier::new(&certificate, &key.trust_domain)
        .with_context(|| format!("'{}' is no key of controllers", args.key.display()))?;
    let after: Option<SignedCheckpoint> =
        args.after.as_ref().map(|path| read_json(path, "a checkpoint")).transpose()?;
    let kept = after.as_ref().map(|signed| Checkpoint::open(signed, &verifier)).transpose();
    let kept = kept.context("the checkpoint that was kept does not count")?;

    let organization = wanted(args, &key)?;
    let mut verification = Verification::new(&verifier, kept.as_ref());
    let what = || format!("cannot read the export '{}'", args.export.display());
    if args.export == Path::new("-") {
        lines(io::stdin().lock(), &mut verification).with_context(what)?;
    } else {
        let file = File::open(&args.export).with_context(what)?;
        lines(BufReader::with_capacity(1 << 20, file), &mut verification).with_context(what)?;
    }
    let outcome = verification.finish();
    let unmet = unmet(args, organization, &outcome);
    let is_well = outcome.is_well() && unmet.is_empty();
    if let Some(path) = &args.keep {
        keep(path, outcome.newest.as_ref().filter(|_| is_well))?;
    }
    show(args.shown.output, &outcome, unmet)?;
    Ok(if is_well { Exit::Succeeded } else { Exit::Failed })
}

/// The organization that was asked for.
fn wanted(args: &VerifyArgs, key: &AuditKey) -> Result<Option<OrgId>> {
    let Some(wanted) = &args.organization else { return Ok(None) };
    if let Ok(id) = wanted.parse() {
        return Ok(Some(id));
    }
    let of_key = key.organization.as_ref().filter(|organization| organization.name == *wanted);
    let unknown =
        || Usage(format!("'{}' does not know an organization '{wanted}': give its id", args.key.display()));
    Ok(Some(of_key.ok_or_else(unknown)?.id))
}

/// What was asked for and is not so, though the export may be well.
fn unmet(args: &VerifyArgs, wanted: Option<OrgId>, outcome: &Outcome) -> Vec<String> {
    let mut unmet = Vec::new();
    if let (Some(wanted), Some(is)) = (wanted, outcome.organization)
        && wanted != is
    {
        unmet.push(format!("another organization: it is of {is}, not of {wanted}"));
    }
    if let Some(seconds) = args.not_older_than {
        let since = clock::now() - SignedDuration::from_secs(seconds);
        match &outcome.newest {
            Some(newest) if newest.at >= since => {}
            Some(newest) => {
                unmet.push(format!("too old: its newest checkpoint was signed at {}", newest.at));
            }
            None => unmet.push("too old: it has no checkpoint that holds".to_owned()),
        }
    }
    unmet
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read '{}'", path.display()))?;
    Ok(serde_json::from_str(&text)
        .map_err(|error| Usage(format!("'{}' is not {what}: {error}", path.display())))?)
}

fn lines(mut reader: impl BufRead, verification: &mut Verification<'_>) -> io::Result<()> {
    let mut line = Vec::new();
    while reader.by_ref().take(LINE).read_until(b'\n', &mut line)? > 0 {
        verification.line(&line);
        line.clear();
    }
    Ok(())
}

/// Writes the newest checkpoint that holds, unless something is wrong: what is kept is believed later.
fn keep(path: &PathBuf, newest: Option<&SignedCheckpoint>) -> Result<()> {
    let Some(newest) = newest else {
        output::note("no checkpoint is kept: the export is not well");
        return Ok(());
    };
    let text = serde_json::to_string_pretty(newest).context("cannot write a checkpoint as JSON")?;
    std::fs::write(path, text + "\n").with_context(|| format!("cannot write '{}'", path.display()))
}

fn show(format: Format, outcome: &Outcome, unmet: Vec<String>) -> Result<()> {
    let total = (outcome.findings.len() + unmet.len()) as u64 + outcome.more;
    let found = outcome.findings.iter().map(ToString::to_string);
    let verdict = Verdict {
        organization: outcome.organization,
        newest_checkpoint_at: outcome.newest.as_ref().map(|newest| newest.at),
        entries: outcome.entries,
        checkpoints: outcome.checkpoints,
        last_seq: outcome.last_seq,
        is_well: total == 0,
        findings: unmet.into_iter().chain(found).take(SHOWN).collect(),
        findings_total: total,
    };
    output::show(format, &verdict, |verdict| {
        let mut text: String = verdict.findings.iter().map(|finding| format!("{finding}\n")).collect();
        let left = verdict.findings_total - verdict.findings.len() as u64;
        if left > 0 {
            text += &format!("… and {left} more\n");
        }
        let checked = format!(
            "{} entries up to number {}, {} checkpoints",
            verdict.entries, verdict.last_seq, verdict.checkpoints
        );
        text += &match verdict.findings_total {
            0 => format!("all is well: {checked}\n"),
            1 => format!("1 finding in {checked}\n"),
            total => format!("{total} findings in {checked}\n"),
        };
        // What lies behind that time, or in another organization, this says nothing of.
        let of = verdict
            .organization
            .map_or_else(|| "unknown".to_owned(), |organization| organization.to_string());
        let at = verdict.newest_checkpoint_at.map_or_else(|| "none".to_owned(), |at| at.to_string());
        text + &format!("organization {of}, newest checkpoint {at}\n")
    })
}
