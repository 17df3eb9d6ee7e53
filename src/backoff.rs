//! Waiting for Redis to come back: longer each time, said once, and once more when it is back.

use std::time::{Duration, Instant};

use crate::{metrics, streams::Error};

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// The pauses of one worker.
pub struct Backoff {
    what: &'static str,
    pause: Duration,
    failing_since: Option<Instant>,
}

impl Backoff {
    /// `what` is interrupted meanwhile; it is named in the log.
    pub fn new(what: &'static str) -> Self {
        Self { what, pause: FIRST, failing_since: None }
    }

    /// Notes a failure and waits: 50 ms at first, up to 2 s.
    pub async fn pause(&mut self, error: &Error) {
        tokio::time::sleep(self.failed(error)).await;
    }

    /// Notes a failure; says how long to wait.
    pub fn failed(&mut self, error: &Error) -> Duration {
        metrics::redis_error(error.kind());
        if self.failing_since.is_none() {
            self.failing_since = Some(Instant::now());
            tracing::warn!(what = self.what, %error, "interrupted; it goes on by itself");
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST);
        pause
    }

    /// Notes that it works, again or still.
    pub fn recovered(&mut self) {
        self.pause = FIRST;
        if let Some(since) = self.failing_since.take() {
            tracing::info!(what = self.what, after_ms = since.elapsed().as_millis() as u64, "goes on");
        }
    }
}
