use std::process::Command;

use proptest::prelude::*;

use super::*;

fn variable(option: &str) -> Option<Variable> {
    let form = match option {
        "x" | "a.b" => Form::Plain,
        "list" => Form::Joined(','),
        _ => return None,
    };
    Some(Variable { name: format!("OPSC_PARAM_{}", option.to_ascii_uppercase().replace('.', "_")), form })
}

fn of(text: &str) -> (String, Vec<Within>) {
    let (text, met) = rewrite(text, &variable);
    (text, met.into_iter().map(|met| met.within).collect())
}

#[test]
fn a_variable_stands_where_a_reference_stood() {
    use Within as W;
    for (text, want, within) in [
        ("echo ${option.x}", r#"echo "$OPSC_PARAM_X""#, W::Word),
        ("echo a${option.x}b", r#"echo a"$OPSC_PARAM_X"b"#, W::Word),
        ("echo @option.a.b@", r#"echo "$OPSC_PARAM_A_B""#, W::Word),
        (r#"echo "a ${option.x}b""#, r#"echo "a ${OPSC_PARAM_X}b""#, W::DoubleQuotes),
        ("sh -c 'ls ${option.x}'", r#"sh -c 'ls '"$OPSC_PARAM_X"''"#, W::SingleQuotes),
        (r"echo $'\'${option.x}'", r#"echo $'\''"$OPSC_PARAM_X"$''"#, W::SingleQuotes),
        (r#"echo "$(ls ${option.x})""#, r#"echo "$(ls "$OPSC_PARAM_X")""#, W::Word),
        (r#"echo "it's ${option.x}""#, r#"echo "it's ${OPSC_PARAM_X}""#, W::DoubleQuotes),
        (r#"echo "${y:-${option.x}}""#, r#"echo "${y:-${OPSC_PARAM_X}}""#, W::DoubleQuotes),
        ("echo ${y:-${option.x}}", r#"echo ${y:-"$OPSC_PARAM_X"}"#, W::Word),
        ("echo $((1 + (2 * ${option.x})))", "echo $((1 + (2 * ${OPSC_PARAM_X})))", W::Arithmetic),
        ("# don't\necho ${option.x}", "# don't\necho \"$OPSC_PARAM_X\"", W::Word),
        (r"echo it\'s ${option.x}", r#"echo it\'s "$OPSC_PARAM_X""#, W::Word),
        ("cat <<E\nit's ${option.x}\nE\n", "cat <<E\nit's ${OPSC_PARAM_X}\nE\n", W::HereDocument),
        ("cat <<-E\n\t\"${option.x}\n\tE\n", "cat <<-E\n\t\"${OPSC_PARAM_X}\n\tE\n", W::HereDocument),
        ("cat <<'E'\n${option.x}\nE\n", "cat <<'E'\n${option.x}\nE\n", W::Literal),
        ("cat <<E\n'\nE\necho ${option.x}", "cat <<E\n'\nE\necho \"$OPSC_PARAM_X\"", W::Word),
        ("echo $((1 << 2))\necho ${option.x}", "echo $((1 << 2))\necho \"$OPSC_PARAM_X\"", W::Word),
        ("cat <<< ${option.x}", r#"cat <<< "$OPSC_PARAM_X""#, W::Word),
        ("echo `ls ${option.x}`", r#"echo `ls "$OPSC_PARAM_X"`"#, W::Word),
        ("echo ${option.none}", "echo ${option.none}", W::Nowhere),
        (r"echo \${option.x}", r"echo \${option.x}", W::Escaped),
        ("echo ${unquotedoption.x}", r#"echo "$OPSC_PARAM_X""#, W::Word),
        (
            r#"echo "${option.list}""#,
            r#"echo "$(printf '%s' "$OPSC_PARAM_LIST" | tr '\n' ,)""#,
            W::DoubleQuotes,
        ),
    ] {
        assert_eq!(of(text), (want.to_owned(), vec![within]), "{text}");
    }
    // A comment is none of a shell's business, and neither is what only looks like a reference.
    for text in ["# ${option.x}", "echo ${option}", "echo user@option.x", "echo a@b.c@", "echo ${option.x"] {
        let (rewritten, met) = of(text);
        assert_eq!(rewritten, text);
        assert!(met.is_empty() || text.starts_with('#'), "{text}: {met:?}");
    }
    assert_eq!(
        references("${job.id} @node.name@ ${option.x} a@b.c ${HOME}"),
        ["${job.id}", "${option.x}", "@node.name@"].into()
    );
}

/// What the shell of this machine makes of a text.
fn said(text: &str, value: &str) -> String {
    let output = Command::new("/bin/sh")
        .args(["-c", text])
        .env("OPSC_PARAM_X", value)
        .env("OPSC_PARAM_LIST", "a\nb c\nd")
        .output()
        .expect("there is a shell");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_value_is_data_in_a_real_shell() {
    let value = "a  b'; echo \"$(echo no)\" `echo no` * $HOME \\";
    for (text, want) in [
        ("printf '[%s]' ${option.x}", format!("[{value}]")),
        ("printf '[%s]' pre${option.x}post", format!("[pre{value}post]")),
        (r#"printf '[%s]' "a ${option.x} b""#, format!("[a {value} b]")),
        ("printf '[%s]' 'a ${option.x} b'", format!("[a {value} b]")),
        (r#"printf '[%s]' "$(printf '%s' ${option.x})""#, format!("[{value}]")),
        (r#"printf '[%s]' "${y:-${option.x}}""#, format!("[{value}]")),
        ("printf '[%s]' ${y:-${option.x}}", format!("[{value}]")),
        ("cat <<E\n\"it's\" ${option.x}\nE\n", format!("\"it's\" {value}\n")),
        ("printf '[%s]' ${option.list} x", "[a,b c,d][x]".to_owned()),
        ("printf '[%s]' 'y ${option.list}'", "[y a,b c,d]".to_owned()),
    ] {
        let (text, _) = of(text);
        assert_eq!(said(&text, value), want, "{text}");
    }
    for text in ["it's", "", "a b", "$HOME", "'", "a'b\"c", "\\", "-n"] {
        assert_eq!(said(&format!("printf %s {}", quoted(text)), ""), text);
    }
}

#[test]
fn sudo_is_seen() {
    for (text, want) in [
        ("sudo ls", true),
        ("a && /usr/bin/sudo -n b", true),
        ("x $(sudo y)", true),
        ("pseudo", false),
        ("cat sudoers", false),
    ] {
        assert_eq!(calls_sudo(text), want, "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_is_too_much(text in "(\\PC|[\n\r\t\"'`$(){}<>#\\\\]|<<E|E\n|\\$\\{option.x\\}|@option.list@|\\$\\(\\(){0,60}") {
        let (rewritten, met) = rewrite(&text, &variable);
        // What was put in is all that has changed.
        if met.iter().all(|met| !met.is_replaced()) {
            prop_assert_eq!(rewritten, text);
        }
    }
}
