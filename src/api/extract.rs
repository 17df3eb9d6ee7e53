//! Reading requests: bodies with limits, and ids; every refusal is a [`Problem`].

use std::{sync::Arc, time::Duration};

use axum::{
    RequestPartsExt,
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Request},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderMap, header, request::Parts};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Api, error::Problem};
use crate::{domain::event::is_array, manage::Seed};

/// Bytes of a body that holds no event.
pub(super) const BODY_BYTES: usize = 256 * 1024;
/// What the bodies of all requests under way may take up together.
const ROOM_KIB: usize = 256 * 1024;
/// How long a body may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// How long what has arrived may wait for memory.
const ROOM_WITHIN: Duration = Duration::from_secs(5);
pub(super) const JSON: &str = "application/json";

/// Parses a JSON object; the whole of it, and no field that is not known.
pub(super) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    if is_array(text) {
        return Err(Problem::bad_request("invalid_json", "the body must be an object, not an array"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() && path != "." {
            return Problem::invalid(path, inner.to_string());
        }
        Problem::bad_request("invalid_json", format!("the body is not the JSON that is wanted here: {inner}"))
    })?;
    deserializer.end().map_err(|error| Problem::bad_request("invalid_json", format!("after the JSON: {error}")))?;
    Ok(value)
}

/// The media type without its parameters, in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A body that was read whole; with its value goes the memory that it was granted.
pub(super) struct Taken {
    pub bytes: Bytes,
    granted: Granted,
}

/// The memory that a body was granted. A request that carries it has a body that was read before, and needs no more.
#[derive(Clone)]
pub(super) struct Granted(
    #[expect(dead_code, reason = "it is given back when it is dropped")] Arc<Option<OwnedSemaphorePermit>>,
);

impl Taken {
    /// For a request that goes on with it.
    pub fn into_parts(self) -> (Bytes, Granted) {
        (self.bytes, self.granted)
    }
}

impl std::ops::Deref for Taken {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The whole body, up to `limit` bytes. Memory is granted for what has arrived, so that who sends nothing takes none.
pub(super) async fn read_body(api: &Api, body: Body, parts: &Parts, limit: usize) -> Result<Taken, Problem> {
    let too_large = || Problem::too_large(format!("the body is larger than the {limit} bytes that are allowed here"));
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let before = parts.extensions.get::<Granted>().cloned();
    let read = async {
        let (mut stream, mut read, mut permit) = (body.into_data_stream(), BytesMut::new(), None);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| Problem::bad_request("broken_body", "the body broke off before its end"))?;
            if read.len() + chunk.len() > limit {
                return Err(too_large());
            }
            if before.is_none() {
                api.room.grow(&mut permit, read.len() + chunk.len()).await?;
            }
            read.extend_from_slice(&chunk);
        }
        Ok((read.freeze(), permit))
    };
    let (bytes, permit) = tokio::time::timeout(BODY_WITHIN, read).await.map_err(|_| Problem::body_timeout())??;
    Ok(Taken { bytes, granted: before.unwrap_or_else(|| Granted(Arc::new(permit))) })
}

/// Memory for the bodies of all requests together.
#[derive(Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(ROOM_KIB)))
    }

    /// Grants what `granted` lacks of so many bytes.
    async fn grow(&self, granted: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), Problem> {
        let has = granted.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let lacks = bytes.div_ceil(1024).min(ROOM_KIB).saturating_sub(has);
        if lacks == 0 {
            return Ok(());
        }
        let more = tokio::time::timeout(ROOM_WITHIN, self.0.clone().acquire_many_owned(lacks as u32)).await;
        let more = more.map_err(|_| Problem::overloaded())?.map_err(|_| Problem::overloaded())?;
        match granted {
            Some(granted) => granted.merge(more),
            None => *granted = Some(more),
        }
        Ok(())
    }
}

/// A JSON body.
pub(super) struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Api> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if media_type(&parts.headers) != JSON {
            return Err(Problem::unsupported_media_type(JSON));
        }
        parse(&read_body(api, body, &parts, BODY_BYTES).await?).map(Self)
    }
}

/// A JSON body that may be left out, or null.
pub(super) struct OptionalJson<T>(pub T);

impl<T: DeserializeOwned + Default> FromRequest<Api> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let body = read_body(api, body, &parts, BODY_BYTES).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        if media_type(&parts.headers) != JSON {
            return Err(Problem::unsupported_media_type(JSON));
        }
        parse::<Option<T>>(&body).map(|body| Self(body.unwrap_or_default()))
    }
}

/// What the id of a new thing is made of: the same in each repeat of a request with an `Idempotency-Key`.
pub(super) struct NewId(pub Seed);

impl FromRequestParts<Api> for NewId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        Ok(Self(parts.extensions.get().copied().unwrap_or_else(Seed::draw)))
    }
}

/// The one id in the path, or as many as the type says.
pub(super) struct Id<T = String>(pub T);

impl<T: DeserializeOwned + Send + 'static> FromRequestParts<Api> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        parts.extract::<Path<T>>().await.map(|Path(id)| Self(id)).map_err(|_| Problem::not_found("id"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn json_is_taken_whole_or_refused_with_its_place() {
        let check = |text: &str, code: &str| {
            let problem = parse::<BTreeMap<String, u32>>(text.as_bytes()).unwrap_err();
            assert_eq!(problem.code, code, "{text}: {}", problem.detail);
        };
        assert_eq!(parse::<BTreeMap<String, u32>>(b" {\"a\":1} ").unwrap()["a"], 1);
        check("", "invalid_json");
        check("{", "invalid_json");
        check("{} {}", "invalid_json");
        check("[]", "invalid_json");
        check(" [1]", "invalid_json");
        check(r#"{"a":-1}"#, "invalid");
        check(r#"{"a":"x"}"#, "invalid");
    }

    #[tokio::test]
    async fn memory_is_granted_for_the_whole_of_a_body_however_it_is_cut() {
        let (room, mut granted) = (Room::new(), None);
        for bytes in 1..=2049 {
            room.grow(&mut granted, bytes).await.unwrap();
        }
        assert_eq!(room.0.available_permits(), ROOM_KIB - 3);
        drop(granted);
        assert_eq!(room.0.available_permits(), ROOM_KIB);
    }
}
