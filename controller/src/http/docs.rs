//! The OpenAPI document, and a page that shows it. Nothing of it comes from another host.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Redirect},
};
use utoipa::openapi::{
    AllOf, Components, ContentBuilder, InfoBuilder, LicenseBuilder, Object, ObjectBuilder, OpenApi,
    OpenApiBuilder, PathItem, Ref, RefOr, ResponseBuilder, Schema,
    path::{Operation, Parameter, ParameterIn},
    security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};
use utoipa_swagger_ui::Config;

use super::{
    Door,
    id::Name,
    problem::{Failure, Result},
};

const BEARER: &str = "token";

/// The document without its routes.
pub(super) fn document() -> OpenApi {
    let mut components = Components::new();
    components.add_security_scheme(BEARER, SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    let problem = <model::api::problem::Problem as utoipa::PartialSchema>::schema();
    let problem: RefOr<Schema> = problem;
    components.schemas.insert("Problem".to_owned(), problem);
    let info = InfoBuilder::new()
        .title("OpsConductor")
        .description(Some("Errors of every route are `application/problem+json`: the schema `Problem`."))
        .version(env!("CARGO_PKG_VERSION"))
        .license(Some(LicenseBuilder::new().name("MIT").build()));
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .security(Some([SecurityRequirement::new(BEARER, Vec::<String>::new())]))
        .build()
}

/// The document with its routes, and with the refusals that each of them can answer.
pub(super) fn whole() -> OpenApi {
    let mut document = super::routes().split_for_parts().1;
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            for (status, why) in refusals(operation) {
                let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
                let response = ResponseBuilder::new()
                    .description(why)
                    .content("application/problem+json", content)
                    .build();
                operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(response));
            }
        }
    }
    document.components.iter_mut().for_each(flatten);
    document
}

/// Makes one object of each schema that is a flattened one and some fields more: a part that allows no fields but its own
/// would refuse the others.
fn flatten(components: &mut Components) {
    let of_parts: Vec<(String, AllOf)> = components
        .schemas
        .iter()
        .filter_map(|(name, schema)| match schema {
            RefOr::T(Schema::AllOf(all)) => Some((name.clone(), all.clone())),
            _ => None,
        })
        .collect();
    for (name, all) in of_parts {
        let mut whole = ObjectBuilder::new().description(all.description.clone());
        let parts = all.items.iter().map(|part| object(components, part));
        let Some(parts) = parts.collect::<Option<Vec<_>>>() else { continue };
        for part in parts {
            for (field, schema) in &part.properties {
                whole = whole.property(field, schema.clone());
            }
            for field in &part.required {
                whole = whole.required(field);
            }
        }
        components.schemas.insert(name, RefOr::T(whole.into()));
    }
}

/// The object that a schema is or names.
fn object<'a>(components: &'a Components, schema: &'a RefOr<Schema>) -> Option<&'a Object> {
    match schema {
        RefOr::T(Schema::Object(object)) => Some(object),
        RefOr::T(_) => None,
        RefOr::Ref(to) => {
            let name = to.ref_location.rsplit('/').next()?;
            object(components, components.schemas.get(name)?)
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete]
        .into_iter()
        .filter_map(Option::as_mut)
}

/// How an operation can be refused: by what every one of them has around it, and by what this one takes.
fn refusals(operation: &Operation) -> Vec<(&'static str, &'static str)> {
    let mut all = vec![
        ("400", "Something in the request is wrong; `field` names it"),
        ("405", "Another method is expected; `Allow` names it"),
        ("414", "The path with its query is too long"),
        ("431", "The headers are too large"),
        ("500", "A defect of the controller"),
        ("503", "The database does not answer; try again"),
    ];
    // Open routes say so by a requirement of nothing; those of `auth` and `webhooks` bring their credential in another way.
    let has_its_own = operation.tags.iter().flatten().any(|tag| tag == "auth" || tag == "webhooks");
    if operation.security.is_none() || has_its_own {
        all.extend([
            ("401", "There is no credential, or it is not valid"),
            ("403", "A permission is missing"),
            ("429", "Too many requests or open streams; `Retry-After` says when"),
        ]);
    }
    if operation.operation_id.as_deref().is_some_and(|id| id.ends_with("_oidc_login")) {
        all.push(("502", "The login provider does not answer as it should"));
    }
    let names_something = |parameter: &RefOr<Parameter>| match parameter {
        RefOr::T(parameter) => {
            parameter.parameter_in == ParameterIn::Path || NAMING.contains(&parameter.name.as_str())
        }
        RefOr::Ref(_) => false,
    };
    if operation.request_body.is_some() || operation.parameters.iter().flatten().any(names_something) {
        all.push(("404", "There is nothing of this name or id"));
    }
    if operation.request_body.is_some() {
        all.extend([
            ("408", "The body came too slowly"),
            ("413", "The body is too large"),
            ("415", "The body is not JSON"),
            ("422", "Nothing matches, or the idempotency key came with another request before"),
        ]);
    }
    let is_repeatable = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(parameter) if parameter.name == "Idempotency-Key");
    if operation.parameters.iter().flatten().any(is_repeatable) && operation.request_body.is_none() {
        all.push(("422", "The idempotency key came with another request before"));
    }
    let acts = operation.request_body.is_some() || operation.responses.responses.contains_key("201");
    if acts
        || operation.operation_id.as_deref().is_some_and(|id| !READS.iter().any(|read| id.starts_with(read)))
    {
        all.push(("409", "Not possible in this state"));
    }
    all
}

/// How the names of operations begin that change nothing.
const READS: [&str; 4] = ["list_", "show_", "whoami", "can_i"];

/// Parameters of a query that have to name something that is there.
const NAMING: [&str; 3] = ["host", "as", "target"];

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "controller", security(()),
    responses((status = 200, description = "OpenAPI 3 document", content_type = "application/json")))]
pub(super) async fn openapi(State(door): State<Arc<Door>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], door.document.clone())
}

/// Leads to the documentation's page.
#[utoipa::path(get, path = "/docs", tag = "controller", security(()), responses((status = 308)))]
pub(super) async fn page() -> Redirect {
    Redirect::permanent("/docs/")
}

/// The documentation's page.
#[utoipa::path(get, path = "/docs/", tag = "controller", security(()),
    responses((status = 200, content_type = "text/html", body = String)))]
pub(super) async fn index() -> Result<impl IntoResponse> {
    part("index.html")
}

/// What the documentation's page consists of.
#[utoipa::path(get, path = "/docs/{file}", tag = "controller", security(()),
    params(("file" = String, Path)), responses((status = 200, description = "The file")))]
pub(super) async fn file(Name(file): Name) -> Result<impl IntoResponse> {
    part(&file)
}

fn part(file: &str) -> Result<impl IntoResponse + use<>> {
    // Without this the page would ask a validator on the Internet.
    let config = Config::from("/openapi.json").validator_url("none");
    match utoipa_swagger_ui::serve(file, Arc::new(config)) {
        Ok(Some(part)) => Ok(([(header::CONTENT_TYPE, part.content_type)], part.bytes.into_owned())),
        Ok(None) | Err(_) => {
            let file: String = file.chars().take(100).collect();
            Err(Failure::refuse(
                StatusCode::NOT_FOUND,
                "not_found",
                format!("there is no file '{file}' in /docs"),
            ))
        }
    }
}
