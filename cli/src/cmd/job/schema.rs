//! `opsctl job schema`: the schema of a document, from the model that reads it.

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use utoipa::{PartialSchema as _, ToSchema as _};

/// JSON schema, draft 2020-12, as OpenAPI has it, with its parts under `$defs`.
///
/// # Errors
/// When the model's schema has no form in JSON.
pub(super) fn schema() -> Result<Value> {
    let mut parts = Vec::new();
    model::job::Job::schemas(&mut parts);
    let write = |part| serde_json::to_value(part).context("cannot write the schema as JSON");
    let mut root = write(model::job::Job::schema())?;
    let mut defs = Map::new();
    for (name, part) in parts {
        defs.insert(name, write(part)?);
    }
    if let Value::Object(root) = &mut root {
        root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        root.insert("title".to_owned(), json!("A job of OpsConductor"));
        root.insert("$defs".to_owned(), Value::Object(defs));
    }
    relink(&mut root);
    Ok(root)
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
        let schema = schema().unwrap();
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
