use super::*;

fn root() -> Own {
    Own { name: "root".to_owned(), is_root: true, link_uid: None }
}

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap()
}

fn argv(words: &[&str]) -> proto::Command {
    let argv = words.iter().map(|&word| word.to_owned()).collect();
    let program = Some(Program::Argv(proto::Argv { argv }));
    proto::Command { program, timeout_ms: 10_500, ..proto::Command::default() }
}

fn as_user(user: &str) -> proto::Command {
    proto::Command { user: user.to_owned(), ..argv(&["true"]) }
}

fn check(text: &str, mut command: proto::Command) -> Result<proto::Command, Forbidden> {
    policy(text).apply(&mut command, &root()).map(|()| command)
}

#[test]
fn each_rule_says_no_by_its_name() {
    assert!(check("", as_user("www")).is_ok());
    assert_eq!(check("paused = true", as_user("")), Err(Forbidden::Paused));
    assert_eq!(check("allow_adhoc = false", as_user("")), Err(Forbidden::Adhoc));
    assert!(check("users = ['www']", as_user("www")).is_ok());
    assert_eq!(check("users = ['www']", as_user("")), Err(Forbidden::User("dynamic".to_owned())));
    assert!(check("users = ['dynamic']", as_user("")).is_ok());
    let root = check("", as_user("root")).unwrap_err();
    assert_eq!(root, Forbidden::Privileged(Profile::Standard, "root".to_owned()));
    let unconfined = "users = ['www']\n[sandbox]\ndefault = 'none'\nunconfined = 'all'";
    assert_eq!(check(unconfined, as_user("")), Err(Forbidden::User("root".to_owned())));
    let other = Own { name: "agent".to_owned(), is_root: false, link_uid: None };
    let denied = policy("").apply(&mut as_user("www"), &other).unwrap_err();
    assert_eq!(denied.to_string(), "the agent runs as 'agent', not as root, and cannot run as 'www'");
    assert_eq!(policy("").apply(&mut as_user("agent"), &other), Ok(()));
    let limit = check("max_timeout_seconds = 10", as_user(""));
    assert_eq!(limit, Err(Forbidden::Timeout { allowed: 10, wanted: 11 }));
    assert!(limit.unwrap_err().to_string().ends_with("(max_timeout_seconds)"));
}

#[test]
fn no_run_is_the_link() {
    let beside = |link_uid, text: &str, mut command| {
        policy(text).apply(&mut command, &Own { link_uid: Some(link_uid), ..root() })
    };
    let (first, last) = limits::DYNAMIC_UIDS;
    assert_eq!(beside(first, "", as_user("")), Err(Forbidden::LendsLinkUser(first)));
    assert_eq!(beside(last, "", as_user("")), Err(Forbidden::LendsLinkUser(last)));
    assert_eq!(beside(first - 1, "", as_user("")), Ok(()));
    assert_eq!(beside(first, "", as_user("nobody")), Ok(()));
    let nobody = User::from_name("nobody").unwrap().unwrap().uid.as_raw();
    assert_eq!(beside(nobody, "", as_user("nobody")), Err(Forbidden::LinkUser("nobody".to_owned())));
    assert_eq!(beside(nobody, "", as_user("")), Ok(()));
}

#[test]
fn the_output_is_capped() {
    let capped = |ordered| {
        let command = proto::Command { output_limit_bytes: ordered, ..argv(&["true"]) };
        check("max_output_bytes = 1000", command).unwrap().output_limit_bytes
    };
    assert_eq!([0, 999, 1001].map(capped), [1000, 999, 1000]);
    assert_eq!(check("", argv(&["true"])).unwrap().output_limit_bytes, 0);
}

const LISTED: &str = "
    [[commands]]
    program = '/usr/bin/systemctl'
    arguments = ['restart', 'web']
    [[commands]]
    program = '/usr/bin/journalctl'
    arguments_begin = ['-u', 'web']
    [[commands]]
    program = '/usr/bin/uptime'
";

#[test]
fn only_listed_commands_run_where_there_is_a_list() {
    let yes: [&[&str]; 4] = [
        &["/usr/bin/systemctl", "restart", "web"],
        &["/usr/bin/journalctl", "-u", "web"],
        &["/usr/bin/journalctl", "-u", "web", "-n", "5"],
        &["/usr/bin/uptime"],
    ];
    for words in yes {
        assert!(check(LISTED, argv(words)).is_ok(), "{words:?}");
    }
    let no: [&[&str]; 7] = [
        &["systemctl", "restart", "web"],
        &["/usr/bin/systemctl", "restart", "web", "db"],
        &["/usr/bin/systemctl", "restart"],
        &["/usr/bin/../bin/uptime"],
        &["/usr/bin/journalctl", "-u", "website"],
        &["/usr/bin/uptime", "-p"],
        &[],
    ];
    for words in no {
        assert!(matches!(check(LISTED, argv(words)), Err(Forbidden::Command(_))), "{words:?}");
    }
    assert!(check("commands = []", argv(&["/usr/bin/uptime"])).is_err());
}

#[test]
fn a_listed_command_is_another_one_in_an_image() {
    let contained =
        || proto::Command { image: "app:1".to_owned(), ..argv(&["/usr/bin/systemctl", "restart", "web"]) };
    let sandbox = "[sandbox]\ncontainers = true";
    assert!(check(sandbox, contained()).is_ok());
    let denied = check(&format!("{LISTED}\n{sandbox}"), contained()).unwrap_err();
    assert!(denied.to_string().contains("'app:1' (sandbox.images"), "{denied}");
    assert!(check(&format!("{LISTED}\n{sandbox}\nimages = ['app:1']"), contained()).is_ok());
    let not_listed = proto::Command { image: "app:1".to_owned(), ..argv(&["/bin/sh"]) };
    let denied = check(&format!("{LISTED}\n{sandbox}\nimages = ['app:1']"), not_listed).unwrap_err();
    assert_eq!(denied, Forbidden::Command("/bin/sh".to_owned()));
}

#[test]
fn what_is_no_listed_command_must_be_allowed_by_name() {
    let shell = || proto::Command { program: Some(Program::Shell("id".to_owned())), ..argv(&[]) };
    let script = || proto::Command { program: Some(Program::Script(proto::Script::default())), ..argv(&[]) };
    assert!(check("", shell()).is_ok() && check("", script()).is_ok());
    assert_eq!(check("allow_scripts = false", script()), Err(Forbidden::Scripts));
    assert_eq!(check("allow_shell = false", shell()), Err(Forbidden::Shell));
    assert_eq!(check(LISTED, shell()), Err(Forbidden::Shell));
    assert_eq!(check(LISTED, script()), Err(Forbidden::Scripts));
    assert!(check(&format!("allow_scripts = true\n{LISTED}"), script()).is_ok());

    let names = ["LANG".to_owned(), "LD_PRELOAD".to_owned()];
    assert_eq!(policy("").check_environment(&names), Ok(()));
    assert_eq!(policy(LISTED).check_environment(&names), Err(Forbidden::Environment("LANG".to_owned())));
    let some = policy(&format!("environment = ['LANG']\n{LISTED}"));
    assert_eq!(some.check_environment(&names), Err(Forbidden::Environment("LD_PRELOAD".to_owned())));
    assert_eq!(some.check_environment(&names[..1]), Ok(()));
}

#[test]
fn runs_begin_below_a_root_with_all_links_resolved() {
    let folder = tempfile::tempdir().unwrap();
    let (root, outside) = (folder.path().join("root"), folder.path().join("rootless"));
    std::fs::create_dir_all(root.join("below")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, root.join("out")).unwrap();
    std::os::unix::fs::symlink(root.join("below"), outside.join("in")).unwrap();
    let text = format!("working_roots = ['{}']", root.display());
    let cwd = |path: PathBuf| {
        let command = proto::Command { cwd: path.display().to_string(), ..argv(&["true"]) };
        check(&text, command).map(|command| PathBuf::from(command.cwd))
    };
    let real = |path: PathBuf| std::fs::canonicalize(path).unwrap();
    assert_eq!(cwd(root.clone()), Ok(real(root.clone())));
    assert_eq!(cwd(outside.join("in")), Ok(real(root.join("below"))), "the run gets what was looked at");
    assert_eq!(cwd(root.join("out")), Err(Forbidden::WorkingRoot(real(outside.clone()))));
    assert_eq!(cwd(root.join("below/../../rootless")), Err(Forbidden::WorkingRoot(real(outside))));
    assert!(matches!(cwd(root.join("missing")), Err(Forbidden::UnknownFolder { .. })));
    assert!(matches!(cwd("below".into()), Err(Forbidden::UnknownFolder { .. })));
    // The home of a user is a folder like any other; a user that exists for one run begins in its own.
    let unconfined = format!("{text}\n[sandbox]\ndefault = 'none'\nunconfined = 'all'");
    assert!(matches!(check(&unconfined, as_user("root")), Err(Forbidden::WorkingRoot(_))));
    assert!(check(&text, as_user("")).is_ok());
    assert!(matches!(check(&text, as_user("no-such-user")), Err(Forbidden::UnknownFolder { .. })));
}

#[test]
fn a_file_that_is_not_understood_allows_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.toml");
    assert_eq!(Policy::read(&path), Ok(Policy::default()));
    for (text, named) in [
        ("\npause = true", "line 2: "),
        ("users = 'root'", "line 1: "),
        ("working_roots = ['here']", "'here' is not an absolute path"),
        ("max_output_bytes = 0", "line 1: "),
        ("[[commands]]\nprogram = 'uptime'", "'uptime' is not an absolute path"),
        ("[[commands]]\nprogram = '/a'\narguments = []\narguments_begin = []", "both"),
        ("paused = ", "line 1: "),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = Policy::read(&path).unwrap_err().to_string();
        assert!(error.contains("nothing is allowed") && error.contains(named), "{text}: {error}");
    }
}

#[test]
fn what_is_shown_can_be_read_back() {
    let text = format!("users = ['www']\nmax_output_bytes = 5\nworking_roots = ['/srv']\n{LISTED}");
    let shown = toml::to_string(&policy(&text)).unwrap();
    assert_eq!(policy(&shown), policy(&text), "{shown}");
    assert_eq!(policy(&toml::to_string(&Policy::default()).unwrap()), Policy::default());
}

#[test]
fn the_example_is_a_policy() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/policy.toml");
    let text = std::fs::read_to_string(example).unwrap();
    assert_eq!(policy(&text), Policy::default(), "as it comes it changes nothing");
    // With all of its comments that are settings taken in.
    let full: String =
        text.lines().map(|line| format!("{}\n", line.strip_prefix("#: ").unwrap_or(line))).collect();
    let full = policy(&full);
    assert!(full.users.is_some() && full.working_roots.is_some() && full.commands.is_some());
}
