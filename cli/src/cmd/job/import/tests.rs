use model::job::Step;

use super::*;

fn draft(run: &str) -> Draft {
    let step = Step { name: "a".to_owned(), run: Some(run.to_owned()), ..Step::default() };
    let job = Job { name: "job".to_owned(), steps: vec![step], ..Job::default() };
    Draft { line: 3, title: "what it\nwas".to_owned(), job }
}

fn args(dir: Option<&Path>, force: bool, strict: bool) -> ImportArgs {
    ImportArgs {
        file: PathBuf::from("source"),
        dir: dir.map(Path::to_owned),
        force,
        strict,
        selector: None,
        target: Vec::new(),
        shown: crate::args::Shown { output: Format::Json },
    }
}

fn left_over(job: &str) -> Remark {
    Remark {
        fate: Fate::LeftOver,
        line: 3,
        job: Some(job.to_owned()),
        field: "schedule".to_owned(),
        problem: "none\nyet".to_owned(),
        advice: "wait".to_owned(),
    }
}

#[test]
fn a_document_is_what_was_meant() {
    let remarks = [left_over("job"), left_over("other")];
    for run in [
        "echo hi",
        "a\nb\n",
        "  leading\n and trailing  \n\n",
        "tab\there",
        "#!/bin/sh\n\techo 'x' \"y\"\n",
        "a: b # c",
        "- x\n---\n...\n",
        "\u{1b}[31m\u{85}\u{2028}\u{feff}\u{7f}",
        "a\r\nb\rc",
        "|\n>\n%&*!",
        "yes",
        "\"",
    ] {
        let draft = draft(run);
        let text = document(Path::new("/tmp/source.yaml"), &draft, &remarks).unwrap();
        assert_eq!(model::job::parse(&text).unwrap(), draft.job, "{text}");
        assert!(
            text.starts_with(
                "# From source.yaml, line 3: what it was\n# Line 3: schedule: left over: none yet; wait\n"
            ),
            "{text}"
        );
        assert_eq!(text.lines().filter(|line| line.starts_with("# Line")).count(), 1);
    }
    assert!(document(Path::new("-"), &draft("a\0b"), &[]).is_err());
    assert!(document(Path::new("-"), &draft(" "), &[]).is_err());
}

#[test]
fn files_are_not_replaced_unless_that_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new");
    let import = |run: &str, left: bool| Import {
        drafts: vec![draft(run)],
        remarks: if left { vec![left_over("job")] } else { Vec::new() },
    };
    let text = || fs::read_to_string(path.join("job.yaml")).unwrap();
    assert_eq!(write(&args(Some(&path), false, true), import("one", true)).unwrap(), Exit::Failed);
    assert!(!path.exists(), "with --strict nothing is written");
    assert_eq!(write(&args(Some(&path), false, true), import("one", false)).unwrap(), Exit::Succeeded);
    assert!(text().contains("run: one"));
    let error = write(&args(Some(&path), false, false), import("two", true)).unwrap_err();
    assert_eq!(Exit::of_error(&error), Exit::Usage, "{error:#}");
    assert!(text().contains("run: one"));
    assert_eq!(write(&args(Some(&path), true, false), import("two", true)).unwrap(), Exit::Succeeded);
    assert!(text().contains("run: two"));
    // What makes no job is told, and the rest is written.
    let mut both = import("three", false);
    both.drafts.push(Draft { job: Job { name: "empty".to_owned(), ..Job::default() }, ..draft("x") });
    assert_eq!(write(&args(Some(&path), true, false), both).unwrap(), Exit::Failed);
    assert!(text().contains("run: three") && !path.join("empty.yaml").exists());
}
