use serde_json::json;

use super::*;

#[test]
fn only_true_and_false() {
    let mut context = Context::default();
    context.params.0.insert("x".to_owned(), json!(3));
    for (text, want) in [("params.x > 2", true), ("params.x == 4 or false", false), ("'a' in ['a']", true)] {
        assert_eq!(evaluate("if", text, &context), Ok(want), "{text}");
    }
    for (text, problem) in [
        ("params.x", "not true or false"),
        ("params.y == 1", "params.y"),
        ("params.y", "params.y"),
        ("range(1000000000)", "TEMPLATE_RANGE"),
        ("1 }} 2", "}}"),
        ("", ""),
    ] {
        let error = evaluate("if", text, &context).expect_err(text);
        assert!(error.to_string().contains(problem), "{text}: {error}");
    }
    check("if", "params.z", &Names::default()).expect_err("is unknown");
}

#[test]
fn no_row_of_filters_makes_much_of_little() {
    for (filter, start) in [("tojson", "'\"'"), ("string", "['\"']"), ("upper", "'ß'"), ("lower", "'İ'")] {
        let row = format!("({start}{}) == ''", format!("|{filter}").repeat(48));
        match holds("if", &row, &Value::from(())) {
            Ok(_) => assert_ne!(filter, "tojson"),
            Err(error) => assert!(error.to_string().contains("TEMPLATE_BYTES"), "{filter}: {error}"),
        }
    }
    let nested = format!("{}'\"'{} == ''", "[".repeat(30), "]|string".repeat(30));
    let _ = holds("if", &nested, &Value::from(()));
}
