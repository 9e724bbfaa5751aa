//! What holds for every route, without a database.

use super::*;

/// The only routes that answer without a credential.
const OPEN: [&str; 7] = ["/health", "/ready", "/version", "/openapi.json", "/docs", "/docs/", "/docs/{file}"];

#[test]
fn the_document_has_every_route_and_says_which_are_open() {
    let document: serde_json::Value =
        serde_json::from_str(&routes().split_for_parts().1.to_json().expect("JSON")).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    for path in [
        "/api/v1/agents",
        "/api/v1/agents/{agent}",
        "/api/v1/agents/{agent}/approve",
        "/api/v1/agents/{agent}/revoke",
        "/api/v1/audit",
        "/api/v1/audit/export",
        "/api/v1/audit/checkpoints",
        "/api/v1/audit/key",
        "/api/v1/controllers",
        "/api/v1/controllers/join-tokens",
        "/api/v1/enroll-tokens",
        "/api/v1/enroll-tokens/{id}",
        "/api/v1/executions",
        "/api/v1/executions/{id}",
        "/api/v1/executions/{id}/runs",
        "/api/v1/executions/{id}/cancel",
        "/api/v1/executions/{id}/output",
        "/api/v1/whoami",
        "/status",
        "/metrics",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().expect("operations") {
            let open = operation["security"] == serde_json::json!([{}]);
            assert_eq!(open, OPEN.contains(&path.as_str()), "{method} {path}");
            assert!(ids.insert(operation["operationId"].to_string()), "operationId of {method} {path}");
        }
    }
}

#[test]
fn every_schema_that_is_named_is_there() {
    let text = routes().split_for_parts().1.to_json().expect("JSON");
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().expect("a name");
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
}
