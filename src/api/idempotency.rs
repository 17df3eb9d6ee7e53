//! `Idempotency-Key`: the repeat of a request is answered as the first was, for a day.
//!
//! The answer is kept sealed with a key made of the caller's API key and the idempotency key. Redis has neither, so nobody
//! who reads it can read an answer that holds a secret, and the repeat still gets it. A request that was broken off is
//! done again with the same [`Seed`], by which a webhook, a key, a replay or a batch of events finds what it had made; what
//! has no seed (a rotation, a resend, a test) is then done twice.

use std::time::Duration;

use axum::{
    body::{Body, to_bytes},
    extract::{FromRequestParts, MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use sha2::{Digest, Sha256};

use super::{
    Api, BATCH_BYTES, REQUEST_WITHIN,
    auth::{Caller, Tenant, bearer},
    error::{AlreadyThere, Problem},
    events,
    extract::{BODY_BYTES, read_body},
};
use crate::{clock::now_ms, domain::digest::digest, manage::Seed, secrets::Sealer, streams};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const KEY_BYTES: std::ops::RangeInclusive<usize> = 1..=255;
const WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of an answer that is kept; a larger one is not, and its repeat is done again.
const ANSWER_BYTES: usize = 1024 * 1024;

/// The caller's idempotency key; `None` where there is none.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(&IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| KEY_BYTES.contains(&key.len()));
    key.map(|key| Some(key.to_owned()))
        .ok_or_else(|| Problem::invalid("Idempotency-Key", "1 to 255 characters of printable ASCII are allowed"))
}

/// A request with an idempotency key that is under way, or was broken off.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Claim {
    /// Of what is asked.
    fingerprint: String,
    /// Unix milliseconds; 0 once it has failed.
    since_ms: u64,
    seed: Seed,
    /// Sets it apart from the claim of another repeat, whose seed may be the same.
    nonce: u64,
}

impl Claim {
    fn new(fingerprint: String) -> Self {
        Self { fingerprint, since_ms: now_ms(), seed: Seed::draw(), nonce: Seed::draw().random }
    }

    fn write(&self) -> String {
        let Self { fingerprint, since_ms, seed, nonce } = self;
        format!("pending {fingerprint} {since_ms} {} {} {nonce}", seed.ms, seed.random)
    }

    fn is_under_way(&self) -> bool {
        now_ms().saturating_sub(self.since_ms) < REQUEST_WITHIN.as_millis() as u64
    }
}

/// What is known of a request with an idempotency key.
enum Kept {
    Pending(Claim),
    Answered { fingerprint: String, sealed: String },
}

impl Kept {
    fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (kind, fingerprint) = (words.next()?, words.next()?.to_owned());
        let mut word = || words.next();
        match kind {
            "pending" => Some(Self::Pending(Claim {
                fingerprint,
                since_ms: word()?.parse().ok()?,
                seed: Seed { ms: word()?.parse().ok()?, random: word()?.parse().ok()? },
                nonce: word()?.parse().ok()?,
            })),
            "answered" => Some(Self::Answered { fingerprint, sealed: word()?.to_owned() }),
            _ => None,
        }
    }

    fn fingerprint(&self) -> &str {
        match self {
            Self::Pending(Claim { fingerprint, .. }) | Self::Answered { fingerprint, .. } => fingerprint,
        }
    }
}

/// Answers the repeat of a POST as the first was answered.
pub(super) async fn keep_answers(State(api): State<Api>, request: Request, next: Next) -> Result<Response, Problem> {
    // A single event has its key in the log itself.
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    if request.method() != Method::POST || route.as_deref() == Some(events::PATH) {
        return Ok(next.run(request).await);
    }
    let Some(key) = idempotency_key(request.headers())? else { return Ok(next.run(request).await) };
    let Some(caller) = request.extensions().get::<Caller>() else { return Err(Problem::unauthorized()) };
    let (caller, token) = (caller.id.clone(), bearer(request.headers()).unwrap_or_default().to_owned());
    let (mut parts, body) = request.into_parts();
    let Tenant(tenant) = Tenant::from_request_parts(&mut parts, &api).await?;
    let owner = Owner::new(&tenant, &caller, &token, &key);
    let limit = if route.as_deref() == Some(events::BATCH_PATH) { BATCH_BYTES } else { BODY_BYTES };
    let (body, granted) = read_body(&api, body, &parts, limit).await?.into_parts();
    parts.extensions.insert(granted);
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let fingerprint = digest(&[target.as_bytes(), &body]);
    let request = Request::from_parts(parts, Body::from(body));

    let mut claim = Claim::new(fingerprint);
    let mine = claim.write();
    let found = api.streams.claim_answer(&owner.tenant, &owner.name, &mine, WINDOW).await?;
    // A call that was repeated over a new connection finds its own.
    let Some(found) = found.filter(|found| *found != mine) else {
        return Ok(answer(&api, &owner, claim, request, next).await);
    };
    match Kept::read(&found) {
        Some(kept) if kept.fingerprint() != claim.fingerprint => Err(Problem::idempotency_conflict("Idempotency-Key")),
        Some(Kept::Answered { sealed, .. }) => {
            owner.open(&sealed).ok_or_else(|| Problem::idempotency_conflict("Idempotency-Key"))
        }
        Some(Kept::Pending(other)) if other.is_under_way() => Err(Problem::in_progress()),
        kept => {
            // It was broken off: what it may have made is found by its seed.
            if let Some(Kept::Pending(broken_off)) = kept {
                claim.seed = broken_off.seed;
            }
            if !owner.replace(&api, &found, Some(&claim.write())).await? {
                return Err(Problem::in_progress());
            }
            Ok(answer(&api, &owner, claim, request, next).await)
        }
    }
}

/// Does what is asked, and keeps the answer if it is a good one, or says that the thing is there already. What was refused
/// may be corrected and sent again with the same key; of what failed nobody knows how far it came: its seed stays.
async fn answer(api: &Api, owner: &Owner, claim: Claim, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(claim.seed);
    let (parts, body) = next.run(request).await.into_parts();
    let body = match to_bytes(body, usize::MAX).await {
        Ok(body) => body,
        Err(error) => return Problem::internal(&error).into_response(),
    };
    let is_made = parts.status.is_success() || parts.extensions.get::<AlreadyThere>().is_some();
    let note = if is_made && body.len() <= ANSWER_BYTES {
        let sealed = owner.seal(parts.status, &parts.headers, &body);
        Some(format!("answered {} {sealed}", claim.fingerprint))
    } else if is_made || parts.status.is_server_error() {
        Some(Claim { since_ms: 0, ..claim.clone() }.write())
    } else {
        None
    };
    // A repeat that came in between, since this took too long, has put its own there.
    if let Err(error) = owner.replace(api, &claim.write(), note.as_deref()).await {
        tracing::warn!(%error, "the answer to a request with an Idempotency-Key could not be kept");
    }
    Response::from_parts(parts, Body::from(body))
}

/// Under which name the answers to one caller's idempotency key are kept, and how they are sealed.
struct Owner {
    tenant: String,
    name: String,
    sealer: Sealer,
}

impl Owner {
    fn new(tenant: &str, caller: &str, token: &str, key: &str) -> Self {
        let secret = [b"posthaste answer\0", token.as_bytes(), b"\0", key.as_bytes()].concat();
        let sealer = Sealer::new(&[Sha256::digest(secret).into()]);
        Self { tenant: tenant.to_owned(), name: digest(&[caller.as_bytes(), key.as_bytes()]), sealer }
    }

    /// Puts `note`, or nothing, in the place of `kept`; `false` where something else is kept by now.
    async fn replace(&self, api: &Api, kept: &str, note: Option<&str>) -> streams::Result<bool> {
        api.streams.swap_answer(&self.tenant, &self.name, kept, note, WINDOW).await
    }

    fn seal(&self, status: StatusCode, headers: &HeaderMap, body: &Bytes) -> String {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let text = format!("{}\n{kind}\n{}", status.as_u16(), String::from_utf8_lossy(body));
        self.sealer.seal(&self.name, &text)
    }

    /// `None` where it was sealed for another caller's key.
    fn open(&self, sealed: &str) -> Option<Response> {
        let text = self.sealer.open(&self.name, sealed).ok()?;
        let (status, rest) = text.split_once('\n')?;
        let (kind, body) = rest.split_once('\n')?;
        let mut response = Response::new(Body::from(body.to_owned()));
        *response.status_mut() = status.parse().ok()?;
        if let Some(kind) = HeaderValue::from_str(kind).ok().filter(|kind| !kind.is_empty()) {
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        Some(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_survives_its_text() {
        let claim = Claim { fingerprint: "f".into(), since_ms: 7, seed: Seed { ms: 5, random: u64::MAX }, nonce: 9 };
        assert!(matches!(Kept::read(&claim.write()), Some(Kept::Pending(read)) if read == claim));
        let answered = Kept::read("answered f sealed:x");
        assert!(matches!(answered, Some(Kept::Answered { sealed, .. }) if sealed == "sealed:x"));
        for bad in ["", "pending", "pending f 1 2 3", "answered f", "other f x"] {
            assert!(Kept::read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn an_answer_opens_for_the_same_keys_only_and_shows_nothing() {
        let owner = |token: &str, key: &str| Owner::new("acme", "key_1", token, key);
        let sealed =
            owner("token", "k").seal(StatusCode::CREATED, &HeaderMap::new(), &Bytes::from("{\"secret\":\"whsec_x\"}"));
        assert!(!sealed.contains("whsec_x") && !sealed.contains(' '));
        let opened = owner("token", "k").open(&sealed).unwrap();
        assert_eq!(
            (opened.status(), &opened.headers()[&REPLAYED]),
            (StatusCode::CREATED, &HeaderValue::from_static("true"))
        );
        assert!(owner("other", "k").open(&sealed).is_none());
        assert!(owner("token", "l").open(&sealed).is_none());
    }

    #[test]
    fn a_key_is_printable_and_short() {
        let read = |value: &str| {
            let headers = [(IDEMPOTENCY_KEY, HeaderValue::from_str(value).unwrap())].into_iter().collect();
            idempotency_key(&headers).map_err(|problem| problem.field)
        };
        assert_eq!(read("k"), Ok(Some("k".to_owned())));
        assert_eq!(idempotency_key(&HeaderMap::new()), Ok(None));
        for bad in ["", "x".repeat(256).as_str()] {
            assert_eq!(read(bad), Err(Some("Idempotency-Key".to_owned())));
        }
    }
}
