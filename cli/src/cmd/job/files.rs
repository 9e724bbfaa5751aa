//! Documents from files: found, taken apart, and checked before anything is sent.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::Result;
use model::{
    api::{job::DocumentProblem, output::Stream},
    job, limits,
};

use crate::{args::Files, exit::Usage, output};

/// Bytes of one file at most: it may have many documents.
const FILE_BYTES: usize = 64 * limits::DOCUMENT_BYTES;

/// One document of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document {
    pub(super) path: PathBuf,
    /// Lines of the file that stand before it.
    pub(super) before: usize,
    pub(super) text: String,
}

impl Document {
    /// The job that it is, or what is wrong with it, at its place in the file.
    pub(super) fn parse(&self) -> Result<job::Job, DocumentProblem> {
        self.read(job::parse)
    }

    fn read<T>(&self, parse: fn(&str) -> Result<T, job::BadDocument>) -> Result<T, DocumentProblem> {
        parse(&self.text).map_err(|bad| self.placed(bad.into()))
    }

    /// With the line in the file for the line in the document.
    pub(super) fn placed(&self, mut problem: DocumentProblem) -> DocumentProblem {
        problem.line = self.before + problem.line.max(1);
        problem.column = problem.column.max(1);
        problem
    }

    /// `FILE:LINE:COLUMN: text`, as compilers say it and editors read it.
    pub(super) fn complaint(&self, problem: &DocumentProblem) -> String {
        format!("{}:{}:{}: {}", shown(&self.path), problem.line, problem.column, problem.problem)
    }
}

pub(in crate::cmd) fn shown(path: &Path) -> String {
    if path == Path::new("-") { "<stdin>".to_owned() } else { path.display().to_string() }
}

/// All documents of the files, in the order in which they were named; those of a folder by name.
///
/// # Errors
/// When one cannot be read, or there is no document in it.
pub(super) fn read(files: &Files) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for given in &files.files {
        let mut paths = Vec::new();
        if given != Path::new("-") && given.is_dir() {
            walk(given, files.recursive, &mut paths).map_err(|error| unreadable(given, &error))?;
            if paths.is_empty() {
                let why = "has no *.yaml, *.yml or *.json";
                return Err(Usage(format!("the folder {} {why}", given.display())).into());
            }
        } else {
            paths.push(given.clone());
        }
        for path in paths {
            let found = split(&path, &text_of(&path)?);
            if found.is_empty() {
                return Err(Usage(format!("{} has no document", shown(&path))).into());
            }
            documents.extend(found);
        }
    }
    Ok(documents)
}

/// The jobs of all documents. What is wrong with any of them is said on stderr.
///
/// # Errors
/// When one is no job, or two have the same name.
pub(super) fn check(documents: Vec<Document>) -> Result<Vec<(Document, job::Job)>> {
    check_as(documents, "job", job::parse, |job| &job.name)
}

/// What all documents are as `parse` reads them.
///
/// # Errors
/// As [`check`].
pub(super) fn check_as<T>(
    documents: Vec<Document>,
    noun: &str,
    parse: fn(&str) -> Result<T, job::BadDocument>,
    name: fn(&T) -> &str,
) -> Result<Vec<(Document, T)>> {
    let total = documents.len();
    let mut all: Vec<(Document, T)> = Vec::with_capacity(total);
    let mut complaints = Vec::new();
    for document in documents {
        match document.read(parse) {
            Ok(one) => match all.iter().find(|(_, other)| name(other) == name(&one)) {
                Some((other, _)) => {
                    let (at, line) = (shown(&other.path), other.before + 1);
                    complaints.push(format!(
                        "{}:{}:1: the {noun} '{}' is also in {at}:{line}",
                        shown(&document.path),
                        document.before + 1,
                        name(&one)
                    ));
                }
                None => all.push((document, one)),
            },
            Err(problem) => complaints.push(document.complaint(&problem)),
        }
    }
    if complaints.is_empty() {
        return Ok(all);
    }
    complain(&complaints);
    let wrong = complaints.len();
    Err(Usage(format!("{wrong} of {total} documents cannot be used; nothing was sent")).into())
}

/// Lines on stderr without our name in front, for editors.
pub(in crate::cmd) fn complain(lines: &[String]) {
    for line in lines {
        // That stderr is gone changes nothing about what is wrong.
        let _ = output::write(Stream::Stderr, format!("{}\n", output::plain(line)).as_bytes());
    }
}

fn walk(folder: &Path, recursive: bool, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    entries.sort();
    for path in entries {
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_link = path.is_symlink();
        if is_hidden {
            continue;
        }
        if path.is_dir() {
            // A link to a folder may lead back here.
            if recursive && !is_link {
                walk(&path, recursive, found)?;
            }
        } else if path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml" || ext == "json") {
            found.push(path);
        }
    }
    Ok(())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Usage {
    Usage(format!("cannot read {}: {error}", shown(path)))
}

/// The whole text of a file, or of stdin.
///
/// # Errors
/// When it cannot be read, is too long, or no text.
pub(in crate::cmd) fn text_of(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    // One byte more than is allowed is enough to find out that it is too much.
    let most = FILE_BYTES as u64 + 1;
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    read.map_err(|error| unreadable(path, &error))?;
    if bytes.len() > FILE_BYTES {
        return Err(Usage(format!("{} is over the limit of {FILE_BYTES} bytes", shown(path))).into());
    }
    String::from_utf8(bytes).map_err(|_| Usage(format!("{} is not UTF-8 text", shown(path))).into())
}

/// Takes a file apart at its lines `---`. YAML has them nowhere else at the beginning of a line, not even in a block of
/// text.
fn split(path: &Path, text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut current = Document { path: path.to_owned(), before: 0, text: String::new() };
    for (index, line) in text.strip_prefix('\u{feff}').unwrap_or(text).split_inclusive('\n').enumerate() {
        match line
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
        {
            Some(rest) => {
                let is_alone = is_blank(rest);
                // What stands behind the dashes belongs to the document.
                let next = Document {
                    path: path.to_owned(),
                    before: if is_alone { index + 1 } else { index },
                    text: if is_alone { String::new() } else { line.to_owned() },
                };
                documents.push(std::mem::replace(&mut current, next));
            }
            None => current.text.push_str(line),
        }
    }
    documents.push(current);
    documents.retain(|document| !document.text.lines().all(is_blank));
    documents
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<(usize, String)> {
        split(Path::new("a.yaml"), text).into_iter().map(|part| (part.before, part.text)).collect()
    }

    fn files(path: &Path, recursive: bool) -> Files {
        Files { files: vec![path.to_owned()], recursive }
    }

    #[test]
    fn a_file_has_several_documents() {
        assert_eq!(parts("a: 1\n"), [(0, "a: 1\n".to_owned())]);
        assert_eq!(parts("# why\n---\na: 1\n--- # next\nb: 2"), [(2, "a: 1\n".into()), (4, "b: 2".into())]);
        assert_eq!(parts("a: 1\r\n---\r\nb: 2\r\n"), [(0, "a: 1\r\n".into()), (2, "b: 2\r\n".into())]);
        assert_eq!(parts("--- {a: 1}\n"), [(0, "--- {a: 1}\n".into())]);
        assert_eq!(parts("a: |\n  ---\n----\n"), [(0, "a: |\n  ---\n----\n".into())], "no marker");
        assert!(parts("\n---\n# nothing\n---\n").is_empty());
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let text = "name: a\nsteps: [{name: one, run: x}]\n---\n\nname: b\nsteps:\n  - {name: one, rnu: x}\n";
        let documents = split(Path::new("jobs.yaml"), text);
        assert_eq!(documents[0].parse().unwrap().name, "a");
        let problem = documents[1].parse().unwrap_err();
        assert_eq!(problem.line, 7);
        let complaint = documents[1].complaint(&problem);
        assert!(complaint.starts_with("jobs.yaml:7:17: ") && complaint.contains("rnu"), "{complaint}");
    }

    #[test]
    fn a_folder_is_read_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir(path.join("more")).unwrap();
        for name in ["b.yml", "a.yaml", "c.json", "d.txt", ".e.yaml", "more/f.yaml"] {
            fs::write(path.join(name), "name: x").unwrap();
        }
        let names = |recursive| {
            let documents = read(&files(path, recursive)).unwrap();
            documents
                .iter()
                .map(|document| document.path.strip_prefix(path).unwrap().display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["a.yaml", "b.yml", "c.json"]);
        assert_eq!(names(true), ["a.yaml", "b.yml", "c.json", "more/f.yaml"]);
        assert!(read(&files(&path.join("none.yaml"), false)).is_err());
    }

    #[test]
    fn nothing_is_used_unless_all_can_be() {
        let job = "name: a\nsteps: [{name: one, run: x}]\n";
        let of = |text: &str| check(split(Path::new("a.yaml"), text));
        assert_eq!(of(job).unwrap().len(), 1);
        assert!(of(&format!("{job}---\nname: b\n")).is_err());
        let twice = of(&format!("{job}---\n{job}")).unwrap_err();
        assert!(twice.to_string().starts_with("1 of 2"), "{twice}");
    }
}
