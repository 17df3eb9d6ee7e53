//! Keys open what their role allows, for their tenant, as often as they may, until they are revoked.

use futures_util::future::join_all;

use super::*;

#[tokio::test]
async fn a_key_does_what_its_role_allows_for_its_tenant_until_it_is_revoked() {
    let service = Service::alone().await;
    let created = service.post("/api/v1/keys", json!({ "role": "tenant", "tenant": "acme" })).await.expect(201);
    let key = text(&created["key"]);
    assert_eq!((&created["role"], &created["tenant"]), (&json!("tenant"), &json!("acme")));
    let body = json!({ "url": "https://example.com/", "events": ["*"] });
    let webhook = service.call_as(&key, "POST", "/api/v1/webhooks", &body).await.expect(201);
    assert_eq!(webhook["tenant"], "acme");
    let refused = service.call_as(&key, "GET", "/api/v1/webhooks?tenant=other", &Value::Null).await;
    assert_eq!(refused.problem(403, "forbidden").as_deref(), Some("tenant"));

    let listed = service.get("/api/v1/keys?limit=250").await.expect(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    assert!(!listed.to_string().contains(&key));
    service.list("/api/v1/keys?tenant=acme", 1).await;
    let id = text(&created["id"]);
    service.send(service.keyed("DELETE", &format!("/api/v1/keys/{id}")), Body::empty()).await.expect(204);
    service.call_as(&key, "GET", "/api/v1/webhooks", &Value::Null).await.problem(401, "unauthorized");
    service.send(service.keyed("DELETE", &format!("/api/v1/keys/{id}")), Body::empty()).await.problem(404, "not_found");
    service.stop().await;
}

#[tokio::test]
async fn a_key_of_the_role_admin_is_for_all_tenants() {
    let service = Service::alone().await;
    let key = text(&service.post("/api/v1/keys", json!({ "role": "admin" })).await.expect(201)["key"]);
    let body = json!({ "url": "https://example.com/", "events": ["*"] });
    for tenant in ["acme", "other"] {
        let path = format!("/api/v1/webhooks?tenant={tenant}");
        assert_eq!(service.call_as(&key, "POST", &path, &body).await.expect(201)["tenant"], tenant);
    }
    service.call_as(&key, "POST", "/api/v1/keys", &json!({ "role": "admin" })).await.expect(201);
    service.stop().await;
}

#[tokio::test]
async fn a_key_that_cannot_be_made_says_which_field_is_at_fault() {
    let service = Service::alone().await;
    let check = async |body: Value, field: &str| {
        let refused = service.post("/api/v1/keys", body).await;
        assert_eq!(refused.problem(422, "invalid").as_deref(), Some(field));
    };
    check(json!({}), "role").await;
    check(json!({ "role": "root" }), "role").await;
    check(json!({ "role": "tenant" }), "tenant").await;
    check(json!({ "role": "admin", "tenant": "acme" }), "tenant").await;
    check(json!({ "role": "read", "tenant": "a/b" }), "tenant").await;
    service.stop().await;
}

#[tokio::test]
async fn no_key_is_kept_as_it_is_and_other_texts_open_nothing() {
    let service = Service::alone().await;
    let key = service.key("read", "acme").await;
    let mut redis = service.redis.connect().await;
    let records: Vec<String> = redis::cmd("HVALS").arg("posthaste:keys").query_async(&mut redis).await.unwrap();
    // It may have a `_` of its own.
    let secret = key.splitn(3, '_').nth(2).unwrap();
    assert!(records.len() == 1 && !records[0].contains(secret));
    let other = format!("{}{}", &key[..key.len() - 1], if key.ends_with('A') { 'B' } else { 'A' });
    for wrong in [other.as_str(), &key[..key.len() - 1], &format!("{key}A"), "ph_", "key_"] {
        service.call_as(wrong, "GET", "/api/v1/webhooks", &Value::Null).await.problem(401, "unauthorized");
    }
    service.call_as(&key, "GET", "/api/v1/webhooks", &Value::Null).await.expect(200);
    service.stop().await;
}

#[tokio::test]
async fn a_tenant_that_is_deleted_takes_its_keys_with_it() {
    let service = Service::alone().await;
    let tenant = service.post("/api/v1/tenants", json!({ "id": "acme", "name": "Acme Ltd" })).await.expect(201);
    assert_eq!((&tenant["id"], &tenant["name"]), (&json!("acme"), &json!("Acme Ltd")));
    service.post("/api/v1/tenants", json!({ "id": "acme", "name": "Acme" })).await.problem(409, "already_exists");
    let refused = service.post("/api/v1/tenants", json!({ "name": "x" })).await;
    assert_eq!(refused.problem(422, "invalid").as_deref(), Some("id"));
    let key = service.key("tenant", "acme").await;
    let webhook = service.webhook("https://example.com/").await;
    let delete = async || service.send(service.keyed("DELETE", "/api/v1/tenants/acme"), Body::empty()).await;
    delete().await.problem(409, "conflict");
    service.send(service.keyed("DELETE", &format!("/api/v1/webhooks/{webhook}")), Body::empty()).await.expect(204);
    delete().await.expect(204);
    service.call_as(&key, "GET", "/api/v1/webhooks", &Value::Null).await.problem(401, "unauthorized");
    assert_eq!(service.get("/api/v1/tenants").await.expect(200)["data"], json!([]));
    service.stop().await;
}

#[tokio::test]
async fn requests_at_the_same_time_are_each_counted() {
    let service = Service::limited(20).await;
    let answers = join_all((0..60).map(|_| service.get("/api/v1/webhooks"))).await;
    let left = |answer: &&Answer| answer.headers["ratelimit-remaining"].to_str().unwrap().parse::<usize>().unwrap();
    let mut taken = [0; 20];
    answers.iter().filter(|answer| answer.status == 200).for_each(|answer| taken[left(&answer)] += 1);
    // The minute may turn once meanwhile.
    assert!(taken.iter().sum::<usize>() >= 20 && taken.iter().all(|times| *times <= 2), "{taken:?}");
    assert!(answers.iter().filter(|answer| answer.status == 429).count() >= 20);
    service.stop().await;
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_go_on() {
    let service = Service::limited(3).await;
    let mut answers = Vec::new();
    // The minute may turn once meanwhile, not twice.
    for _ in 0..8 {
        answers.push(service.get("/api/v1/webhooks").await);
    }
    let refused = answers.iter().find(|answer| answer.status == 429).expect("a refusal");
    assert_eq!(refused.headers["ratelimit-remaining"], "0");
    let reset: u64 = refused.headers["ratelimit-reset"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&reset));
    assert_eq!(refused.headers["retry-after"], refused.headers["ratelimit-reset"]);
    assert_eq!(refused.json()["code"], "rate_limited");
    assert!(answers.iter().all(|answer| answer.headers["ratelimit-limit"] == "3"));
    service.stop().await;
}

#[tokio::test]
async fn a_full_redis_still_lets_in_who_has_a_key() {
    let service = Service::alone().await;
    let key = service.key("tenant", "acme").await;
    let webhook = service.webhook("https://example.com/").await;
    let mut redis = service.redis.connect().await;
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).exec_async(&mut redis).await.unwrap();
    let path = format!("/api/v1/webhooks/{webhook}");
    service.call_as(&key, "GET", &path, &Value::Null).await.expect(200);
    service.call_as(&key, "DELETE", &path, &Value::Null).await.expect(204);
    service.stop().await;
}

#[tokio::test]
async fn behind_a_proxy_the_public_host_is_known_and_metrics_need_the_admin_key() {
    let redis = TestRedis::start().await;
    let engine = Engine::idle(&redis, &[]).await;
    let public_host = Some("hooks.example.com".to_owned());
    let service = Service::with_settings(redis, engine, api::Settings { public_host, ..settings() }).await;
    for host in ["hooks.example.com", "HOOKS.example.com:443", "localhost:1"] {
        let request = service.keyed("GET", "/api/v1/webhooks").header("host", host);
        service.send(request, Body::empty()).await.expect(200);
    }
    for host in ["evil.example", "hooks.example.com.evil.example", "hooks.example.com:x"] {
        let request = service.keyed("GET", "/api/v1/webhooks").header("host", host);
        service.send(request, Body::empty()).await.problem(403, "forbidden_host");
    }
    service.send(service.request("GET", "/metrics"), Body::empty()).await.problem(401, "unauthorized");
    assert_eq!(service.send(service.keyed("GET", "/metrics"), Body::empty()).await.status, 200);
    service.stop().await;
}
