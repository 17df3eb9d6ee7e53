//! The story, step by step.

use std::{
    fmt::Display,
    future::Future,
    io::Write,
    time::{Duration, SystemTime},
};

use anyhow::{Context, anyhow, ensure};
use tokio::time::{Instant, sleep, timeout};

use super::receiver::{Arrival, Receiver};
use crate::{
    domain::{
        event::{Event, NewEvent},
        outcome::Reason,
        retry::RetryPolicy,
    },
    manage::{DeadItem, DeadLetterFilter, Manager, NewWebhook, RetryInput},
    publish::Publisher,
    streams::{DeadLetter, Versioned},
};

/// How long anything is waited for, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at what Redis has.
const LOOK: Duration = Duration::from_millis(20);
/// By so much the receiver's clock may see a delay shorter than Redis' clock does.
const CLOCKS_DIFFER_AT_MOST: Duration = Duration::from_millis(5);

const TENANT: &str = "acme";
const HEALTHY: &str = "crm";
const FAILING: &str = "billing";
const RETRIES_AFTER_MS: [u64; 3] = [500, 1_000, 2_000];
/// The front door for any producer.
const FRONT_DOOR: &str = "posthaste:in";
const PLAIN_DATA: &str = r#"{"text":"from a plain Redis client"}"#;

/// What the story is played on.
pub struct Stage {
    pub manager: Manager,
    pub publisher: Publisher,
    pub receiver: Receiver,
    pub redis_url: String,
}

/// Where the story is told.
struct Teller<'a, W> {
    out: &'a mut W,
    steps: u32,
}

impl<W: Write> Teller<'_, W> {
    fn step(&mut self, title: &str) -> anyhow::Result<()> {
        self.steps += 1;
        let step = self.steps;
        self.say(format_args!("\n{step}. {title}"))
    }

    fn line(&mut self, text: impl Display) -> anyhow::Result<()> {
        self.say(format_args!("   {text}"))
    }

    fn say(&mut self, text: impl Display) -> anyhow::Result<()> {
        writeln!(self.out, "{text}").and_then(|()| self.out.flush()).context("the story cannot be written")
    }
}

/// An event of the story.
struct Told {
    id: String,
    event_type: &'static str,
    published_at: SystemTime,
}

/// Plays the story and tells it on `out`.
///
/// # Errors
/// What did not come true: a sentence that names the step.
pub async fn tell(out: &mut impl Write, stage: &Stage) -> anyhow::Result<()> {
    let mut teller = Teller { out, steps: 0 };
    play(&mut teller, stage).await.with_context(|| format!("step {} of the demo", teller.steps))
}

async fn play(teller: &mut Teller<'_, impl Write>, stage: &Stage) -> anyhow::Result<()> {
    let start = Instant::now();
    teller.say(format_args!("A private Redis, an engine, and a receiver on {}.", stage.receiver.address()))?;
    let (healthy, failing) = create_webhooks(teller, stage).await?;
    let (messages, invoice) = publish(teller, stage).await?;
    watch_signed_arrivals(teller, stage, &messages).await?;
    watch_retries(teller, stage, &invoice).await?;
    let letter = find_dead_letter(teller, stage, &invoice).await?;
    replay(teller, stage, &invoice, &letter).await?;
    publish_from_outside(teller, stage).await?;
    end(teller, stage, &healthy, &failing, start).await
}

async fn create_webhooks(teller: &mut Teller<'_, impl Write>, stage: &Stage) -> anyhow::Result<(Versioned, Versioned)> {
    teller.step("Two webhooks")?;
    let retry = RetryPolicy::Schedule { delays_ms: RETRIES_AFTER_MS.to_vec(), jitter: 0.0 };
    let healthy = create_webhook(stage, HEALTHY, "message.*", None).await?;
    let failing = create_webhook(stage, FAILING, "invoice.paid", Some(RetryInput::Policy(retry))).await?;
    stage.receiver.fail(FAILING);
    let id = |webhook: &Versioned| webhook.subscription.id.to_string();
    teller.line(format_args!("{}  {HEALTHY} wants message.*", id(&healthy)))?;
    let delays = RETRIES_AFTER_MS.map(|ms| format!("{}", ms as f64 / 1000.0)).join(", ");
    teller.line(format_args!(
        "{}  {FAILING} wants invoice.paid, retried after {delays} s; its endpoint answers 503 for now",
        id(&failing)
    ))?;
    Ok((healthy, failing))
}

async fn create_webhook(
    stage: &Stage,
    name: &str,
    pattern: &str,
    retry: Option<RetryInput>,
) -> anyhow::Result<Versioned> {
    let new = NewWebhook {
        url: stage.receiver.url(name),
        events: vec![pattern.to_owned()],
        name: Some(name.to_owned()),
        retry,
        ..NewWebhook::default()
    };
    let webhook = stage.manager.create_webhook(TENANT, new).await?;
    stage.receiver.trust(name, &webhook.subscription.secrets.current);
    Ok(webhook)
}

async fn publish(teller: &mut Teller<'_, impl Write>, stage: &Stage) -> anyhow::Result<(Vec<Told>, Told)> {
    teller.step("Three events are published")?;
    let mut messages = Vec::new();
    for (event_type, data) in [("message.created", r#"{"text":"hello"}"#), ("message.read", r#"{"by":"ann"}"#)] {
        messages.push(publish_one(teller, stage, event_type, data).await?);
    }
    let invoice = publish_one(teller, stage, "invoice.paid", r#"{"amount_cents":4200}"#).await?;
    Ok((messages, invoice))
}

async fn publish_one(
    teller: &mut Teller<'_, impl Write>,
    stage: &Stage,
    event_type: &'static str,
    data: &'static str,
) -> anyhow::Result<Told> {
    let published_at = SystemTime::now();
    let event =
        NewEvent { tenant: TENANT.into(), event_type: event_type.into(), data: data.into(), ..NewEvent::default() };
    let id = stage.publisher.publish(event).await?.id.to_string();
    teller.line(format_args!("{id}  {event_type}  {data}"))?;
    Ok(Told { id, event_type, published_at })
}

async fn watch_signed_arrivals(
    teller: &mut Teller<'_, impl Write>,
    stage: &Stage,
    messages: &[Told],
) -> anyhow::Result<()> {
    teller.step("The messages arrive, signed")?;
    for Told { id, event_type, published_at } in messages {
        let arrival = arrival(stage, HEALTHY, event_type, |arrival| arrival.event_id == *id).await?;
        let after = millis(arrival.at, *published_at);
        teller.line(format_args!("{id}  {after} ms after it was published; {}", checked(&arrival)?))?;
    }
    Ok(())
}

async fn watch_retries(teller: &mut Teller<'_, impl Write>, stage: &Stage, invoice: &Told) -> anyhow::Result<()> {
    teller.step("The invoice fails, and is tried again")?;
    let first = failed_attempt(stage, invoice, 1).await?;
    teller.line("attempt 1: 503")?;
    let mut before = first.at;
    for (attempt, delay_ms) in (2..).zip(RETRIES_AFTER_MS) {
        let arrival = failed_attempt(stage, invoice, attempt).await?;
        let gap = arrival.at.duration_since(before).unwrap_or_default();
        ensure!(
            gap + CLOCKS_DIFFER_AT_MOST >= Duration::from_millis(delay_ms),
            "attempt {attempt} came {gap:?} after the one before, not {delay_ms} ms"
        );
        teller.line(format_args!("attempt {attempt}: 503, {:.3} s after the one before", gap.as_secs_f64()))?;
        before = arrival.at;
    }
    Ok(())
}

async fn failed_attempt(stage: &Stage, invoice: &Told, attempt: u32) -> anyhow::Result<Arrival> {
    let attempt = attempt.to_string();
    let fits = |arrival: &Arrival| arrival.event_id == invoice.id && arrival.attempt == attempt;
    let arrival = arrival(stage, FAILING, invoice.event_type, fits).await?;
    checked(&arrival)?;
    Ok(arrival)
}

async fn find_dead_letter(
    teller: &mut Teller<'_, impl Write>,
    stage: &Stage,
    invoice: &Told,
) -> anyhow::Result<DeadLetter> {
    teller.step("Its retries are used up: it becomes a dead letter")?;
    let (letter, event) = until("there is a dead letter", async || Ok(dead_letters(stage).await?.pop())).await?;
    let attempts = RETRIES_AFTER_MS.len() as u32 + 1;
    ensure!(
        letter.reason == Reason::Exhausted && letter.attempts == attempts && letter.last_status == Some(503),
        "the dead letter says {letter:?}"
    );
    let event = event.context("the dead letter's event is lost")?;
    ensure!(event.id.to_string() == invoice.id, "the dead letter is of another event, {}", event.id);
    let (id, reason) = (letter.delivery, letter.reason.name());
    teller.line(format_args!("{id}"))?;
    teller.line(format_args!("reason: {reason}; {attempts} attempts, the last answered 503; its event is kept"))?;
    Ok(letter)
}

async fn replay(
    teller: &mut Teller<'_, impl Write>,
    stage: &Stage,
    invoice: &Told,
    letter: &DeadLetter,
) -> anyhow::Result<()> {
    teller.step("The endpoint recovers, and the dead letter is replayed")?;
    stage.receiver.recover(FAILING);
    let filter = DeadLetterFilter { webhook: Some(letter.delivery.subscription), ..DeadLetterFilter::default() };
    let count = stage.manager.replay_dead_letters(TENANT, &filter, None, |_| {}).await?;
    ensure!(count == 1, "{count} dead letters were replayed, not 1");
    let attempt = (letter.attempts + 1).to_string();
    let fits = |arrival: &Arrival| arrival.event_id == invoice.id && arrival.attempt == attempt;
    let arrival = arrival(stage, FAILING, invoice.event_type, fits).await?;
    teller.line(format_args!("{}  arrives as attempt {attempt}; {}", invoice.id, checked(&arrival)?))?;
    until("the dead letter is gone", async || Ok(dead_letters(stage).await?.is_empty().then_some(()))).await?;
    teller.line("dead letters left: 0")
}

async fn publish_from_outside(teller: &mut Teller<'_, impl Write>, stage: &Stage) -> anyhow::Result<()> {
    teller.step("Any Redis client can publish")?;
    let mut connection = redis::Client::open(&*stage.redis_url)?.get_multiplexed_async_connection().await?;
    let event_type = "message.updated";
    let mut command = redis::cmd("XADD");
    command.arg(FRONT_DOOR).arg("*").arg("tenant").arg(TENANT).arg("type").arg(event_type);
    let published_at = SystemTime::now();
    let entry: String = command.arg("data").arg(PLAIN_DATA).query_async(&mut connection).await?;
    teller.line(format_args!("XADD {FRONT_DOOR} * tenant {TENANT} type {event_type} data '{PLAIN_DATA}'"))?;
    teller.line(format_args!("{entry}"))?;
    let arrival = arrival(stage, HEALTHY, event_type, |arrival| arrival.event_type == event_type).await?;
    let after = millis(arrival.at, published_at);
    teller.line(format_args!("{}  arrives {after} ms after the XADD; {}", arrival.event_id, checked(&arrival)?))
}

async fn end(
    teller: &mut Teller<'_, impl Write>,
    stage: &Stage,
    healthy: &Versioned,
    failing: &Versioned,
    start: Instant,
) -> anyhow::Result<()> {
    for (webhook, delivered) in [(healthy, 3), (failing, 1)] {
        let id = webhook.subscription.id.to_string();
        until(format_args!("nothing waits for {}", webhook.subscription.name), async || {
            let state = stage.manager.webhook(TENANT, &id).await?.state;
            let is_done = state.fresh + state.waiting + state.leased + state.dead == 0;
            Ok((is_done && state.delivered == delivered).then_some(()))
        })
        .await?;
    }
    let seconds = start.elapsed().as_secs_f64();
    teller.say(format_args!("\n4 events were published and 4 delivered, in {seconds:.1} s. Nothing was lost."))
}

/// Waits for a request that fits.
async fn arrival(
    stage: &Stage,
    endpoint: &str,
    event_type: &str,
    fits: impl Fn(&Arrival) -> bool,
) -> anyhow::Result<Arrival> {
    let fits = |arrival: &Arrival| arrival.endpoint == endpoint && fits(arrival);
    let what = format_args!("{event_type} arrives at {endpoint}").to_string();
    within(&what, stage.receiver.arrival(fits)).await?.with_context(|| format!("the receiver ended before {what}"))
}

/// Which of an arrival's signatures hold, if all do.
fn checked(arrival: &Arrival) -> anyhow::Result<String> {
    ensure!(!arrival.signatures.is_empty(), "{} came without a signature", arrival.event_id);
    let mut holding = Vec::new();
    for checked in &arrival.signatures {
        let scheme = checked.scheme.name();
        checked.result.as_ref().map_err(|refusal| anyhow!("{}: {scheme}: {refusal}", arrival.event_id))?;
        holding.push(scheme);
    }
    Ok(format!("signatures hold: {}", holding.join(", ")))
}

async fn dead_letters(stage: &Stage) -> anyhow::Result<Vec<(DeadLetter, Option<Event>)>> {
    let page = stage.manager.dead_letters(TENANT, &DeadLetterFilter::default(), None, 10).await?;
    page.data
        .into_iter()
        .map(|item| match item {
            DeadItem::Delivery { letter, event } => Ok((letter, event)),
            DeadItem::Unreadable(entry) => Err(anyhow!("an entry could not be read: {}", entry.error)),
        })
        .collect()
}

/// Looks until there is something to see.
async fn until<T>(what: impl Display, look: impl AsyncFn() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let looking = async {
        loop {
            if let Some(seen) = look().await? {
                return Ok(seen);
            }
            sleep(LOOK).await;
        }
    };
    within(what, looking).await?
}

async fn within<T>(what: impl Display, wanted: impl Future<Output = T>) -> anyhow::Result<T> {
    let seconds = PATIENCE.as_secs();
    timeout(PATIENCE, wanted).await.map_err(|_| anyhow!("it did not come true within {seconds} s that {what}"))
}

fn millis(later: SystemTime, earlier: SystemTime) -> u128 {
    later.duration_since(earlier).unwrap_or_default().as_millis()
}
