use super::*;

fn global(addr: Option<&str>, context: Option<&str>) -> Global {
    Global {
        addr: addr.map(str::to_owned),
        token_file: None,
        context: context.map(str::to_owned),
        ca_file: None,
    }
}

fn environment(addr: Option<&str>, token: Option<&str>) -> Environment {
    Environment { addr: addr.map(str::to_owned), token: token.map(str::to_owned), path: PathBuf::new() }
}

fn contexts() -> Contexts {
    let stored = |addr: &str, token: &str| Stored { addr: addr.into(), token: token.into(), ca_file: None };
    Contexts {
        current: Some("prod".into()),
        contexts: [
            ("prod".to_owned(), stored("https://prod.example", "of-prod")),
            ("test".to_owned(), stored("http://test.example:8080/", "of-test")),
        ]
        .into(),
    }
}

#[test]
fn who_beats_whom() {
    type Case<'a> =
        (Option<&'a str>, Option<&'a str>, Option<&'a str>, Option<&'a str>, &'a str, Option<&'a str>);
    let cases: [Case<'_>; 9] = [
        // --addr, --context, OPSC_ADDR, OPSC_TOKEN: address and token
        (None, None, None, None, "https://prod.example/", Some("of-prod")),
        (None, Some("test"), None, None, "http://test.example:8080/", Some("of-test")),
        (
            None,
            Some("test"),
            Some("http://e.example"),
            Some("env"),
            "http://test.example:8080/",
            Some("of-test"),
        ),
        (None, None, Some("http://e.example"), Some("env"), "http://e.example/", Some("env")),
        (None, None, None, Some("env"), "https://prod.example/", Some("env")),
        // The address decides which stored token goes there, and to a foreign one none goes.
        (None, None, Some("http://e.example"), None, "http://e.example/", None),
        (Some("http://evil.example"), None, None, None, "http://evil.example/", None),
        (Some("http://evil.example"), Some("test"), None, None, "http://evil.example/", None),
        (Some("http://test.example:8080"), None, None, None, "http://test.example:8080/", Some("of-test")),
    ];
    for case in cases {
        let (addr, context, env_addr, env_token, want_addr, want_token) = case;
        let got = Connection::resolve(&global(addr, context), &environment(env_addr, env_token), &contexts())
            .unwrap();
        assert_eq!(got.addr.as_str(), want_addr, "{case:?}");
        assert_eq!(got.token.as_ref().map(Token::expose), want_token, "{case:?}");
    }
    let bare =
        Connection::resolve(&global(None, None), &environment(None, None), &Contexts::default()).unwrap();
    assert_eq!((bare.addr.as_str(), bare.token), ("http://127.0.0.1:8080/", None));
}

#[test]
fn bad_names_and_addresses() {
    assert!(Connection::resolve(&global(None, Some("gone")), &environment(None, None), &contexts()).is_err());
    for addr in ["127.0.0.1:8080", "ftp://x", "http://", "http://u:p@x", "http://x/?q", "x"] {
        assert!(parse_addr(addr).is_err(), "{addr}");
    }
    assert!(Token::parse(" \n").is_err());
    assert!(Token::parse("a\nb").is_err());
}

#[test]
fn loopback_addresses() {
    for (addr, want) in [
        ("http://127.0.0.1:8080", true),
        ("http://[::1]:8080", true),
        ("http://localhost", true),
        ("http://10.0.0.1", false),
        ("https://localhost.example", false),
    ] {
        let connection = Connection { addr: parse_addr(addr).unwrap(), token: None, ca_file: None };
        assert_eq!(connection.is_loopback(), want, "{addr}");
    }
}

#[test]
fn the_file_is_private_and_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/contexts.toml");
    assert!(Contexts::load(&path).unwrap().contexts.is_empty());
    contexts().save(&path).unwrap();
    contexts().save(&path).unwrap();
    let read = Contexts::load(&path).unwrap();
    assert_eq!(read.current.as_deref(), Some("prod"));
    assert_eq!(read.contexts["test"].token, "of-test");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn secrets_are_not_printed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("contexts.toml");
    fs::write(&path, "[contexts.a]\ntoken = very-secret\n").unwrap();
    let error = Contexts::load(&path).err().unwrap();
    assert!(!format!("{error:#} {error:?}").contains("very-secret"));
    assert!(!format!("{:?}", Token::parse("very-secret").unwrap()).contains("very-secret"));
}
