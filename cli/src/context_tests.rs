use super::*;
use crate::session::tests::session;

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
    let stored = |addr: &str, token: &str| Stored {
        addr: addr.into(),
        token: Some(token.into()),
        ca_file: None,
        session: None,
    };
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
        let token = match &got.credential {
            Some(Credential::ApiToken(token)) => Some(token.expose()),
            Some(Credential::Session(keeper)) => panic!("a session: {keeper:?}"),
            None => None,
        };
        assert_eq!(token, want_token, "{case:?}");
        assert_eq!(got.context.is_some(), want_token.is_some_and(|token| token != "env"), "{case:?}");
    }
    let bare =
        Connection::resolve(&global(None, None), &environment(None, None), &Contexts::default()).unwrap();
    assert_eq!(bare.addr.as_str(), "http://127.0.0.1:8080/");
    assert!(bare.credential.is_none());
}

#[test]
fn a_context_has_a_session_or_nothing() {
    let mut contexts = contexts();
    let prod = contexts.contexts.get_mut("prod").unwrap();
    (prod.token, prod.session) = (None, Some(session("ada", 600)));
    let resolve =
        |contexts: &Contexts| Connection::resolve(&global(None, None), &environment(None, None), contexts);
    let got = resolve(&contexts).unwrap();
    let Some(Credential::Session(keeper)) = got.credential else { panic!("{got:?}") };
    assert_eq!((keeper.context.as_str(), keeper.user.as_str()), ("prod", "ada"));

    contexts.contexts.get_mut("prod").unwrap().session = None;
    let got = resolve(&contexts).unwrap();
    assert!(got.credential.is_none(), "logged out");
    assert_eq!(got.context.as_deref(), Some("prod"));
}

#[test]
fn who_enters_chooses_the_address_alone() {
    let addr = |flag, variable| {
        let connection =
            Connection::to_enter(&global(flag, None), &environment(variable, Some("env"))).unwrap();
        assert!(connection.credential.is_none());
        connection.addr.to_string()
    };
    assert_eq!(addr(Some("http://a"), Some("http://b")), "http://a/");
    assert_eq!(addr(None, Some("http://b")), "http://b/");
    assert_eq!(addr(None, None), "http://127.0.0.1:8080/");
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
        let connection =
            Connection { addr: parse_addr(addr).unwrap(), credential: None, context: None, ca_file: None };
        assert_eq!(connection.is_loopback(), want, "{addr}");
    }
}

#[test]
fn tokens_are_not_printed() {
    assert!(!format!("{:?}", Token::parse("very-secret").unwrap()).contains("very-secret"));
}
