//! The OpenAPI document says what is there, and the copy that is kept is the one that is served.

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
