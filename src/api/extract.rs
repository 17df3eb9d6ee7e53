//! Reading requests: bodies with limits, queries and ids; every refusal is a [`Problem`].

use std::{collections::BTreeMap, fmt::Display, str::FromStr, time::Duration};

use axum::{
    RequestPartsExt,
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Request},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderMap, header, request::Parts};
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use super::{Api, error::Problem};
use crate::{domain::time::parse_moment, manage::now_ms};

/// Bytes of a body that holds no event.
const BODY_BYTES: usize = 256 * 1024;
/// How long a body may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// Items of a page.
const LIMIT: std::ops::RangeInclusive<usize> = 1..=250;
const LIMIT_UNSAID: usize = 50;

pub(super) const JSON: &str = "application/json";

/// Parses JSON; the whole of it, and no field that is not known.
pub(super) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
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

/// The whole body, up to `limit` bytes.
pub(super) async fn read_body(body: Body, headers: &HeaderMap, limit: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::too_large(format!("the body is larger than the {limit} bytes that are allowed here"));
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let read = async {
        let (mut stream, mut read) = (body.into_data_stream(), BytesMut::new());
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| Problem::bad_request("broken_body", "the body broke off before its end"))?;
            if read.len() + chunk.len() > limit {
                return Err(too_large());
            }
            read.extend_from_slice(&chunk);
        }
        Ok(read.freeze())
    };
    tokio::time::timeout(BODY_WITHIN, read).await.map_err(|_| Problem::body_timeout())?
}

/// A JSON body.
pub(super) struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Api> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if media_type(&parts.headers) != JSON {
            return Err(Problem::unsupported_media_type(JSON));
        }
        parse(&read_body(body, &parts.headers, BODY_BYTES).await?).map(Self)
    }
}

/// A JSON body that may be left out.
pub(super) struct OptionalJson<T>(pub T);

impl<T: DeserializeOwned + Default> FromRequest<Api> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let body = read_body(body, &parts.headers, BODY_BYTES).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        if media_type(&parts.headers) != JSON {
            return Err(Problem::unsupported_media_type(JSON));
        }
        parse(&body).map(Self)
    }
}

/// The one id in the path.
pub(super) struct Id(pub String);

impl FromRequestParts<Api> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        parts.extract::<Path<String>>().await.map(|Path(id)| Self(id)).map_err(|_| Problem::not_found("id"))
    }
}

/// The query's parameters; each is taken once, and what is left at [`Query::finish`] is refused.
pub(super) struct Query(BTreeMap<String, String>);

impl FromRequestParts<Api> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

impl Query {
    fn parse(query: &str) -> Result<Self, Problem> {
        let mut parameters = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            // That one says whose request it is; see `auth`.
            if name != "tenant" && parameters.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(Problem::invalid(name, "is there twice"));
            }
        }
        Ok(Self(parameters))
    }

    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    pub fn limit(&mut self) -> Result<usize, Problem> {
        let Some(text) = self.take("limit") else { return Ok(LIMIT_UNSAID) };
        text.parse().ok().filter(|limit| LIMIT.contains(limit)).ok_or_else(|| {
            Problem::invalid("limit", format!("{} to {} is allowed, not `{text}`", LIMIT.start(), LIMIT.end()))
        })
    }

    pub fn cursor<T: FromStr>(&mut self) -> Result<Option<T>, Problem> {
        self.parsed("cursor", "must be a `next_cursor` of this list")
    }

    /// A parameter that is an id or the like; `wanted` completes "cursor: …".
    pub fn parsed<T: FromStr>(&mut self, name: &'static str, wanted: &str) -> Result<Option<T>, Problem> {
        self.take(name).map(|text| text.parse().map_err(|_| Problem::invalid(name, wanted))).transpose()
    }

    /// A moment, as Unix milliseconds.
    pub fn moment(&mut self, name: &'static str) -> Result<Option<u64>, Problem> {
        self.take(name).map(|text| moment(name, &text)).transpose()
    }

    pub fn finish(self) -> Result<(), Problem> {
        match self.0.into_keys().next() {
            Some(name) => Err(Problem::invalid(name, "there is no such parameter here")),
            None => Ok(()),
        }
    }
}

/// A moment as people give it, as Unix milliseconds.
pub(super) fn moment(field: impl Into<String> + Display, text: &str) -> Result<u64, Problem> {
    parse_moment(text, now_ms()).ok_or_else(|| {
        let wanted = "must be RFC 3339 (2026-01-31T12:00:00Z), a date, Unix milliseconds, or an age such as 15m or 7d";
        Problem::invalid(field, wanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_taken_whole_or_refused_with_its_place() {
        let check = |text: &str, code: &str| {
            let problem = parse::<BTreeMap<String, u32>>(text.as_bytes()).unwrap_err();
            assert_eq!(problem.code, code, "{text}: {}", problem.detail);
        };
        assert_eq!(parse::<Vec<u32>>(b" [1] ").unwrap(), [1]);
        check("", "invalid_json");
        check("{", "invalid_json");
        check("{} {}", "invalid_json");
        check("[]", "invalid_json");
        check(r#"{"a":-1}"#, "invalid");
        check(r#"{"a":"x"}"#, "invalid");
    }

    #[test]
    fn parameters_are_each_taken_once_and_none_is_passed_over() {
        let refused = |query: &str| {
            let read = Query::parse(query).and_then(|mut query| {
                query.limit()?;
                query.moment("since")?;
                query.finish()
            });
            read.err().and_then(|problem| problem.field)
        };
        let check = |query: &str, field: Option<&str>| assert_eq!(refused(query).as_deref(), field, "{query}");
        check("", None);
        check("tenant=acme&limit=250&since=7d", None);
        check("limit=0", Some("limit"));
        check("limit=251", Some("limit"));
        check("limit=x", Some("limit"));
        check("since=yesterday", Some("since"));
        check("sicne=7d", Some("sicne"));
        check("limit=1&limit=2", Some("limit"));
    }
}
