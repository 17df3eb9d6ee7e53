//! How often somebody may ask, counted in Redis for all processes together: a window is a minute of the clock.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::response::Response;
use http::{HeaderName, HeaderValue};
use tokio::sync::oneshot;

use super::{Api, auth::Caller, error::Problem};
use crate::{clock::now_ms, streams};

const WINDOW: Duration = Duration::from_secs(60);

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// What somebody may still ask in this window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    limit: u64,
    used: u64,
    /// Until the next window.
    reset_seconds: u64,
}

impl Allowance {
    pub fn is_exceeded(&self) -> bool {
        self.used > self.limit
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    pub fn reset_seconds(&self) -> u64 {
        self.reset_seconds
    }

    /// The answer with the headers that say it.
    pub fn noted_in(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        let remaining = self.limit.saturating_sub(self.used);
        for (name, value) in [(LIMIT, self.limit), (REMAINING, remaining), (RESET, self.reset_seconds)] {
            headers.insert(name, HeaderValue::from(value));
        }
        response
    }

    /// Which of two leaves less.
    pub fn tighter(self, other: Self) -> Self {
        let left = |allowance: &Self| allowance.limit as i64 - allowance.used as i64;
        if left(&other) < left(&self) { other } else { self }
    }
}

/// Counts a request of a key. A tenant may have a lower limit for each of its keys.
pub(super) async fn of_caller(api: &Api, caller: &Caller) -> Result<Allowance, Problem> {
    let counted = count(api, &caller.id, api.settings.rate_limit_per_minute.into());
    let Some(tenant) = &caller.tenant else { return counted.await };
    let (counted, tenant) = futures_util::future::join(counted, api.streams.tenant(tenant)).await;
    let (mut allowance, limit) = (counted?, tenant?.and_then(|tenant| tenant.limits.rate_limit_per_minute));
    allowance.limit = limit.map_or(allowance.limit, |limit| allowance.limit.min(limit.into()));
    Ok(allowance)
}

/// Counts a request of `who`, which is a key, a webhook or an address, against `limit` a minute. A Redis that is full counts
/// nothing: what frees it must go on.
pub(super) async fn count(api: &Api, who: &str, limit: u64) -> Result<Allowance, Problem> {
    let now_s = now_ms() / 1000;
    let window = WINDOW.as_secs();
    let used = match place(api, who, now_s / window).await {
        Err(streams::Error::Full) => 0,
        counted => counted?,
    };
    Ok(Allowance { limit, used, reset_seconds: window - now_s % window })
}

/// Who asks, and in which window.
type Asking = (String, u64);
/// Where the count of each request goes, which is its place in the window.
type Places = Vec<oneshot::Sender<streams::Result<u64>>>;

/// Who waits for a count: what is asked of one window while an earlier count of it is under way is counted together.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<HashMap<Asking, Places>>);

impl Counters {
    /// Whether the first of those who wait for this window came with it: it has them counted.
    fn wait(&self, asking: &Asking, place: oneshot::Sender<streams::Result<u64>>) -> bool {
        match self.waiting().entry(asking.clone()) {
            Entry::Occupied(mut places) => {
                places.get_mut().push(place);
                false
            }
            Entry::Vacant(places) => {
                places.insert(vec![place]);
                true
            }
        }
    }

    /// Those that have come meanwhile; with none the window is forgotten.
    fn next(&self, asking: &Asking) -> Option<Places> {
        let mut waiting = self.waiting();
        let places = std::mem::take(waiting.get_mut(asking)?);
        if places.is_empty() {
            waiting.remove(asking);
            return None;
        }
        Some(places)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Asking, Places>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many requests there were in the window, up to this one.
async fn place(api: &Api, who: &str, window: u64) -> streams::Result<u64> {
    let (place, counted) = oneshot::channel();
    let asking = (who.to_owned(), window);
    if api.counters.wait(&asking, place) {
        // Nobody joins it: whoever asked waits for it, also where its first asker is gone.
        tokio::spawn(count_all(api.clone(), asking));
    }
    counted.await.unwrap_or_else(|_| Err(streams::Error::Unavailable("the count was broken off".to_owned())))
}

async fn count_all(api: Api, asking: Asking) {
    while let Some(places) = api.counters.next(&asking) {
        let requests = places.len() as u64;
        let counted = api.streams.count_requests(&asking.0, requests, asking.1, 2 * WINDOW).await;
        for (after, place) in (0..requests).rev().zip(places) {
            // Whoever asked may be gone.
            let _ = place.send(counted.clone().map(|last| last - after));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_is_allowed_and_the_headers_say_what_is_left() {
        let check = |used: u64, is_exceeded: bool, remaining: &str| {
            let allowance = Allowance { limit: 2, used, reset_seconds: 9 };
            assert_eq!(allowance.is_exceeded(), is_exceeded);
            let response = allowance.noted_in(Response::default());
            assert_eq!(response.headers()["ratelimit-remaining"], remaining);
            assert_eq!(
                (&response.headers()["ratelimit-limit"], &response.headers()["ratelimit-reset"]),
                (&"2".parse().unwrap(), &"9".parse().unwrap())
            );
        };
        check(1, false, "1");
        check(2, false, "0");
        check(3, true, "0");
    }

    #[test]
    fn of_two_limits_the_one_that_leaves_less_counts() {
        let allowance = |limit, used| Allowance { limit, used, reset_seconds: 1 };
        assert_eq!(allowance(10, 3).tighter(allowance(5, 1)), allowance(5, 1));
        assert_eq!(allowance(10, 12).tighter(allowance(5, 5)), allowance(10, 12));
    }
}
