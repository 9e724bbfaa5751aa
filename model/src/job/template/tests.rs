use proptest::prelude::*;
use serde_json::json;

use super::*;

fn context(x: serde_json::Value) -> Context {
    let mut context = Context::default();
    context.params.0.insert("x".to_owned(), x);
    context
}

fn shell(text: &str, x: serde_json::Value) -> Result<String, String> {
    render("run", text, &context(x), Quote::Shell).map_err(|error| error.to_string())
}

fn run(line: &str) -> Vec<u8> {
    std::process::Command::new("/bin/sh").arg("-c").arg(line).output().expect("sh runs").stdout
}

#[test]
fn values_are_words() {
    for (x, want) in [
        (json!("it's"), r"'it'\''s'"),
        (json!(3), "3"),
        (json!(true), "true"),
        (json!(["a b", "c"]), "'a b' 'c'"),
        (json!([]), ""),
        (json!("$(id);`id`\n-rf"), "'$(id);`id`\n-rf'"),
    ] {
        assert_eq!(shell("{{ params.x }}", x).expect("renders"), want);
    }
    assert_eq!(shell("{{ params.x | raw }}", json!("a b")).expect("renders"), "a b");
    for x in [json!("a\0b"), json!(null), json!({"a": 1})] {
        shell("{{ params.x }}", x).expect_err("is refused");
    }
}

#[test]
fn text_of_shells_is_left_alone() {
    for text in ["${#array[@]} ${x%%.*} ${x##*/}\n", "{% raw %}{{.Names}}{% endraw %}", "a {!-- no --!}b"] {
        let want = text.replace("{% raw %}", "").replace("{% endraw %}", "").replace("{!-- no --!}", "");
        assert_eq!(shell(text, json!(1)).expect("renders"), want);
    }
}

#[test]
fn tags_stand_in_plain_text_only() {
    for good in [
        "echo {{ params.x }}",
        "echo \"to \"{{ params.x }}\" now\"",
        "# it's a comment\necho {{ params.x }}",
        "echo \"$(date) ${HOME} $x\" {{ params.x }} | cat",
        "{% if params.x == 'y' %}echo {{ params.x }}{% else %}true{% endif %}",
    ] {
        shell(good, json!("y")).expect(good);
    }
    for bad in [
        "echo \"{{ params.x }}\"",
        "echo '{{ params.x }}'",
        "echo # {{ params.x }}",
        "cat <<E\n{{ params.x }}\nE",
        "echo `echo {{ params.x }}`",
        "echo ${{ params.x }}",
        "echo $(( {{ params.x }} ))",
        "echo \"$(echo \"{{ params.x }}\")\"",
        "echo \\{{ params.x }}",
        "# a\n{{- params.x }}",
        "{% if params.x %}{% endif %}# {{ params.x }}",
        "echo \\\n# {{ params.x }}",
        "echo \u{a0}# '\n{{ params.x }}",
        "echo $\\\n'a' {{ params.x }}",
        "{% if true %}<{% endif %}<E\n{{ params.x }}",
        "{% set y = 1 %}",
        "{% for a in params.x recursive %}{% endfor %}",
        "{{ params.x * 2 }}",
        "{{ params.y }}",
        "{{ .Names }}",
        "{{ params.x",
    ] {
        shell(bad, json!("y")).expect_err(bad);
    }
}

#[test]
fn what_is_absent_can_be_asked_for() {
    for (text, want) in [
        ("{{ params.y | default('a b') }}", "'a b'"),
        ("{% if params.y is defined %}yes{% else %}no{% endif %}", "no"),
        ("{% if params.x is not none %}yes{% endif %}", "yes"),
        (
            "{{ params.x | join('-') | upper }} {{ params.x | length }} {{ params.x | tojson }}",
            r#"'A-B' 2 '["a","b"]'"#,
        ),
        ("{% for a in params.x %}{{ a }}{{ loop.index }} {% endfor %}", "'a'1 'b'2 "),
    ] {
        assert_eq!(shell(text, json!(["a", "b"])).as_deref(), Ok(want), "{text}");
    }
}

#[test]
fn unknown_names_have_a_place() {
    let names = Names { params: ["x".to_owned()].into(), ..Names::default() };
    check_template("run", "{{ params.x }}", Quote::Shell, &names).expect("is known");
    let error = check_template("run", "a\n {{ params.z }}", Quote::None, &names).expect_err("is unknown");
    assert_eq!(error.to_string(), "run uses 'params.z', which is not known (line 2, column 5)");
}

#[test]
fn work_is_bounded() {
    let long = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
    assert!(shell(long, json!(1)).expect_err("ends").contains("TEMPLATE_FUEL"));
    shell("{{ range(1000000000) }}", json!(1)).expect_err("is refused");
    for deep in ["(", "[", "not ", "-", "1+", "1|", "x."] {
        shell(&format!("{{{{ {} }}}}", deep.repeat(500 / deep.len())), json!(1)).expect_err(deep);
    }
    let sum = format!("{{{{ {}1 }}}}", "1+".repeat(250));
    assert_eq!(shell(&sum, json!(1)).expect("renders"), "251");
    let branches = format!("{{% if false %}}{}{{% endif %}}", "{% elif false %}".repeat(32));
    assert_eq!(shell(&branches, json!(1)).expect("renders"), "");
}

proptest! {
    #[test]
    fn any_text_renders_or_is_refused(text in "[{}%a-c'\"\\\\ $(#|.\\n-]{0,60}") {
        let _ = shell(&text, json!("y"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_shell_gets_the_very_bytes(x in "[^\\x00]{0,40}", y in "['\"$`;\\\\\\n#(){}!*~ -]{0,20}") {
        for value in [x, y] {
            let line = shell("printf %s {{ params.x }}", json!(value)).expect("renders");
            prop_assert_eq!(run(&line), value.as_bytes());
        }
    }
}
