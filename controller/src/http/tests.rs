//! What holds for every route, without a database.

use super::*;

/// The only routes that answer without a credential.
const OPEN: [&str; 19] = [
    "/health",
    "/ready",
    "/version",
    "/openapi.json",
    "/docs",
    "/docs/",
    "/docs/{file}",
    "/api/v1/setup",
    "/api/v1/auth/login",
    "/api/v1/auth/refresh",
    "/api/v1/auth/reset-password",
    "/api/v1/auth/accept-invitation",
    "/api/v1/auth/register",
    "/api/v1/auth/providers",
    "/api/v1/auth/oidc/{provider}/login",
    "/api/v1/auth/oidc/{provider}/callback",
    "/api/v1/auth/oidc/redeem",
    "/api/v1/hooks/{schedule}",
    "/api/v1/hooks/{schedule}/{secret}",
];

#[test]
fn the_document_has_every_route_and_says_which_are_open() {
    let document: serde_json::Value =
        serde_json::from_str(&docs::whole().to_json().expect("JSON")).expect("JSON");
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
        "/api/v1/events",
        "/api/v1/executions",
        "/api/v1/executions/{id}",
        "/api/v1/executions/{id}/runs",
        "/api/v1/executions/{id}/cancel",
        "/api/v1/executions/{id}/output",
        "/api/v1/statistics",
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
    let text = docs::whole().to_json().expect("JSON");
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().expect("a name");
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
}

#[test]
fn what_is_flattened_allows_the_fields_beside_it() {
    let document: serde_json::Value =
        serde_json::from_str(&docs::whole().to_json().expect("JSON")).expect("JSON");
    let schemas = &document["components"]["schemas"];
    for (name, fields) in
        [("Schedule", ["id", "job_id", "when"]), ("SavedCalendar", ["id", "shared", "entries"])]
    {
        for field in fields {
            assert!(schemas[name]["properties"][field].is_object(), "{field} of {name}");
        }
    }
    for (name, schema) in schemas.as_object().expect("schemas") {
        for part in schema["allOf"].as_array().into_iter().flatten() {
            let of = part["$ref"].as_str().and_then(|to| to.rsplit('/').next()).unwrap_or_default();
            assert_ne!(schemas[of]["additionalProperties"], false, "{of} in {name}");
        }
    }
}

#[test]
fn every_refusal_is_a_problem_document() {
    let document: serde_json::Value =
        serde_json::from_str(&docs::whole().to_json().expect("JSON")).expect("JSON");
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let responses = operation["responses"].as_object().expect("responses");
            assert!(responses.contains_key("400") && responses.contains_key("503"), "{method} {path}");
            // What lets somebody in refuses too, and so does what takes deliveries.
            let has_its_own = ["auth", "webhooks"].iter().any(|tag| operation["tags"][0] == *tag);
            let is_open = OPEN.contains(&path.as_str()) && !has_its_own;
            assert_eq!(responses.contains_key("401"), !is_open, "{method} {path}");
            assert_eq!(
                responses.contains_key("413"),
                operation["requestBody"].is_object(),
                "{method} {path}"
            );
            for (status, response) in responses.iter().filter(|(status, _)| status.as_str() >= "400") {
                let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{status} of {method} {path}");
            }
        }
    }
}
