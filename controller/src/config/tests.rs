use super::*;

fn check(toml: &str) -> Result<Config, String> {
    let layer = toml::from_str::<Layer>(toml).map_err(|error| error.message().to_owned())?;
    Config::check(layer).map_err(|error| error.to_string())
}

fn environment(variables: &[(&str, &str)]) -> Result<Layer, String> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Layer::from_environment(variables).map_err(|error| error.to_string())
}

#[test]
fn nothing_said_is_the_defaults() {
    let config = check("").expect("valid");
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.agents.listen.to_string(), "0.0.0.0:7443");
    assert_eq!(config.agents.certificate_life, Duration::from_secs(24 * 3600));
    assert_eq!(config.timing.lost_after, Duration::from_secs(300));
    assert!(config.database.external.is_none());
    assert_eq!(config.data, Path::new(DEFAULT_DATA));
}

#[test]
fn what_is_wrong_is_named() {
    for (toml, want) in [
        ("[http]\nlistn = 'x'", "unknown field `listn`"),
        ("[htp]\nlisten = 'x'", "unknown field `htp`"),
        ("[http]\nlisten = 'localhost'", "[http] listen: 'localhost' is not an address"),
        ("[http]\nlisten = '0.0.0.0:80'", "[http] listen: 0.0.0.0:80 is reachable from other machines"),
        ("[http]\ntls_key = '/x'", "[http] tls_certificate: is missing"),
        ("[http]\ntls_key = '/nowhere'\ntls_certificate = '/nowhere'", "[http] tls_certificate: cannot read"),
        ("[http]\ntls = 'mine'", "[http] tls: 'mine' is not known"),
        ("[http]\ntls = 'internal'\ntls_key = '/x'", "one of both is too much"),
        ("[http]\ntls = 'internal'\nlisten = '0.0.0.0:443'", "[http] names: is missing"),
        ("[http]\ntls = 'internal'\nnames = ['a b']", "[http] names: 'a b' is neither"),
        ("[http]\ntls = 'internal'\nnames = []", "[http] names: must be 1 to"),
        ("[http]\nnames = ['a']", "[http] names: is set, but"),
        ("[http]\ncertificate_life = '1h'", "[http] certificate_life: is set, but"),
        ("[http]\ncors_origins = ['*']", "[http] cors_origins: '*' is not an exact origin"),
        ("[http]\ncors_origins = ['null']", "'null' is not an exact origin"),
        ("[http]\ncors_origins = ['https://*.example']", "is not an exact origin"),
        ("[http]\ncors_origins = ['https://a.example/']", "is not an exact origin"),
        ("[http]\ncors_origins = ['http://a.example']", "is not an exact origin"),
        ("[http]\ninsecure_any_address = 'maybe'", "'maybe' is neither true nor false"),
        ("[agents]\ncertificate_life = 'long'", "[agents] certificate_life: 'long' is not a duration"),
        ("[agents]\ncertificate_life = '-5s'", "[agents] certificate_life: '-5s' is not a duration"),
        ("[timing]\nlost_after = '10s'", "[timing] lost_after: 10s is outside"),
        ("[database]\nurl = 'mysql://x'", "[database] url: does not begin with postgres://"),
        ("[database]\npassword_file = '/x'", "[database] password_file: is set, but"),
        ("[log]\nlevel = 'a=b=c'", "[log] level: 'a=b=c' is not understood"),
        ("[log]\nformat = 'xml'", "unknown variant `xml`"),
    ] {
        let got = check(toml).expect_err(toml);
        assert!(got.contains(want), "{toml}: {got}");
    }
}

#[test]
fn another_address_is_accepted_when_told_so() {
    let config = check("[http]\nlisten = '0.0.0.0:80'\ninsecure_any_address = true").expect("valid");
    assert!(config.http.insecure_any_address);
}

#[test]
fn the_own_authority_names_the_door() {
    let names = |toml: &str| match check(toml).expect(toml).http.tls {
        Some(Tls::Internal { names, .. }) => names,
        other => panic!("{toml}: {other:?}"),
    };
    assert_eq!(names("[http]\ntls = 'internal'"), ["localhost", "127.0.0.1"]);
    assert_eq!(names("[http]\ntls = 'internal'\nlisten = '192.0.2.7:443'"), ["192.0.2.7"]);
    let all = "[http]\ntls = 'internal'\nlisten = '0.0.0.0:443'\nnames = ['ops.example', '192.0.2.7']\n\
               cors_origins = ['https://console.example', 'http://localhost:3000']";
    assert_eq!(names(all), ["ops.example", "192.0.2.7"]);
    let again = check(&check(all).expect("valid").redacted()).expect("valid");
    assert_eq!(again.http.cors_origins, ["https://console.example", "http://localhost:3000"]);
    let layer = environment(&[("OPSC_HTTP__TLS", "internal"), ("OPSC_HTTP__NAMES", "a.example, b.example")]);
    let config = Config::check(layer.expect("valid")).expect("valid");
    assert!(
        matches!(config.http.tls, Some(Tls::Internal { names, .. }) if names == ["a.example", "b.example"])
    );
}

#[test]
fn variables_are_keys_and_strangers_among_them_are_refused() {
    let layer = environment(&[
        ("OPSC_ADDR", "http://localhost:1"),
        ("OPSC_TOKEN", "secret"),
        ("OPSC_PG_BIN", "/usr/bin"),
        ("HOME", "/root"),
        ("OPSC_DATA", "/srv/opsc"),
        ("OPSC_HTTP__INSECURE_ANY_ADDRESS", "true"),
        ("OPSC_AGENTS__LISTEN", "127.0.0.1:7000"),
    ])
    .expect("valid");
    let config = Config::check(layer).expect("valid");
    assert_eq!(config.data, Path::new("/srv/opsc"));
    assert!(config.http.insecure_any_address);
    assert_eq!(config.agents.listen.port(), 7000);

    let error = environment(&[("OPSC_DATABASE__URLL", "x")]).err().expect("refused");
    assert!(error.starts_with("OPSC_DATABASE__URLL: unknown field `urll`"), "{error}");
}

#[test]
fn flags_win_over_variables_and_those_over_the_file() {
    let layer = |listen: &str| Layer {
        http: HttpLayer { listen: Some(listen.to_owned()), ..HttpLayer::default() },
        ..Layer::default()
    };
    let all =
        layer("127.0.0.1:1").under(layer("127.0.0.1:2")).under(layer("127.0.0.1:3")).under(Layer::default());
    assert_eq!(Config::check(all).expect("valid").http.listen.port(), 3);
}

#[test]
fn a_password_is_never_shown() {
    let url = "postgres://ops:hun:ter2@db.example.org:5432/ops?sslmode=require&password=hunter3";
    let config = check(&format!("[database]\nurl = '{url}'")).expect("valid");
    for text in [config.redacted(), format!("{config:?}")] {
        assert!(!text.contains("ter2") && !text.contains("hunter3"), "{text}");
        assert!(text.contains("db.example.org"), "{text}");
    }
    let broken = check("[database]\nurl = 'postgres://ops:hunter2@host:notaport/x'").expect_err("refused");
    assert!(!broken.contains("hunter2"), "{broken}");
}

#[test]
fn a_wrong_line_is_named_but_not_repeated() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("controller.toml");
    std::fs::write(
        &path,
        "[database]\nurl = 'postgres://a:hunter2@b/c'\nurll = 'postgres://a:hunter2@b/c'\n",
    )
    .expect("written");
    let error = Layer::from_file(&path).err().expect("refused").to_string();
    assert!(error.contains("line 3: unknown field `urll`") && !error.contains("hunter2"), "{error}");
}

#[test]
fn what_is_printed_can_be_read_again() {
    let config = check("data = '/x'\n[agents]\ncertificate_life = '90s'").expect("valid");
    let again = check(&config.redacted()).expect("valid");
    assert_eq!(again.agents.certificate_life, Duration::from_secs(90));
    assert_eq!(again.data, Path::new("/x"));
}
