//! `/openapi.json`, made of the routes themselves.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::Type;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, License, ObjectBuilder, OpenApi, OpenApiBuilder, RefOr, Required,
    SecurityRequirement,
};
use utoipa::{PartialSchema as _, ToSchema};

use crate::error::{Code, Problem};

static DOCUMENT: LazyLock<Bytes> =
    LazyLock::new(|| serde_json::to_vec(&openapi()).expect("an OpenAPI document has text keys only").into());

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operations", security(()),
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")),
)]
pub async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], DOCUMENT.clone())
        .into_response()
}

/// The whole document.
pub fn openapi() -> OpenApi {
    let mut document = super::documented().into_openapi();
    for (path, item) in &mut document.paths.paths {
        for operation in [&mut item.post, &mut item.patch, &mut item.delete].into_iter().flatten() {
            let is_signed_here = path == "/v1/admin/tokens" || path.ends_with("/links");
            describe_command(operation, !is_signed_here && !path.starts_with("/v1/webhooks/"));
        }
    }
    document
}

/// What is not in any route: title, credentials, the problem body.
pub fn frame() -> OpenApi {
    let mut problem = Vec::new();
    Problem::schemas(&mut problem);
    let components = ComponentsBuilder::new()
        .schema(Problem::name(), Problem::schema())
        .schema(Code::name(), Code::schema())
        .schemas_from_iter(problem)
        .security_scheme("api_key", SecurityScheme::Http(Http::new(HttpAuthScheme::Basic)))
        .security_scheme("token", SecurityScheme::Http(bearer()))
        .build();
    let info = InfoBuilder::new()
        .title("Switchyard")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Multi-party WebRTC sessions. Errors are problem bodies with a stable `code`."))
        .license(Some(License::new("MIT OR Apache-2.0")))
        .build();
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .security(Some([
            SecurityRequirement::new("api_key", Vec::<String>::new()),
            SecurityRequirement::new("token", Vec::<String>::new()),
        ]))
        .build()
}

fn bearer() -> Http {
    let mut bearer = Http::new(HttpAuthScheme::Bearer);
    bearer.bearer_format = Some("JWT".to_owned());
    bearer
}

/// The headers that every changing request has in common.
fn describe_command(operation: &mut Operation, waits: bool) {
    let parameters = operation.parameters.get_or_insert_default();
    let name = "The same key gives the same result and takes effect once: `cmd_` and a UUID";
    parameters.push(header_parameter("Idempotency-Key", name));
    if waits {
        let wait = "`wait=<seconds>`, 0 to 30: how long to wait for the result";
        parameters.push(header_parameter("Prefer", wait));
    }
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            let mut header = Header::new(ObjectBuilder::new().schema_type(Type::String));
            header.description = Some("The command's id".to_owned());
            response.headers.insert("Command-Id".to_owned(), header.into());
        }
    }
}

fn header_parameter(name: &str, description: &str) -> RefOr<Parameter> {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
        .into()
}
