//! `opsctl job validate`: whether documents are jobs, by this program or also by the controller.

use anyhow::Result;
use model::api::job::{DocumentProblem, ValidateJob, Validity};
use serde::Serialize;

use super::{
    JOBS,
    files::{self, Document},
};
use crate::{
    args::{Shown, ValidateArgs},
    client::Client,
    exit::Exit,
    output::{self, Format, Table},
};

/// One document and what was found.
#[derive(Debug, Serialize)]
struct Checked {
    file: String,
    /// Where it begins in its file.
    line: usize,
    #[serde(flatten)]
    validity: Validity,
}

/// # Errors
/// When a file cannot be read, and when stdout is closed or full.
pub(super) fn local(args: &ValidateArgs) -> Result<Exit> {
    let documents = files::read(&args.files)?;
    let checked = documents.iter().map(|document| (document, of_document(document))).collect();
    tell(checked, args.shown)
}

/// Asks the controller about all that this program finds nothing wrong with.
///
/// # Errors
/// As [`local`] and the requests.
pub(super) async fn by_controller(client: &Client, args: &ValidateArgs) -> Result<Exit> {
    let documents = files::read(&args.files)?;
    let [api, version, jobs] = JOBS;
    let mut checked = Vec::new();
    for document in &documents {
        let mut validity = of_document(document);
        if validity.valid {
            let request = ValidateJob { document: document.text.clone() };
            validity = client.post(&[api, version, jobs, "validate"], &request).await?;
            validity.problems =
                validity.problems.into_iter().map(|problem| document.placed(problem)).collect();
        }
        checked.push((document, validity));
    }
    tell(checked, args.shown)
}

fn of_document(document: &Document) -> Validity {
    match document.parse() {
        Ok(job) => Validity { valid: true, name: Some(job.name), ..Validity::default() },
        Err(problem) => Validity { valid: false, problems: vec![problem], ..Validity::default() },
    }
}

fn tell(checked: Vec<(&Document, Validity)>, shown: Shown) -> Result<Exit> {
    let all_valid = checked.iter().all(|(_, validity)| validity.valid);
    if shown.output == Format::Table {
        let complaint = |document: &Document, problem: &DocumentProblem| document.complaint(problem);
        let complaints: Vec<String> = checked
            .iter()
            .flat_map(|(document, validity)| {
                validity.problems.iter().map(move |problem| complaint(document, problem))
            })
            .collect();
        files::complain(&complaints);
    }
    let checked: Vec<Checked> = checked
        .into_iter()
        .map(|(document, validity)| Checked {
            file: document.path.display().to_string(),
            line: document.before + 1,
            validity,
        })
        .collect();
    output::show(shown.output, &checked, |checked| {
        let mut table = Table::new(&["FILE", "LINE", "NAME", "VALID"]);
        for one in checked {
            let name = one.validity.name.clone().unwrap_or_else(|| "-".to_owned());
            let valid = if one.validity.valid { "yes" } else { "no" };
            table.row([one.file.clone(), one.line.to_string(), name, valid.to_owned()]);
        }
        table.take()
    })?;
    Ok(if all_valid { Exit::Succeeded } else { Exit::Usage })
}
