//! What Redis keeps for each thing: differences of its memory, so that all that belongs to a thing counts.
//!
//! Each step has a tenant of its own and events of its own; what a step shares with another is what goes away between the
//! two.

use anyhow::{Context, bail};

use super::{
    behaviour::Behaviour,
    event::{EVENT_TYPE, Mark},
    load,
    reading::RedisReading,
    report::{Column, Figures},
    stage::{Owed, Stage},
    webhooks::{Layout, Wanted, tenant},
};
use crate::{
    domain::{attempt::Answer, event::NewEvent, id::SubscriptionId},
    streams::AttemptFilter,
};

/// Events of a step: many, so that what is kept once matters little.
const EVENTS_AT_MOST: usize = 10_000;
/// Paused webhooks that each get an event, besides the first.
const FURTHER: usize = 10;
/// Events that are published at once.
const AT_ONCE: usize = 256;
/// Tenants of the steps; those of the webhooks that are only created are before them.
const FIRST_TENANT: usize = 1_000_000;
/// Keys with the answers of calls, of every shard.
const ANSWERS: &str = "*:call:*";
/// Keys that one step of a scan looks at.
const SCAN: usize = 1_000;

pub const COLUMNS: [Column; 7] = [
    Column::new("B/WEBHOOK", "bytes_per_webhook", 0),
    Column::new("EVENT OF 1 KIB", "bytes_per_event", 0),
    Column::new("ITS FIRST DELIVERY", "bytes_per_first_delivery", 0),
    Column::new("A FURTHER ONE", "bytes_per_further_delivery", 0),
    Column::new("A WAITING ONE", "bytes_per_waiting_delivery", 0),
    Column::new("AN ATTEMPT", "bytes_per_attempt_with_texts", 0),
    Column::new("BESIDE ITS TEXTS", "bytes_per_attempt", 0),
];

/// Measures with so many webhooks, and with as many deliveries of each kind or fewer.
///
/// # Errors
/// Something is refused, or does not come to where it should.
pub async fn run(stage: &Stage, webhooks: usize) -> anyhow::Result<Figures> {
    let events = webhooks.min(EVENTS_AT_MOST) as u64;
    let mut steps = Steps { stage, events, next_tenant: FIRST_TENANT };
    // Redis makes a histogram of a command's times when it is first called: that is no data, and would fall to whichever step
    // calls it.
    redis::cmd("CONFIG").arg("SET").arg("latency-tracking").arg("no").exec_async(&mut stage.connection()).await?;
    let before = steps.bytes().await?;
    stage.maker.create_all(Layout::Grouped(webhooks)).await?;
    let created = (steps.bytes().await? - before) / webhooks as f64;
    let each = events as f64;
    let bare = steps.paused(0).await? / each;
    let first = steps.paused(1).await? / each;
    let further = steps.paused(1 + FURTHER).await? / each;
    let (once, _) = steps.delivered(Behaviour::Healthy).await?;
    let (twice, webhook) = steps.delivered(Behaviour::FailingOnce).await?;
    let texts = steps.texts(webhook).await?;
    let (waiting, _) = steps.delivered(Behaviour::FailingHalf).await?;
    let figures = [
        ("bytes_per_webhook", created),
        ("bytes_per_event", bare),
        ("bytes_per_first_delivery", first - bare),
        ("bytes_per_further_delivery", (further - first) / FURTHER as f64),
        ("bytes_per_done_delivery_and_attempt", once / each - bare),
        ("bytes_per_attempt_with_texts", (twice - once) / each),
        ("bytes_of_an_attempts_texts", texts),
        ("bytes_per_attempt", (twice - once) / each - texts),
        // Every second event waits, and has as many attempts behind it as those that are done.
        ("bytes_per_waiting_delivery", (waiting - once) / events.div_ceil(2) as f64),
    ];
    Ok(figures.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

struct Steps<'s> {
    stage: &'s Stage,
    events: u64,
    next_tenant: usize,
}

impl Steps<'_> {
    /// What the events of a tenant with so many paused webhooks take.
    async fn paused(&mut self, webhooks: usize) -> anyhow::Result<f64> {
        let tenant = self.tenant();
        for webhook in 0..webhooks {
            self.create(&tenant, webhook, Behaviour::Healthy, false).await?;
        }
        let (owed, before) = (self.stage.owed().await?, self.bytes().await?);
        self.publish(&tenant).await?;
        let deliveries = owed.deliveries + self.events * webhooks as u64;
        self.stage.wait_until(deliveries, |now| now == Owed { deliveries, ..owed }).await?;
        Ok(self.bytes().await? - before)
    }

    /// What the events of a tenant take whose only endpoint answers so, once there is no attempt to be made soon; and the
    /// webhook.
    async fn delivered(&mut self, behaviour: Behaviour) -> anyhow::Result<(f64, SubscriptionId)> {
        let tenant = self.tenant();
        let webhook = self.create(&tenant, 0, behaviour, true).await?;
        let left = if behaviour == Behaviour::FailingHalf { self.events.div_ceil(2) } else { 0 };
        let (owed, before) = (self.stage.owed().await?, self.bytes().await?);
        self.publish(&tenant).await?;
        let after = Owed { deliveries: owed.deliveries + left, waiting: owed.waiting + left, ..owed };
        self.stage.wait_until(self.events, |now| now == after).await?;
        Ok((self.bytes().await? - before, webhook))
    }

    fn tenant(&mut self) -> String {
        self.next_tenant += 1;
        tenant(self.next_tenant)
    }

    async fn create(
        &self,
        tenant: &str,
        webhook: usize,
        behaviour: Behaviour,
        is_active: bool,
    ) -> anyhow::Result<SubscriptionId> {
        let (tenant, event_type) = (tenant.to_owned(), EVENT_TYPE.to_owned());
        self.stage.maker.create(webhook, 1, Wanted { tenant, event_type, behaviour, is_active }).await
    }

    async fn publish(&self, tenant: &str) -> anyhow::Result<()> {
        let (publisher, tenant) = (self.stage.source.publisher.clone(), tenant.to_owned());
        let publish = move |number| {
            let event = NewEvent {
                tenant: tenant.clone(),
                event_type: EVENT_TYPE.to_owned(),
                data: Mark::now(number).data(),
                ..NewEvent::default()
            };
            let publisher = publisher.clone();
            async move { Ok(publisher.publish(event).await.map(drop)?) }
        };
        load::closed(self.events, AT_ONCE, publish).await
    }

    /// What the data in Redis take, without the answers of calls: those go within a minute, so that they would be taken for
    /// what another step leaves.
    async fn bytes(&self) -> anyhow::Result<f64> {
        let mut connection = self.stage.connection();
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(ANSWERS).arg("COUNT").arg(SCAN);
            let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await?;
            if !keys.is_empty() {
                redis::cmd("UNLINK").arg(keys).exec_async(&mut connection).await?;
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        Ok(RedisReading::take(&mut connection).await?.data_bytes as f64)
    }

    /// The URL, the headers and the response of an attempt: bytes. Its record may take less, as it leaves out what it tells anyway.
    async fn texts(&self, webhook: SubscriptionId) -> anyhow::Result<f64> {
        let page = self.stage.streams.attempts_of(webhook, &AttemptFilter::default(), None, 1).await?;
        let (_, attempt) = page.attempts.first().context("the webhook has no attempts")?;
        let Answer::Response(response) = &attempt.answer else { bail!("the endpoint did not answer") };
        let headers = attempt.request_headers.iter().chain(&response.headers);
        let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
        Ok((attempt.url.len() + headers + response.body.len()) as f64)
    }
}
