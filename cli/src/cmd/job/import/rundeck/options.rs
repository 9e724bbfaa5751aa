//! Options become parameters.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    job::parameters::{Parameter, ParameterType, Parameters, validate_all},
    limits,
};
use serde_json::Value;

use super::{
    super::{
        names,
        shell::{Form, Variable},
        yaml::{Kind, Node},
    },
    Converter, flag,
};

/// What became of an option.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// Absent for what could not be carried over.
    pub(super) variable: Option<Variable>,
}

/// What is only about the page on which somebody fills it in.
const OF_THE_PAGE: [&str; 6] =
    ["label", "sortIndex", "sortValues", "valuesListDelimiter", "hidden", "optionType"];

impl Converter {
    /// The parameters of a job; what became of each option is kept for the steps.
    pub(super) fn parameters(&mut self, options: &Node) -> Parameters {
        let mut parameters = Parameters::new();
        let mut taken = BTreeSet::new();
        // An old form is a map by name.
        let by_name: Vec<(Option<&str>, &Node)> = match &options.kind {
            Kind::Map(entries) => entries.iter().map(|(name, node)| (Some(name.as_str()), node)).collect(),
            _ => options.items().iter().map(|node| (None, node)).collect(),
        };
        for (name, node) in by_name {
            let Some(name) = name.or_else(|| node.get("name").and_then(Node::text)) else {
                self.left_over(node.line, "options", "an option has no name", "add a parameter for it");
                continue;
            };
            if parameters.len() == limits::PARAMETERS {
                let problem = format!("a job has {} parameters at most", limits::PARAMETERS);
                self.left_over(node.line, &format!("options.{name}"), problem, "take several jobs");
                self.options.insert(name.to_owned(), Known { variable: None });
                continue;
            }
            let ours = unique(&mut taken, &names::parameter(name));
            let field = format!("options.{name}");
            let Some((parameter, form)) = self.parameter(node, &field) else {
                self.options.insert(name.to_owned(), Known { variable: None });
                continue;
            };
            if ours != name {
                let problem = format!("the parameter is called '{ours}'");
                self.changed(node.line, &field, problem, "use that name where values are given");
            }
            let variable = Variable { name: format!("OPSC_PARAM_{}", ours.to_ascii_uppercase()), form };
            self.options.insert(name.to_owned(), Known { variable: Some(variable) });
            parameters.insert(ours, parameter);
        }
        parameters
    }

    fn parameter(&mut self, node: &Node, field: &str) -> Option<(Parameter, Form)> {
        let is = |key: &str| node.get(key).and_then(flag) == Some(true);
        let text = |key: &str| node.get(key).and_then(Node::text).filter(|text| !text.is_empty());
        for (key, what) in [("secure", "secret"), ("storagePath", "secret")] {
            if node.get(key).is_some_and(|node| flag(node) != Some(false) && !node.is_empty()) {
                let problem =
                    format!("it is a {what}, and parameters are none yet: their values are stored in clear");
                let advice = "let the host have it (a file that only the user of the step reads), and use that in the step";
                self.left_over(node.line, field, problem, advice);
                return None;
            }
        }
        if text("type") == Some("file") {
            let problem = "it is a file, and parameters are none yet";
            self.left_over(node.line, field, problem, "put the file on the hosts first, and use its path");
            return None;
        }
        let values = values(node);
        let is_enforced = is("enforced") && !values.is_empty();
        let is_list = is("multivalued");
        let mut parameter = Parameter::new(match (is_list, is_enforced) {
            (true, _) => ParameterType::List,
            (false, true) => ParameterType::Choice,
            (false, false) => ParameterType::String,
        });
        parameter.required = is("required");
        self.describe_parameter(node, field, &mut parameter, if is_enforced { &[] } else { &values });
        if is_enforced {
            let list = if is_list { &mut parameter.items } else { &mut parameter.choices };
            *list = values;
        } else if is("enforced") {
            let problem = "its values come from elsewhere, so that any is allowed now";
            self.left_over(node.line, field, problem, "add choices, or a pattern");
        }
        if let Some(regex) = text("regex") {
            self.pattern(node, field, regex, &mut parameter);
        }
        let delimiter = text("delimiter").unwrap_or(",");
        self.default_value(node, field, delimiter, &mut parameter);
        for (key, other) in node.entries() {
            match key.as_str() {
                "name" | "description" | "required" | "value" | "values" | "enforced" | "regex"
                | "multivalued" | "delimiter" | "secure" | "storagePath" | "valueExposed" | "type" => {}
                "multivalueAllSelected" if flag(other) == Some(true) => {
                    let problem = "all of its values are chosen unless somebody says otherwise";
                    self.left_over(
                        other.line,
                        &format!("{field}.{key}"),
                        problem,
                        "set the default to all values",
                    );
                }
                "isDate" | "dateFormat" if !other.is_empty() && flag(other) != Some(false) => {
                    let problem = format!("it is a date ({}), and a text here", other.shown());
                    self.left_over(other.line, &format!("{field}.{key}"), problem, "add a pattern");
                }
                "valuesUrl" | "optionValuesPluginType" | "configRemoteUrl" if !other.is_empty() => {
                    let problem = format!("values are not fetched: {}", other.shown());
                    self.left_over(
                        other.line,
                        &format!("{field}.{key}"),
                        problem,
                        "add choices, or a pattern",
                    );
                }
                key if OF_THE_PAGE.contains(&key) || other.is_empty() || flag(other) == Some(false) => {}
                _ => self.unknown(other, &format!("{field}.{key}")),
            }
        }
        let form = match (is_list, one_char(delimiter)) {
            (false, _) => Form::Plain,
            (true, Some(between)) => Form::Joined(between),
            (true, None) => {
                let problem =
                    format!("its values stood with '{delimiter}' between them, and stand on a line each");
                self.left_over(
                    node.line,
                    &format!("{field}.delimiter"),
                    problem,
                    "look at the steps that use it",
                );
                Form::Plain
            }
        };
        Some((parameter, form))
    }

    fn describe_parameter(
        &mut self,
        node: &Node,
        field: &str,
        parameter: &mut Parameter,
        suggested: &[String],
    ) {
        let mut description =
            node.get("description").and_then(Node::text).unwrap_or_default().trim().to_owned();
        if !suggested.is_empty() {
            let all = suggested.join(", ");
            let problem = format!("values that are only proposed are in the description: {all}");
            self.changed(
                node.line,
                &format!("{field}.values"),
                problem,
                "make it a choice if there are no others",
            );
            if !description.is_empty() {
                description.push(' ');
            }
            description.push_str(&format!("(proposed: {all})"));
        }
        parameter.description = (!description.is_empty()).then_some(description);
    }

    fn pattern(&mut self, node: &Node, field: &str, regex: &str, parameter: &mut Parameter) {
        let field = format!("{field}.regex");
        if parameter.kind == ParameterType::Choice {
            let problem = format!("a choice has no pattern: {regex}");
            return self.left_over(node.line, &field, problem, "remove choices that do not match it");
        }
        if parameter.kind == ParameterType::List {
            let problem = "it is asked of each value, not of all together";
            self.changed(node.line, &field, problem, "look whether it is so meant");
        }
        parameter.pattern = Some(regex.to_owned());
        if let Some(why) = refusal(parameter) {
            parameter.pattern = None;
            let problem = format!("'{regex}' is no pattern here: {why}");
            self.left_over(node.line, &field, problem, "write it without look-around and back references");
        }
    }

    fn default_value(&mut self, node: &Node, field: &str, delimiter: &str, parameter: &mut Parameter) {
        let Some(said) = node.get("value").filter(|value| !value.is_empty()) else { return };
        let default = match (parameter.kind, &said.kind) {
            (ParameterType::List, Kind::List(items)) => {
                items.iter().map(Node::shown).collect::<Vec<_>>().into()
            }
            (ParameterType::List, _) => {
                said.shown().split(delimiter).map(|item| Value::from(item.trim())).collect::<Vec<_>>().into()
            }
            _ => Value::from(said.shown()),
        };
        parameter.default = Some(default);
        if let Some(why) = refusal(parameter) {
            parameter.default = None;
            let problem = format!("'{}' cannot be its default: {why}", said.shown());
            self.left_over(said.line, &format!("{field}.value"), problem, "set another default");
        } else if said.shown().contains("${") {
            let problem = format!("'{}' is not filled in here", said.shown());
            self.left_over(said.line, &format!("{field}.value"), problem, "set another default");
            parameter.default = None;
        }
    }
}

/// The proposed or allowed values, each once.
fn values(node: &Node) -> Vec<String> {
    let listed = node.get("values").map(|values| match (&values.kind, node.get("valuesListDelimiter")) {
        (Kind::Text(text), delimiter) => {
            let delimiter = delimiter.and_then(Node::text).filter(|text| !text.is_empty()).unwrap_or(",");
            text.split(delimiter).map(|value| value.trim().to_owned()).collect()
        }
        _ => values.items().iter().map(Node::shown).collect::<Vec<_>>(),
    });
    let mut once = BTreeSet::new();
    listed
        .unwrap_or_default()
        .into_iter()
        .filter(|value| !value.is_empty() && once.insert(value.clone()))
        .collect()
}

/// Why the definition is refused.
fn refusal(parameter: &Parameter) -> Option<String> {
    let alone = BTreeMap::from([("value".to_owned(), parameter.clone())]);
    validate_all(&alone).err().map(|invalid| invalid.problem)
}

fn one_char(text: &str) -> Option<char> {
    let mut chars = text.chars();
    // tr knows more of these than the character.
    chars.next().filter(|c| chars.next().is_none() && c.is_ascii() && !matches!(c, '\\' | '-' | '['))
}

/// A parameter's name that no other has.
fn unique(taken: &mut BTreeSet<String>, name: &str) -> String {
    let mut unique = name.to_owned();
    let mut number = 2;
    while !taken.insert(unique.clone()) {
        let behind = format!("_{number}");
        let mut short = name.to_owned();
        short.truncate(limits::PARAMETER_NAME_CHARS - behind.len());
        unique = short + &behind;
        number += 1;
    }
    unique
}
