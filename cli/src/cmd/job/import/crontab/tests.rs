use proptest::prelude::*;

use super::*;

/// Of a system, as a distribution ships it.
const SYSTEM: &str = "\
# /etc/crontab: system-wide crontab
SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin
MAILTO=ops@example.com

# .---------------- minute (0 - 59)
# |  .------------- hour (0 - 23)
# *  *  *  *  * user-name command to be executed
17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly
25 6\t* * *\troot\ttest -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }
#*/5 * * * * root /bin/off
@daily www-data /srv/shop/bin/clean --older 30
";

/// Of a person.
const USER: &str = r#"
CRON_TZ = Europe/Berlin
GREETING="hello, world"
SHELL=/bin/bash
HOME=/srv/ada

# Back up the shop
# every night, weekdays only
30 2 * * mon-fri flock -n /run/lock/b.lock /srv/ada/bin/backup.sh --to "$TARGET" >/dev/null 2>&1
0 9 1,15 */2 * mail -s "date \%F" ada%Hello Ada,%this is 100\% true.%
@reboot /usr/bin/python3 /srv/ada/listen.py
*/10 * * * * sudo systemctl reload nginx
"#;

fn named<'a>(import: &'a Import, name: &str) -> &'a Job {
    let found = import.drafts.iter().find(|draft| draft.job.name == name);
    &found.unwrap_or_else(|| panic!("no {name}: {:?}", import.drafts)).job
}

fn remarks(import: &Import, field: &str) -> Vec<(usize, Option<String>, String)> {
    let of_field = import.remarks.iter().filter(|remark| remark.field == field);
    of_field.map(|remark| (remark.line, remark.job.clone(), remark.problem.clone())).collect()
}

#[test]
fn a_crontab_of_the_system() {
    let import = read(SYSTEM, true, None, None).unwrap();
    let names: Vec<(usize, &str)> =
        import.drafts.iter().map(|draft| (draft.line, draft.job.name.as_str())).collect();
    assert_eq!(names, [(9, "run-parts"), (10, "run-parts-2"), (12, "clean")]);
    let first = &named(&import, "run-parts").steps[0];
    assert_eq!(first.run.as_deref(), Some("cd / && run-parts --report /etc/cron.hourly"));
    assert_eq!((first.user.as_deref(), first.sandbox), (Some("root"), Some(model::sandbox::Profile::None)));
    assert!(first.env["PATH"].starts_with("/usr/local/sbin:") && first.env.len() == 1);
    let clean = &named(&import, "clean");
    assert_eq!((clean.steps[0].user.as_deref(), clean.steps[0].sandbox), (Some("www-data"), None));
    assert_eq!(clean.description, "", "what is switched off describes nothing");
    assert_eq!(remarks(&import, "MAILTO").len(), 1);
    let schedules = remarks(&import, "schedule");
    assert_eq!(schedules.len(), 3);
    assert_eq!(schedules[0].1.as_deref(), Some("run-parts"));
    assert!(schedules[0].2.starts_with("'17 * * * *' (time zone: of the host)"), "{schedules:?}");
    assert_eq!(remarks(&import, "user").len(), 1, "root is told once");
    assert_eq!(remarks(&import, "hosts").len(), 1);
}

#[test]
fn a_crontab_of_a_person() {
    let targets = JobTargets { hosts: vec!["web-1".to_owned()], ..JobTargets::default() };
    let import = read(USER, false, None, Some(&targets)).unwrap();
    let names: Vec<&str> = import.drafts.iter().map(|draft| draft.job.name.as_str()).collect();
    assert_eq!(names, ["backup.sh", "mail", "listen.py", "systemctl"]);
    let backup = named(&import, "backup.sh");
    assert_eq!(backup.description, "Back up the shop every night, weekdays only");
    assert_eq!(backup.targets.as_ref(), Some(&targets));
    let step = &backup.steps[0];
    assert_eq!(step.env["GREETING"], "hello, world");
    assert_eq!(step.cwd.as_deref(), Some("/srv/ada"));
    let argv = step.argv.as_ref().unwrap();
    assert_eq!(argv[..2], ["/bin/bash", "-c"]);
    assert!(argv[2].ends_with(r#"--to "$TARGET" >/dev/null 2>&1"#), "{argv:?}");
    let mail = &named(&import, "mail").steps[0].argv.as_ref().unwrap()[2];
    assert_eq!(
        mail,
        "{ mail -s \"date %F\" ada\n} <<'END_OF_INPUT'\nHello Ada,\nthis is 100% true.\n\nEND_OF_INPUT"
    );
    let schedules = remarks(&import, "schedule");
    assert!(schedules[0].2.contains("'30 2 * * mon-fri' (time zone: Europe/Berlin)"), "{schedules:?}");
    assert!(schedules[2].2.starts_with("@reboot"), "{schedules:?}");
    assert_eq!(remarks(&import, "command").len(), 1, "sudo");
    assert_eq!(remarks(&import, "user").len(), 1, "whose it is");
    assert!(remarks(&import, "hosts").is_empty());
    // Said, it is that user's.
    let import = read(USER, false, Some("ada"), Some(&targets)).unwrap();
    assert_eq!(import.drafts[0].job.steps[0].user.as_deref(), Some("ada"));
    assert!(remarks(&import, "user").is_empty());
}

#[test]
fn what_is_no_crontab_says_where() {
    for (text, line, words) in [
        ("hello\n", 1, "a line is NAME=VALUE, a comment, or five fields"),
        ("5 4\n", 1, "the day of the month is missing"),
        ("# a\n\n60 * * * * x\n", 3, "the minute '60' has '60', which is not from 0 to 59"),
        ("* * * * mox x\n", 1, "day of the week 'mox'"),
        ("* * 0 * * x\n", 1, "day of the month '0'"),
        ("*/0 * * * * x\n", 1, "behind '/'"),
        ("5-1 * * * * x\n", 1, "begins behind its end"),
        ("+5 * * * * x\n", 1, "minute '+5'"),
        ("1,,2 * * * * x\n", 1, "minute '1,,2'"),
        ("* * * * *\n", 1, "the command is missing"),
        ("* * * * * %input\n", 1, "the command is missing"),
        ("A=1\n@noon x\n", 2, "'@noon' is no schedule"),
        ("9LIVES=1\n", 1, "'9LIVES' is no name of a variable"),
        ("name: a job\nsteps: []\n", 1, "'name:'"),
    ] {
        let bad = read(text, false, None, None).unwrap_err();
        assert!(bad.line == line && bad.why.contains(words), "{text}: {bad:?}");
    }
    let bad = read("* * * * * root\n", true, None, None).unwrap_err();
    assert!(bad.why.contains("the user stands before it"), "{bad:?}");
    for good in [
        "0 0 * * 5-7 x",
        "0 0 * * fri-sun x",
        "-*/5 * * * * x",
        "0~30 * * * * x",
        "@Hourly x",
        "0 0 * JAN,dec Sun x",
    ] {
        assert!(read(good, false, None, None).is_ok(), "{good}: {:?}", read(good, false, None, None));
    }
}

#[test]
fn assignments() {
    for (line, want) in [
        ("A=1", Some(("A", "1"))),
        ("A = \"b c\" ", Some(("A", "b c"))),
        ("'A'= 'x\"y'", Some(("A", "x\"y"))),
        ("A=", Some(("A", ""))),
        ("A=\"open", Some(("A", "\"open"))),
        ("@daily X=1", None),
        ("* * * * * X=1 y", None),
        ("'open", None),
    ] {
        assert_eq!(assignment(line), want, "{line}");
    }
}

#[test]
fn the_path_says_whose_form_it_is() {
    for (path, want) in [
        ("/etc/crontab", true),
        ("/etc/cron.d/backup", true),
        ("backup/cron.d/x", true),
        ("crontab", false),
        ("-", false),
        ("/var/spool/cron/crontabs/root", false),
    ] {
        assert_eq!(is_of_system(Path::new(path)), want, "{path}");
    }
}

proptest! {
    #[test]
    fn no_text_is_too_much(text in "(\\PC|[\n\r\t%\\\\=#@*/,\"' ]|root|MAILTO|@daily|\\* \\* \\* \\* \\* ){0,40}", system: bool) {
        if let Ok(import) = read(&text, system, None, None) {
            for draft in &import.drafts {
                // What it makes is a job, or the text has what none can have.
                let is_odd = text.contains(char::is_control);
                prop_assert!(draft.job.validate().is_ok() || is_odd, "{:?}", draft.job.validate());
            }
        }
    }
}
