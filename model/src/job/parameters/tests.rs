use proptest::prelude::*;
use serde_json::json;

use super::*;

fn definitions(value: Value) -> Parameters {
    serde_json::from_value(value).expect("definitions")
}

fn given(value: Value) -> BTreeMap<String, Value> {
    serde_json::from_value(value).expect("values")
}

#[test]
fn definitions_that_are_wrong() {
    for (value, problem) in [
        (json!({"A": {"type": "string"}}), "not a parameter's name"),
        (json!({"a": {"type": "secret"}}), "not available yet"),
        (json!({"a": {"type": "choice"}}), "choices"),
        (json!({"a": {"type": "choice", "choices": ["x", "x"]}}), "twice"),
        (json!({"a": {"type": "integer", "minimum": 3, "maximum": 2}}), "minimum above"),
        (json!({"a": {"type": "integer", "default": "3"}}), "default"),
        (json!({"a": {"type": "string", "pattern": "("}}), "pattern"),
        (json!({"a": {"type": "string", "pattern": "a)(?:b"}}), "pattern"),
        (json!({"a": {"type": "string", "depends_on": {"b": 1}}}), "'b'"),
        (json!({"a": {"type": "string", "depends_on": {"a": "x"}}}), "itself"),
    ] {
        let error = validate_all(&definitions(value)).expect_err(problem).to_string();
        assert!(error.contains(problem), "{error}");
    }
    serde_json::from_value::<Parameter>(json!({"type": "string", "x": 1})).expect_err("has an unknown field");
}

#[test]
fn values_are_resolved() {
    let all = definitions(json!({
        "env": {"type": "choice", "choices": ["dev", "prod"], "default": "dev"},
        "count": {"type": "integer", "minimum": 1, "default": 2},
        "tags": {"type": "list", "items": ["a", "b"]},
        "ticket": {"type": "string", "required": true, "pattern": "OPS-[0-9]+", "depends_on": {"env": "prod"}}
    }));
    let values = resolve(&all, &given(json!({"tags": ["a", "b"]}))).expect("fits");
    assert_eq!(values.0, given(json!({"env": "dev", "count": 2, "tags": ["a", "b"]})));
    assert_eq!(values.environment().get("OPSC_PARAM_TAGS").map(String::as_str), Some("a\nb"));
    for (value, problem) in [
        (json!({"cuont": 1}), "did you mean 'count'?"),
        (json!({"count": "3"}), "whole number"),
        (json!({"count": 1.5}), "whole number"),
        (json!({"count": 0}), "at least 1"),
        (json!({"env": "prod"}), "parameters.ticket is required"),
        (json!({"env": "prod", "ticket": "xOPS-1"}), "pattern"),
        (json!({"ticket": "OPS-1"}), "is not asked for"),
        (json!({"tags": ["c"]}), "not one of"),
    ] {
        let error = resolve(&all, &given(value)).expect_err(problem).to_string();
        assert!(error.contains(problem), "{error}");
    }
}

proptest! {
    #[test]
    fn text_of_a_number_is_that_number(n in any::<i64>(), text in ".*") {
        let parameter = Parameter::new(ParameterType::Integer);
        prop_assert_eq!(from_text(&parameter, &n.to_string()), Ok(json!(n)));
        let _ = from_text(&parameter, &text);
        let _ = from_text(&Parameter::new(ParameterType::List), &text);
    }
}

#[test]
fn numbers_are_kept_as_the_database_gives_them_back() {
    let number = |value: Value| {
        let definitions = [("x".to_owned(), Parameter::new(ParameterType::Number))].into();
        resolve(&definitions, &[("x".to_owned(), value)].into()).map(|values| values.0["x"].to_string())
    };
    for (given, want) in
        [(json!(1.0), "1"), (json!(-0.0), "0"), (json!(1e15), "1000000000000000"), (json!(0.1), "0.1")]
    {
        assert_eq!(number(given.clone()).as_deref(), Ok(want), "{given}");
    }
    for given in [json!(1e17), json!(-1e300), json!(u64::MAX)] {
        assert!(
            number(given.clone()).expect_err("too large").problem.contains("PARAMETER_NUMBER"),
            "{given}"
        );
    }
}
