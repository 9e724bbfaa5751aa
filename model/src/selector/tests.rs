//! The language by example, and its properties.

use proptest::prelude::*;

use super::*;
use crate::limits;

fn test(key: &str, check: Check) -> Expr {
    Expr::Test(Key::Label(key.to_owned()), check)
}

fn equal(key: &str, value: &str) -> Expr {
    test(key, Check::Equal(value.to_owned()))
}

fn present(key: &str) -> Expr {
    test(key, Check::Present)
}

fn fact(key: &'static str, check: Check) -> Expr {
    Expr::Test(Key::Fact(key), check)
}

fn name(check: Check) -> Expr {
    Expr::Test(Key::Name, check)
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn pattern(source: &str) -> Pattern {
    Pattern::parse(source).expect("the pattern is good")
}

fn number(order: Order, text: &str) -> Check {
    Check::Number(order, Decimal::parse(text).expect("the number is good"))
}

fn not(term: Expr) -> Expr {
    Expr::Not(Box::new(term))
}

#[test]
fn good_texts_have_their_tree_and_canonical_form() {
    use Expr::{And, Or};
    let table: Vec<(&str, Expr, &str)> = vec![
        (
            r#"env=prod and role in (web, api) and not name~"db.*""#,
            And(vec![
                equal("env", "prod"),
                test("role", Check::In(texts(&["web", "api"]))),
                not(name(Check::Like(pattern("db.*")))),
            ]),
            r#"env=prod and role in (web, api) and not name~"db.*""#,
        ),
        ("env", present("env"), "env"),
        ("\t env \n", present("env"), "env"),
        ("((env))", present("env"), "env"),
        ("a and b or c", Or(vec![And(vec![present("a"), present("b")]), present("c")]), "a and b or c"),
        ("a and(b or c)", And(vec![present("a"), Or(vec![present("b"), present("c")])]), "a and (b or c)"),
        ("a or (b or c)", Or(vec![present("a"), present("b"), present("c")]), "a or b or c"),
        ("(a and b) and c", And(vec![present("a"), present("b"), present("c")]), "a and b and c"),
        ("not a and b", And(vec![not(present("a")), present("b")]), "not a and b"),
        ("not (a and b)", not(And(vec![present("a"), present("b")])), "not (a and b)"),
        ("not not a", not(not(present("a"))), "not not a"),
        (
            "NOT a AnD b OR c",
            Or(vec![And(vec![not(present("a")), present("b")]), present("c")]),
            "not a and b or c",
        ),
        ("env != prod", test("env", Check::NotEqual("prod".into())), "env!=prod"),
        ("env !~ 'p.'", test("env", Check::NotLike(pattern("p."))), r#"env!~"p.""#),
        ("env ~ prod", test("env", Check::Like(pattern("prod"))), r#"env~"prod""#),
        ("env not in(a)", test("env", Check::NotIn(texts(&["a"]))), "env not in (a)"),
        ("env NOT IN ('in',\"\")", test("env", Check::NotIn(texts(&["in", ""]))), r#"env not in ("in", "")"#),
        ("cpus>=4", fact("cpus", number(Order::GreaterOrEqual, "4")), "cpus>=4"),
        ("cpus<-007.50", fact("cpus", number(Order::Less, "-7.5")), "cpus<-7.5"),
        ("cpus <= '0.0'", fact("cpus", number(Order::LessOrEqual, "0")), "cpus<=0"),
        ("cpu > 1", test("cpu", number(Order::Greater, "1")), "cpu>1"),
        ("name=web-1", name(Check::Equal("web-1".into())), "name=web-1"),
        ("Name=a", equal("Name", "a"), "Name=a"),
        ("hostnam=a", equal("hostnam", "a"), "hostnam=a"),
        ("sandbox.strict=yes", fact("sandbox.strict", Check::Equal("yes".into())), "sandbox.strict=yes"),
        (
            r#"sandbox.limits~".*memory.*""#,
            fact("sandbox.limits", Check::Like(pattern(".*memory.*"))),
            r#"sandbox.limits~".*memory.*""#,
        ),
        ("hostname=a", fact("hostname", Check::Equal("a".into())), "hostname=a"),
        ("a.b/c_d-e = http://h:1/@+-", equal("a.b/c_d-e", "http://h:1/@+-"), "a.b/c_d-e=http://h:1/@+-"),
        (r#"a="x y\"z\\\d'""#, equal("a", r#"x y"z\\d'"#), r#"a="x y\"z\\\\d'""#),
        (r"a='it\'s'and b", And(vec![equal("a", "it's"), present("b")]), r#"a="it's" and b"#),
        (r"a='żółw'", equal("a", "żółw"), r#"a="żółw""#),
    ];
    for (text, expr, canonical) in table {
        let selector = Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(selector.expr(), &expr, "{text}");
        assert_eq!(selector.to_string(), canonical, "{text}");
        assert_eq!(Selector::parse(canonical), Ok(selector), "{canonical}");
    }
}

#[test]
fn bad_texts_name_the_place_and_what_is_expected() {
    const OPERATOR: &str = "an operator (= != ~ !~ < <= > >= in, not in), 'and', 'or' or";
    let term = "expected a key, 'not' or '('";
    let value = "expected a value (a word or a quoted text)";
    let number = "expected a number (digits, perhaps with '-' before and a fraction behind)";
    let quote = "; a value with this character must be quoted";
    let key = "is not a label key (a letter, then letters, digits and any of _ . - /)";
    let table: Vec<(&str, usize, String)> = vec![
        ("", 1, format!("found the end, {term}")),
        ("  ", 3, format!("found the end, {term}")),
        ("env=prod adn role=web", 10, "found 'adn', expected 'and', 'or' or the end".into()),
        ("env==prod", 5, format!("found '=', {value}")),
        ("env=~prod", 5, format!("found '~', {value}")),
        ("env is prod", 5, format!("found 'is', expected {OPERATOR} the end")),
        ("(env is prod)", 6, format!("found 'is', expected {OPERATOR} ')'")),
        ("(env=prod", 10, "found the end, expected 'and', 'or' or ')'".into()),
        ("env=prod)", 9, "found ')', expected 'and', 'or' or the end".into()),
        ("env= and role=web", 6, format!("found 'and', {value}; as a value this word must be quoted")),
        ("country=IN", 9, format!("found 'in', {value}; as a value this word must be quoted")),
        ("env=", 5, format!("found the end, {value}")),
        ("env=prod and", 13, format!("found the end, {term}")),
        ("env=prod && a", 10, "found '&', expected 'and', 'or' or the end; write 'and' for '&'".into()),
        ("env=prod || a", 10, "found '|', expected 'and', 'or' or the end; write 'or' for '|'".into()),
        ("!env", 1, format!("found '!', {term}; write 'not' for '!'")),
        ("name~db.*", 9, format!("found '*', expected 'and', 'or' or the end{quote}")),
        ("env=żółw", 5, format!("found 'ż', {value}{quote}")),
        ("env='żółw' x", 12, "found 'x', expected 'and', 'or' or the end".into()),
        ("env not prod", 9, "found 'prod', expected 'in'".into()),
        ("env in prod", 8, "found 'prod', expected '(' and a list of values".into()),
        ("env in ()", 9, format!("found ')', {value}")),
        ("env in (a,)", 11, format!("found ')', {value}")),
        ("env in (a b)", 11, "found 'b', expected ',' or ')'".into()),
        ("env in (a", 10, "found the end, expected ',' or ')'".into()),
        ("cpus>many", 6, format!("found 'many', {number}")),
        ("cpus>1e3", 6, format!("found '1e3', {number}")),
        ("cpus>.5", 6, format!("found '.5', {number}")),
        ("cpus>'4 '", 6, format!("found the text \"4 \", {number}")),
        ("cpus>", 6, format!("found the end, {number}")),
        ("'env'=prod", 1, format!("found the text \"env\", {term}")),
        ("9lives=1", 1, format!("'9lives' {key}")),
        ("a and b:c=1", 7, format!("'b:c' {key}")),
        ("env=\"prod", 5, "the text that begins here has no closing \"".into()),
        ("env='prod\\'", 5, "the text that begins here has no closing '".into()),
        ("env='a\0'", 7, "found the control character \\u{0}, which no value has".into()),
        ("env=\u{7}", 5, format!("found '\\u{{7}}', {value}{quote}")),
        ("name~'a(b'", 8, "the pattern is wrong: this '(' is not closed; a literal one is '\\('".into()),
        (
            r#"name~"\\\\[""#,
            11,
            "the pattern is wrong: this '[' is not closed; a literal one is '\\['".into(),
        ),
        ("name~'a\\'", 6, "the text that begins here has no closing '".into()),
        (
            r"name~'a\\'",
            8,
            "the pattern is wrong: nothing follows the backslash; a literal one is '\\\\'".into(),
        ),
        ("name~a+*", 8, format!("found '*', expected 'and', 'or' or the end{quote}")),
    ];
    for (text, position, message) in table {
        let error = Selector::parse(text).expect_err(text);
        assert_eq!((error.position, error.message.as_str()), (position, message.as_str()), "{text}");
    }
    let error = Selector::parse("env==prod").expect_err("a doubled operator");
    assert_eq!(error.to_string(), format!("at character 5: found '=', {value}"));
}

#[test]
fn every_limit_is_named() {
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    let long = |bytes: usize| format!("a={}", "x".repeat(bytes - 2));
    let patterns = |count: usize| vec!["a~x"; count].join(" or ");
    for good in [
        nested(limits::SELECTOR_DEPTH),
        format!("{}a", "not ".repeat(limits::SELECTOR_DEPTH)),
        long(limits::SELECTOR_BYTES),
        patterns(limits::SELECTOR_PATTERNS),
        format!("a~{}", "x".repeat(limits::PATTERN_BYTES)),
        "a~'(.{16}){16}'".to_owned(),
    ] {
        assert!(Selector::parse(&good).is_ok(), "{good}");
    }
    for (bad, position, limit) in [
        (nested(10_000), limits::SELECTOR_DEPTH + 1, "SELECTOR_DEPTH of 32"),
        ("(not ".repeat(10_000), 5 * limits::SELECTOR_DEPTH / 2 + 1, "SELECTOR_DEPTH of 32"),
        (long(limits::SELECTOR_BYTES + 1), 3, "SELECTOR_BYTES of 4096"),
        (" ".repeat(1 << 20), (1 << 20) + 1, "SELECTOR_BYTES of 4096"),
        (format!("a='{}'", "é".repeat(1 << 20)), 3, "SELECTOR_BYTES of 4096"),
        (patterns(limits::SELECTOR_PATTERNS + 1), 115, "SELECTOR_PATTERNS of 16"),
        (format!("a~{}", "x".repeat(limits::PATTERN_BYTES + 1)), 3, "PATTERN_BYTES of 256"),
        ("a~'(.{16}){17}'".to_owned(), 4, "PATTERN_LENGTH of 256"),
        ("a~'(((.{255}){255}){255}){255}'".to_owned(), 4, "PATTERN_LENGTH of 256"),
    ] {
        let error = Selector::parse(&bad).expect_err("over a limit");
        assert!(error.message.contains(&format!("the limit {limit}")), "{error}");
        assert_eq!(error.position, position, "{error}");
    }
}

#[test]
fn patterns_mean_the_whole_value_in_ascii() {
    let table: [(&str, &str, &[&str], &[&str]); 17] = [
        ("db.*", "^(?:db.*)$", &["db", "db1", "db\u{1F600}"], &["adb", "d", ""]),
        ("^db$", "^(?:db)$", &["db"], &["db1", "db\n"]),
        ("a|bc", "^(?:a|bc)$", &["a", "bc"], &["ac", "abc", "b"]),
        ("", "^(?:)$", &[""], &["a"]),
        ("a|", "^(?:a|)$", &["", "a"], &["aa"]),
        ("(a|(?:b)+)c?", "^(?:(?:a|(?:b)+)c?)$", &["a", "bbc"], &["", "ab"]),
        (
            r"\d{2,3}\.\w\s",
            "^(?:[0-9]{2,3}\\.[A-Za-z0-9_][\t-\r ])$",
            &["12.x "],
            &["1.x ", "12.é ", "١٢.x "],
        ),
        (r"\D\W\S", "^(?:[^0-9][^A-Za-z0-9_][^\t-\r ])$", &["aéb"], &["1é1", "aab", "aé "]),
        ("a{3}b{1,}", "^(?:a{3}b{1,})$", &["aaabb"], &["aab", "aaa"]),
        (r"[a-c\d_.-]+", r"^(?:[a-c0-9_.\-]+)$", &["abc", "9-._"], &["d", ""]),
        (r"[^-^]", r"^(?:[^\-\^])$", &["a"], &["-", "^", ""]),
        (r"[a&&b~~\]\[]", r"^(?:[a\&\&b\~\~\]\[])$", &["a", "&", "]", "["], &["c"]),
        (r"[!-\-]", r"^(?:[!-\-])$", &["!", "-"], &["."]),
        ("[à-ö]", "^(?:[à-ö])$", &["é"], &["e", "ü"]),
        (r"\-\/\<\$", r"^(?:-/<\$)$", &["-/<$"], &["-/$"]),
        ("a}]", r"^(?:a\}\])$", &["a}]"], &["a"]),
        (".", "^(?:.)$", &["é", "\n"], &["", "ab"]),
    ];
    for (source, anchored, good, bad) in table {
        let pattern = pattern(source);
        assert_eq!(pattern.anchored(), anchored, "{source}");
        assert!(good.iter().all(|value| pattern.matches(value)), "{source}");
        assert!(!bad.iter().any(|value| pattern.matches(value)), "{source}");
    }
}

#[test]
fn patterns_that_engines_read_differently_are_refused() {
    let table = [
        ("a(?i)b", 1, "only '(?:'"),
        ("(?P<n>a)", 0, "only '(?:'"),
        ("(?<=a)", 0, "only '(?:'"),
        (r"a\pL", 1, r"'\p' is not supported"),
        (r"\x41", 0, r"'\x' is not supported"),
        (r"a\A", 1, r"'\A' is not supported"),
        (r"a\z", 1, r"'\z' is not supported"),
        (r"\bdb", 0, r"'\b' is not supported"),
        (r"(a)\1", 3, r"'\1' is not supported"),
        (r"a\", 1, "nothing follows"),
        ("*a", 0, "repeats nothing"),
        ("^*", 1, "repeats nothing"),
        ("(?:+)", 3, "repeats nothing"),
        ("a|{2}", 2, "repeats nothing"),
        ("a**", 2, "cannot follow"),
        ("a.*?", 3, "cannot follow"),
        ("a{2}{3}", 4, "cannot follow"),
        ("a{", 1, "a repetition is"),
        ("a{2", 1, "a repetition is"),
        ("a{,2}", 1, "a repetition is"),
        ("a{3,2}", 1, "a repetition is"),
        ("a{256}", 1, "a repetition is"),
        ("a{0001}", 1, "a repetition is"),
        ("a{+1}", 1, "a repetition is"),
        ("a^b", 1, "the whole value must match"),
        ("a$b", 1, "the whole value must match"),
        ("(a", 0, "not closed"),
        ("a)", 1, "closes nothing"),
        ("[a", 0, "not closed"),
        ("[", 0, "not closed"),
        ("[a-", 2, "stands first or last"),
        (r"[a\", 2, "nothing follows"),
        ("[]a]", 1, "empty"),
        ("[^]", 2, "empty"),
        ("[[:alpha:]]", 1, "a literal '['"),
        ("[z-a]", 1, "a range goes"),
        (r"[a-\d]", 1, "a range goes"),
        (r"[\d-z]", 3, "stands first or last"),
        ("[a-c-e]", 4, "stands first or last"),
        (r"[\D]", 1, "negated class"),
        ("(((((((((((((((((a)))))))))))))))))", 16, "deeper than 16"),
    ];
    for (source, index, message) in table {
        let error = Pattern::parse(source).expect_err(source);
        assert_eq!(error.index, index, "{source}: {}", error.message);
        assert!(error.message.contains(message), "{source}: {}", error.message);
    }
}

#[test]
fn matches_has_two_values() {
    let set =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let labels: Labels =
        set(&[("env", "prod"), ("empty", ""), ("rack", "12"), ("cost", "-0.50"), ("rev", "1e3")]);
    let facts: Facts = set(&[("os", "linux"), ("cpus", "16"), ("kernel", "6.1.0")]);
    let table = [
        ("env=prod", true),
        ("env=Prod", false),
        ("env!=prod", false),
        ("gone!=prod", true),
        ("gone=''", false),
        ("empty=''", true),
        ("gone", false),
        ("empty", true),
        ("name", true),
        ("name=web-1", true),
        ("name~'web-\\d+'", true),
        ("name~web", false),
        ("gone~''", false),
        ("gone!~''", true),
        ("empty~''", true),
        ("env!~'p.*'", false),
        ("env in (dev, prod)", true),
        ("env in (dev)", false),
        ("gone in ('')", false),
        ("gone not in (dev)", true),
        ("env not in (dev, prod)", false),
        ("os=linux and cpus>=16", true),
        ("cpus>9", true),
        ("cpus>16", false),
        ("cpus<16.000001", true),
        ("cpus<100000000000000000000000000000", true),
        ("rack<=012.0", true),
        ("cost<-0.49 and cost>-0.51 and cost>=-0.5 and cost<=-0.5", true),
        ("kernel>5", false),
        ("not kernel>5", true),
        ("rev>0 or env>0 or empty>=0 or gone<0 or name<0", false),
        ("env=dev or not (env=dev and gone)", true),
    ];
    for (text, expected) in table {
        let selector = Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(selector.matches("web-1", &labels, &facts), expected, "{text}");
    }
}

#[test]
fn decimals_are_ordered_exactly() {
    let ordered =
        ["-100", "-99.5", "-99.05", "-1", "-0.1", "0", "0.09", "0.1", "0.11", "1", "9", "10", "10.5", "100"];
    let parse = |text| Decimal::parse(text).expect("a number");
    assert!(ordered.windows(2).all(|pair| parse(pair[0]) < parse(pair[1])));
    for (text, same) in [("-0", "0"), ("-0.00", "000"), ("01.10", "1.1")] {
        assert_eq!(parse(text), parse(same));
    }
    for text in ["", "-", "+1", ".5", "5.", "1e3", "1 ", " 1", "١", "1.2.3", "--1", "NaN", "1_000"] {
        assert_eq!(Decimal::parse(text), None, "{text}");
    }
}

fn key_text() -> impl Strategy<Value = String> {
    prop_oneof!["name", "cpus", "os", "[a-z][a-zA-Z0-9_./-]{0,8}"]
        .prop_filter("keywords are no keys", |key| !lexer::is_keyword(key))
}

fn value_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9_.:/@+-]{1,6}", r#"[ -~é]{0,8}"#].prop_map(|value| {
        let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
        format!("'{quoted}'")
    })
}

fn selector_text() -> impl Strategy<Value = String> {
    let test = prop_oneof![
        key_text(),
        (key_text(), prop_oneof!["=", "!=", " = "], value_text()).prop_map(|(k, o, v)| format!("{k}{o}{v}")),
        (key_text(), prop_oneof!["~", " !~ "], r"([a-c.]|\\d|\[a-z\]|\(b\|c\)){0,5}[+*]?")
            .prop_filter("a repetition needs an atom", |(_, _, p)| !p.starts_with(['*', '+']))
            .prop_map(|(k, o, p)| format!("{k}{o}'{p}'")),
        (key_text(), "<|<=|>|>=", "-?[0-9]{1,4}([.][0-9]{1,3})?").prop_map(|(k, o, n)| format!("{k}{o}{n}")),
        (key_text(), prop_oneof!["in", "NOT in"], prop::collection::vec(value_text(), 1..4))
            .prop_map(|(k, o, v)| format!("{k} {o} ({})", v.join(","))),
    ];
    test.prop_recursive(5, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|term| format!("not {term}")),
            inner.clone().prop_map(|term| format!("({term})")),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|terms| terms.join(" and ")),
            prop::collection::vec(inner, 1..4).prop_map(|terms| terms.join(" OR ")),
        ]
    })
}

proptest! {
    #[test]
    fn canonical_text_has_the_same_tree(text in selector_text()) {
        let selector = Selector::parse(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        let canonical = selector.to_string();
        prop_assert_eq!(Selector::parse(&canonical), Ok(selector), "{}", canonical);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        if let Err(error) = Selector::parse(&text) {
            prop_assert!((1..=text.chars().count() + 1).contains(&error.position));
        }
    }

    #[test]
    fn no_words_in_disorder_make_the_parser_panic(
        text in "(and|or|not|in|name|env|cpus|=|!=|~|!~|<|<=|[(]|[)]|,|'a.'|\"[(]|1|-2| |\\\\){0,20}",
    ) {
        if let Err(error) = Selector::parse(&text) {
            prop_assert!((1..=text.chars().count() + 1).contains(&error.position));
        }
    }

    #[test]
    fn a_pattern_that_is_accepted_means_what_the_crate_reads_in_it(
        source in r"([a-c.^$\-&]|\\[dwsDWS.\-\[]|[(|)*+?]|\[|\]|[{]1,2[}]|[{]2[}]){0,10}",
        value in "[a-d0 .\\[-]{0,4}",
    ) {
        if let Ok(pattern) = Pattern::parse(&source) {
            let ascii_classes = source.replace("\\d", "[0-9]").replace("\\D", "[^0-9]");
            if let Ok(regex) = regex::Regex::new(&format!("^(?s:{ascii_classes})$")) {
                prop_assert_eq!(pattern.matches(&value), regex.is_match(&value), "{}", pattern.anchored());
            }
        }
    }
}
