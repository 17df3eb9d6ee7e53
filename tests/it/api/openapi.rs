//! The OpenAPI document says what is there, the copy that is kept is the one that is served, and a page shows it.

use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

use super::*;

#[tokio::test]
async fn the_document_that_is_kept_is_the_one_that_is_served() {
    let service = Service::alone().await;
    let served = service.send(service.request("GET", "/openapi.json"), Body::empty()).await;
    assert_eq!(served.headers["content-type"], "application/json");
    let kept = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json")).unwrap();
    assert!(served.body == kept.as_bytes(), "make docs/openapi.json anew with `make openapi`");
    let document: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path}");
            assert!(operation["responses"]["default"].is_object(), "{method} {path}");
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn the_page_shows_every_operation_and_loads_nothing() {
    let service = Service::alone().await;
    let answer = service.send(service.request("GET", "/docs"), Body::empty()).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["content-type"]),
        (200, &"text/html; charset=utf-8".parse().unwrap())
    );
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    let page = std::str::from_utf8(&answer.body).unwrap();
    let document: Value = serde_json::from_slice(include_bytes!("../../../docs/openapi.json")).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let head = format!("<b>{}</b> <code>{path}</code>", method.to_uppercase());
            assert_eq!(page.matches(&head).count(), 1, "{head}");
            let anchor = operation["operationId"].as_str().unwrap();
            for part in [format!("<section id=\"{anchor}\">"), format!("<a href=\"#{anchor}\">")] {
                assert!(page.contains(&part), "{part}");
            }
        }
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("<section id=\"schema-{name}\">")), "{name}");
    }
    for from_elsewhere in [" src=", "<link", "<script", "href=\"http", "href=\"//", "url(", "@import"] {
        assert!(!page.contains(from_elsewhere), "{from_elsewhere}");
    }
    let style = page.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
    let hash = BASE64_STANDARD.encode(Sha256::digest(style));
    let policy = answer.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with(&format!("default-src 'none'; style-src 'sha256-{hash}';")), "{policy}");
    service.stop().await;
}
