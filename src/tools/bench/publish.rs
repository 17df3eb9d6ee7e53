//! How many events the API takes a second, one by one and in batches; and how many deliveries come of them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::ensure;
use hdrhistogram::Histogram;

use super::{
    CONCURRENCY,
    api::Api,
    event::{EVENT_TYPE, Mark, now_us},
    load,
    measure::{beside_bare, deliveries, rate},
    reading::between,
    report::{Column, Figures},
    stage::Stage,
    webhooks::tenant,
};

/// Batches under way at once.
const BATCHES_AT_ONCE: usize = 16;
/// How long an answer may take, and how exactly it is kept.
const LONGEST_US: u64 = 60_000_000;
const DIGITS: u8 = 3;
/// Events of the first requests, which are not measured: one for each connection.
const WARM_UP: u64 = CONCURRENCY as u64;

pub const COLUMNS: [Column; 10] = [
    Column::new("EVENTS/S", "events_per_second", 0),
    Column::new("DELIVERIES/S", "deliveries_per_second", 0),
    Column::new("RATIO TO BARE", "ratio_to_bare", 3),
    Column::new("ANSWER: P50 MS", "answer_p50_ms", 2),
    Column::new("P99", "answer_p99_ms", 2),
    Column::new("CPU S/1,000: ENGINE", "engine_cpu_seconds_per_1000", 3),
    Column::new("REDIS", "redis_cpu_seconds_per_1000", 3),
    Column::new("CLIENT", "publisher_cpu_seconds_per_1000", 3),
    Column::new("ENGINE MB", "engine_peak_mb", 0),
    Column::new("DUPLICATES", "duplicates", 0),
];

/// Publishes so many events over HTTP, `batch` in a request, to a tenant with a webhook or without.
///
/// # Errors
/// The API refuses, or not every event arrived.
pub async fn run(stage: &Stage, events: u64, batch: u64) -> anyhow::Result<Figures> {
    let events = events.next_multiple_of(batch);
    let api = Api::new(&stage.api, tenant(0));
    let expected = if stage.webhook.is_some() { events } else { 0 };
    // What is first only makes connections: the receiver is told of none of it.
    stage.receiver.expect(0, 1).await?;
    publish_all(&api, WARM_UP.next_multiple_of(batch), batch).await?;
    stage.settled().await?;
    stage.receiver.expect(expected, 1).await?;
    let (start_us, mut published) = (now_us(), None);
    let publish = async {
        published = Some((publish_all(&api, events, batch).await?, now_us()));
        anyhow::Ok(())
    };
    let (mut figures, rate_of) = if expected > 0 {
        let deliver = async {
            publish.await?;
            stage.arrivals(expected).await
        };
        (deliveries(stage, expected, deliver).await?, "deliveries_per_second")
    } else {
        let before = stage.begin().await?;
        publish.await?;
        stage.settled().await?;
        (between(&before, &stage.reading().await?, events), "events_per_second")
    };
    if let Some((answers, end_us)) = published {
        figures.insert("events_per_second".into(), rate(events, start_us, end_us));
        figures.insert("answer_p50_ms".into(), answers.value_at_quantile(0.5) as f64 / 1000.0);
        figures.insert("answer_p99_ms".into(), answers.value_at_quantile(0.99) as f64 / 1000.0);
    }
    beside_bare(stage, events, rate_of, &mut figures).await?;
    Ok(figures)
}

/// Publishes all as fast as they are taken, and returns how long each answer took: microseconds.
async fn publish_all(api: &Api, events: u64, batch: u64) -> anyhow::Result<Histogram<u64>> {
    let times = Arc::new(Mutex::new(Histogram::new_with_bounds(1, LONGEST_US, DIGITS)?));
    let (api, noted) = (api.clone(), times.clone());
    let at_once = if batch == 1 { CONCURRENCY } else { BATCHES_AT_ONCE };
    let request = move |number| {
        let (api, noted) = (api.clone(), noted.clone());
        async move {
            let since = Instant::now();
            post(&api, number * batch, batch).await?;
            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            noted.saturating_record(since.elapsed().as_micros() as u64);
            Ok(())
        }
    };
    load::closed(events / batch, at_once, request).await?;
    let times = times.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(times.clone())
}

async fn post(api: &Api, first: u64, batch: u64) -> anyhow::Result<()> {
    if batch == 1 {
        return api.post("/events", event(first).into()).await.map(drop);
    }
    let events: Vec<Vec<u8>> = (first..first + batch).map(event).collect();
    let answer = api.post("/events/batch", [b"[", &events.join(&b","[..])[..], b"]"].concat().into()).await?;
    // A batch is taken even where an event in it is not.
    let answer = String::from_utf8_lossy(&answer);
    ensure!(!answer.contains("\"error\""), "an event of the run is refused: {answer}");
    Ok(())
}

/// An event that is due now, as JSON.
fn event(number: u64) -> Vec<u8> {
    let head = format!("{{\"type\":\"{EVENT_TYPE}\",\"data\":");
    [head.as_bytes(), &Mark::now(number).data(), b"}"].concat()
}
