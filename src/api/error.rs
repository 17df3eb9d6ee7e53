//! Every refusal of the API: RFC 9457 problem details with a stable `code`, the field at fault and what to do.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};

use super::{json::ProblemJson, rate::Allowance};
use crate::{
    domain::{
        Invalid,
        access::{Access, KeyRole},
    },
    manage::ManageError,
    metrics,
    publish::PublishError,
    streams::{self},
};

/// Seconds after which a client may try again.
const WHEN_FULL: u32 = 5;
const WHEN_AWAY: u32 = 2;
const WHEN_OVERLOADED: u32 = 1;
const WHEN_TENANT_FULL: u32 = 60;

/// Why a request was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub status: StatusCode,
    /// Stable; one of those in this file.
    pub code: &'static str,
    pub detail: String,
    pub field: Option<String>,
    /// The thing that is there already.
    pub id: Option<String>,
    /// When to try again, if it may pass.
    pub retry_after_seconds: Option<u32>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), field: None, id: None, retry_after_seconds: None }
    }

    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// A field, a parameter or a header with a value that cannot be taken.
    pub fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        let field = field.into();
        let detail = format!("{field}: {}", problem.into());
        Self { field: Some(field), ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail) }
    }

    pub fn unauthorized() -> Self {
        let detail = "give a key: `Authorization: Bearer <key>` (`posthaste key create` makes one; the admin key is \
                      api.admin_key, or the one that `serve` made and prints)";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// There is no such webhook, or the request is not signed as it must be: nobody is told which.
    pub fn unsigned() -> Self {
        let detail = "no such webhook, or the signature is missing, wrong or too old: sign the raw body with the webhook's \
                      ingest_secret, by X-Hub-Signature-256 or the headers of Standard Webhooks";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    pub fn forbidden_role(role: KeyRole, access: Access) -> Self {
        let detail = format!("a key of the role `{}` may not do this; these may: {}", role.name(), access.roles());
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    pub fn forbidden_tenant() -> Self {
        let detail = "tenant: this key is for one tenant only: leave X-Tenant and ?tenant= out";
        Self { field: Some("tenant".to_owned()), ..Self::new(StatusCode::FORBIDDEN, "forbidden", detail) }
    }

    pub(super) fn rate_limited(allowance: &Allowance) -> Self {
        let (limit, seconds) = (allowance.limit(), allowance.reset_seconds());
        let detail = format!("more than {limit} requests in this minute: go on in {seconds} s");
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail);
        Self { retry_after_seconds: Some(seconds as u32), ..problem }
    }

    pub fn overloaded() -> Self {
        let detail = "more requests are under way than can be served at once: try again";
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail);
        Self { retry_after_seconds: Some(WHEN_OVERLOADED), ..problem }
    }

    pub fn request_timeout() -> Self {
        let detail = "this took too long and was broken off: ask for less at once, or try again";
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", detail);
        Self { retry_after_seconds: Some(WHEN_AWAY), ..problem }
    }

    /// The same idempotency key came before, with another request.
    pub fn idempotency_conflict(field: &str) -> Self {
        let detail = format!("{field}: the same key came before with another request: use a new key");
        let problem = Self::new(StatusCode::CONFLICT, "idempotency_conflict", detail);
        Self { field: Some(field.to_owned()), ..problem }
    }

    /// The same request is under way.
    pub fn in_progress() -> Self {
        let detail = "Idempotency-Key: the request that came first with this key is still under way: try again";
        let problem = Self::new(StatusCode::CONFLICT, "in_progress", detail);
        let field = Some("Idempotency-Key".to_owned());
        Self { field, retry_after_seconds: Some(WHEN_OVERLOADED), ..problem }
    }

    pub fn forbidden_host() -> Self {
        let detail = "this listener is for this machine only: call it by 127.0.0.1, [::1] or localhost, \
                      or set api.public_url to the URL that a proxy answers at";
        Self::new(StatusCode::FORBIDDEN, "forbidden_host", detail)
    }

    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no such {what}"))
    }

    pub fn method_not_allowed() -> Self {
        let detail = "this path does not take this method; the header Allow lists those that it takes";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail)
    }

    pub fn unsupported_media_type(wanted: &str) -> Self {
        let detail = format!("set the header `Content-Type: {wanted}`");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    pub fn body_timeout() -> Self {
        let detail = "the body did not arrive in time: send it at once, or in smaller parts";
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail)
    }

    /// Something that nobody outside can mend. It is logged here, and only its code is told.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "a request failed");
        let detail = "an internal error; the log says more under this answer's X-Request-Id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    pub fn to_json(&self) -> ProblemJson {
        ProblemJson {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: self.detail.clone(),
            field: self.field.clone(),
            id: self.id.clone(),
        }
    }
}

impl From<Invalid> for Problem {
    fn from(refusal: Invalid) -> Self {
        Self::invalid(refusal.field, refusal.problem)
    }
}

impl From<streams::Error> for Problem {
    fn from(error: streams::Error) -> Self {
        metrics::redis_error(error.kind());
        let (code, detail, seconds) = match &error {
            streams::Error::Full => {
                let detail = "Redis is near its memory limit: try again later; raise maxmemory if it stays so";
                ("full", detail, WHEN_FULL)
            }
            streams::Error::Unavailable(_) | streams::Error::NoGroup => {
                ("unavailable", "Redis is away for the moment: try again", WHEN_AWAY)
            }
            streams::Error::Refused(_) | streams::Error::Unreadable(_) => return Self::internal(&error),
        };
        let retry_after_seconds = Some(seconds);
        Self { retry_after_seconds, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail) }
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Invalid(refusal) => refusal.into(),
            PublishError::Conflict => Self::idempotency_conflict("idempotency_key"),
            PublishError::TenantFull => {
                let detail = "the tenant has as many bytes of undelivered events as it may have (max_stored_mb): \
                              mend, resume or delete its webhooks that do not take them, replay or delete its dead \
                              letters, or raise the limit; then try again";
                let retry_after_seconds = Some(WHEN_TENANT_FULL);
                Self { retry_after_seconds, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "tenant_full", detail) }
            }
            PublishError::Redis(error) => error.into(),
        }
    }
}

impl From<ManageError> for Problem {
    fn from(error: ManageError) -> Self {
        match error {
            ManageError::Invalid(refusal) => refusal.into(),
            ManageError::NotFound(what) => Self::not_found(what),
            ManageError::AlreadyExists(_) => Self::new(StatusCode::CONFLICT, "already_exists", error.to_string()),
            ManageError::AlreadyCreated { ref id, .. } => {
                let problem = Self::new(StatusCode::CONFLICT, "already_created", error.to_string());
                Self { id: Some(id.clone()), ..problem }
            }
            ManageError::Conflict(detail) => Self::new(StatusCode::CONFLICT, "conflict", detail),
            ManageError::Redis(error) => error.into(),
        }
    }
}

/// Marks an answer that says: the thing was made before.
#[derive(Clone)]
pub(super) struct AlreadyThere;

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = match serde_json::to_vec(&self.to_json()) {
            Ok(json) => Body::from(json),
            Err(_) => Body::empty(),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        if self.id.is_some() {
            response.extensions_mut().insert(AlreadyThere);
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_status_its_code_and_its_field() {
        let check = |problem: Problem, status: u16, code: &str, field: Option<&str>| {
            assert_eq!((problem.status.as_u16(), problem.code), (status, code));
            assert_eq!(problem.field.as_deref(), field, "{code}");
        };
        let invalid = || Invalid::new("url", "not https");
        check(invalid().into(), 422, "invalid", Some("url"));
        check(ManageError::Invalid(invalid()).into(), 422, "invalid", Some("url"));
        check(ManageError::NotFound("webhook").into(), 404, "not_found", None);
        check(ManageError::AlreadyExists("tenant").into(), 409, "already_exists", None);
        check(ManageError::Conflict("full".into()).into(), 409, "conflict", None);
        check(PublishError::Conflict.into(), 409, "idempotency_conflict", Some("idempotency_key"));
        check(PublishError::TenantFull.into(), 503, "tenant_full", None);
        check(streams::Error::Full.into(), 503, "full", None);
        check(streams::Error::Unavailable("gone".into()).into(), 503, "unavailable", None);
        check(streams::Error::NoGroup.into(), 503, "unavailable", None);
        check(streams::Error::Refused("NOAUTH".into()).into(), 500, "internal", None);
    }

    #[test]
    fn what_may_pass_says_when_to_try_again_and_what_is_internal_says_nothing() {
        let response = Problem::from(streams::Error::Full).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert!(!Problem::from(streams::Error::Refused("NOAUTH".into())).detail.contains("NOAUTH"));
        assert_eq!(Problem::unauthorized().into_response().headers()[header::WWW_AUTHENTICATE], "Bearer");
    }

    #[test]
    fn the_body_is_a_problem_of_rfc_9457() {
        let json = serde_json::to_value(Problem::invalid("url", "not https").to_json()).unwrap();
        let expected = serde_json::json!({
            "type": "about:blank", "title": "Unprocessable Entity", "status": 422, "code": "invalid",
            "detail": "url: not https", "field": "url",
        });
        assert_eq!(json, expected);
    }
}
