//! The OpenAPI document: made from the routes and their types, served, and kept in `docs/openapi.json`.

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::get,
};
use http::header;
use utoipa::{
    OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::router::OpenApiRouter;

use super::{Api, docs_page, json::ProblemJson, routes};

/// The name of the only security scheme.
pub(super) const KEY: &str = "key";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Posthaste",
        description = "Durable webhooks on Redis Streams. Every refusal is a problem (RFC 9457) with a stable `code`, the \
                       field at fault and what to do. Lists come in pages: `limit` and `cursor`. A POST with an \
                       `Idempotency-Key` is answered as the first with that key and body was, for 24 hours. Every \
                       answer to a request with a key has `RateLimit-Limit`, `RateLimit-Remaining` and \
                       `RateLimit-Reset` (seconds), and every answer an `X-Request-Id`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "Webhooks", description = "Who gets which events, and where."),
        (name = "Events", description = "What is published."),
        (name = "Event types", description = "The catalogue, and a tenant's own types."),
        (name = "Deliveries", description = "Where each event owed to a webhook stands."),
        (name = "Dead letters", description = "What could not be delivered, and why."),
        (name = "Logs and statistics", description = "What was sent, and what came back."),
        (name = "Ingest", description = "What others post, signed, becomes an event for one webhook."),
        (name = "Tenants and keys", description = "Who there is, and what opens."),
    ),
    components(schemas(ProblemJson))
)]
struct Document;

/// The document without any route.
pub(super) fn document() -> OpenApiRouter<Api> {
    let mut document = Document::openapi();
    let key = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key, or the admin key: `Authorization: Bearer <key>`"))
        .build();
    document.components.get_or_insert_default().add_security_scheme(KEY, SecurityScheme::Http(key));
    OpenApiRouter::with_openapi(document)
}

/// The whole document, as JSON text that ends in a line end.
pub fn json() -> String {
    let document = routes::all().into_openapi();
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// `/openapi.json`, and `/docs` to read it.
pub(super) fn router() -> Router {
    let text = json();
    let page = docs_page::router(&serde_json::from_str(&text).unwrap_or_default());
    Router::new().route("/openapi.json", get(async move || document_response(text.clone()))).merge(page)
}

fn document_response(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
