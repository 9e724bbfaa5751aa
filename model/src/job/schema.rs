//! The JSON schema of a document, for editors and for programs that write jobs.

use serde_json::{Map, Value, json};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::Job;

/// JSON schema, draft 2020-12, with its parts under `$defs`: it needs nothing beside it.
pub fn schema() -> Value {
    let mut parts = Vec::new();
    Job::schemas(&mut parts);
    let written = |part| serde_json::to_value(part).expect("a schema is plain data");
    let defs: Map<String, Value> = parts.into_iter().map(|(name, part)| (name, written(part))).collect();
    let mut root = written(Job::schema());
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("A job of OpsConductor");
    root["$defs"] = Value::Object(defs);
    relink(&mut root);
    root
}

/// References point to where the parts stand here.
fn relink(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "$ref" => {
                        *text = text.replacen("#/components/schemas/", "#/$defs/", 1);
                    }
                    other => relink(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(relink),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match value {
                        Value::String(text) if key == "$ref" => found.push(text.clone()),
                        other => references(other, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let schema = schema();
        let mut found = Vec::new();
        references(&schema, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let name = reference.strip_prefix("#/$defs/").expect(&reference);
            assert!(schema["$defs"].get(name).is_some(), "{reference}");
        }
        assert!(schema["properties"]["steps"].is_object());
    }
}
