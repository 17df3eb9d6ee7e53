//! What may stand behind the `?` of a request, as structs that the OpenAPI document is made from as well.

use std::{collections::HashSet, str::FromStr, time::Duration};

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use url::form_urlencoded;
use utoipa::IntoParams;

use super::{Api, error::Problem};
use crate::{
    clock::now_ms,
    domain::{
        id::{EventId, SubscriptionId},
        time::{parse_duration_ms, parse_moment},
    },
    manage::first_of,
};

/// Items of a page.
const LIMIT: std::ops::RangeInclusive<usize> = 1..=250;
const LIMIT_UNSAID: usize = 50;
const NO_MOMENT: &str =
    "must be RFC 3339 (2026-01-31T12:00:00Z), a date, Unix milliseconds, or an age such as 15m or 7d";

/// The query's parameters; none is taken twice, and one that is not known is refused.
pub(super) struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Api> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        parse(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn parse<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let mut seen = HashSet::new();
    let mut known = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        // That one says whose request it is; see `auth`.
        if name == "tenant" {
            continue;
        }
        if !seen.insert(name.to_string()) {
            return Err(Problem::invalid(name, "is there twice"));
        }
        known.append_pair(&name, &value);
    }
    let known = known.finish();
    let deserializer = serde_urlencoded::Deserializer::new(form_urlencoded::parse(known.as_bytes()));
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let (name, reason) = (error.path().to_string(), error.inner().to_string());
        let is_unknown = reason.starts_with("unknown field");
        Problem::invalid(name, if is_unknown { "there is no such parameter here".to_owned() } else { reason })
    })
}

/// How many items a page has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit(pub usize);

impl Default for Limit {
    fn default() -> Self {
        Self(LIMIT_UNSAID)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let allowed = text.parse().ok().filter(|limit| LIMIT.contains(limit)).map(Self);
        allowed
            .ok_or_else(|| D::Error::custom(format!("{} to {} is allowed, not `{text}`", LIMIT.start(), LIMIT.end())))
    }
}

/// A moment as people give it, as Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(pub u64);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_moment(&text, now_ms()).map(Self).ok_or_else(|| D::Error::custom(NO_MOMENT))
    }
}

/// A moment in a body, as Unix milliseconds.
pub(super) fn moment(field: &str, text: &str) -> Result<u64, Problem> {
    parse_moment(text, now_ms()).ok_or_else(|| Problem::invalid(field, NO_MOMENT))
}

/// What a parameter is that is read from its text.
pub(super) trait Wanted: FromStr {
    /// Completes "webhook_id: …".
    const WANTED: &str;
}

impl Wanted for SubscriptionId {
    const WANTED: &str = "must be a webhook's id (`wh_…`)";
}

impl Wanted for EventId {
    const WANTED: &str = "must be an event's id (`evt_…`)";
}

/// A value read from its text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parsed<T>(pub T);

impl<'de, T: Wanted> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| D::Error::custom(T::WANTED))
    }
}

/// Where a page begins, from the `next_cursor` of the one before.
pub(super) fn place<T: FromStr>(cursor: Option<&str>) -> Result<Option<T>, Problem> {
    let read =
        |text: &str| text.parse().map_err(|_| Problem::invalid("cursor", "must be a `next_cursor` of this list"));
    cursor.map(read).transpose()
}

/// Which part of a list is asked for.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PageParams {
    /// Items of the page, at most.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 250, example = 50)]
    pub limit: Limit,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl PageParams {
    /// How many items, and from where on.
    pub fn parts<T: FromStr>(self) -> Result<(usize, Option<T>), Problem> {
        Ok((self.limit.0, place(self.cursor.as_deref())?))
    }
}

/// The first `limit` of those whose key is behind `after`, and where the next page begins; all are in the order of their keys.
pub(super) fn page_of<T, K: PartialOrd>(
    all: Vec<T>,
    limit: usize,
    after: Option<K>,
    key: impl Fn(&T) -> K,
) -> (Vec<T>, Option<K>) {
    let is_behind = |item: &T| after.as_ref().is_none_or(|after| key(item) > *after);
    first_of(all.into_iter().filter(is_behind).take(limit + 1).collect(), limit, &key)
}

/// A length of time as people give it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window(pub Duration);

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let window = parse_duration_ms(&text).map(|ms| Self(Duration::from_millis(ms)));
        window.ok_or_else(|| D::Error::custom("must be whole hours up to 7 days, such as 24h or 7d"))
    }
}

/// Over which time statistics are asked for.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StatsParams {
    /// Whole hours up to 7 days; 24 hours where it is absent.
    #[param(value_type = Option<String>, example = "24h")]
    pub window: Option<Window>,
}

/// Which event type is meant.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EventTypeParams {
    /// The type.
    #[serde(rename = "type")]
    #[param(required = true)]
    pub event_type: Option<String>,
}

/// Which dead letters are asked for.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DeadLetterParams {
    /// Those of this webhook.
    #[param(value_type = Option<String>, pattern = "^wh_[0-9a-v]+$")]
    pub webhook_id: Option<Parsed<SubscriptionId>>,
    /// Those of events of this type.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    /// Those that died at this moment or later.
    #[param(value_type = Option<String>, example = "24h")]
    pub since: Option<Moment>,
    /// Those that died at this moment or before.
    #[param(value_type = Option<String>)]
    pub until: Option<Moment>,
    /// Those with this reason.
    #[param(example = "exhausted")]
    pub reason: Option<String>,
    /// Items of the page, at most.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 250, example = 50)]
    pub limit: Limit,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// Which events are asked for.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EventParams {
    /// Those of this type.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    /// Those published at this moment or later; 24 hours ago where it is absent.
    #[param(value_type = Option<String>, example = "7d")]
    pub since: Option<Moment>,
    /// Those published at this moment or before.
    #[param(value_type = Option<String>)]
    pub until: Option<Moment>,
    /// Items of the page, at most.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 250, example = 50)]
    pub limit: Limit,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// Which attempts are asked for.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AttemptParams {
    /// `success` or `failed`.
    #[param(example = "failed", pattern = "^(success|failed)$")]
    pub status: Option<String>,
    /// Those of events of this type.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    /// Those made at this moment or later.
    #[param(value_type = Option<String>, example = "24h")]
    pub since: Option<Moment>,
    /// Those made at this moment or before.
    #[param(value_type = Option<String>)]
    pub until: Option<Moment>,
    /// Those of this event; of each delivery the last 20.
    #[param(value_type = Option<String>, pattern = "^evt_[0-9a-v]+$")]
    pub event_id: Option<Parsed<EventId>>,
    /// Items of the page, at most.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 250, example = 50)]
    pub limit: Limit,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::StreamId;

    #[test]
    fn parameters_are_each_taken_once_and_none_is_passed_over() {
        let check = |query: &str, field: Option<&str>| {
            let refused = parse::<DeadLetterParams>(query).err().and_then(|problem| problem.field);
            assert_eq!(refused.as_deref(), field, "{query}");
        };
        check("", None);
        check("tenant=acme&limit=250&since=7d&type=a%20b", None);
        check("limit=0", Some("limit"));
        check("limit=251", Some("limit"));
        check("limit=x", Some("limit"));
        check("since=yesterday", Some("since"));
        check("sicne=7d", Some("sicne"));
        check("limit=1&limit=2", Some("limit"));
        check("webhook_id=evt_1", Some("webhook_id"));
    }

    #[test]
    fn a_page_without_a_limit_has_fifty_items() {
        let page = |query: &str| parse::<PageParams>(query).and_then(PageParams::parts::<StreamId>);
        assert_eq!(page(""), Ok((50, None)));
        assert_eq!(page("limit=7&cursor=5-1"), Ok((7, Some(StreamId { ms: 5, seq: 1 }))));
        assert_eq!(page("cursor=x").unwrap_err().field.as_deref(), Some("cursor"));
    }
}
