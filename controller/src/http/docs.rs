//! The OpenAPI document, and a page that shows it. Nothing of it comes from another host.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Redirect},
};
use utoipa::openapi::{
    Components, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, RefOr, Schema,
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
