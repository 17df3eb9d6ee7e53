//! Publishing: validate, deduplicate, append. The answer comes after the log has the event.
//!
//! Events of many publishers at once share calls, one under way a shard: the more there are, the larger the batches, and
//! the less an fsync costs each.

mod types;

use std::{future::Future, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};

use crate::{
    domain::{
        Invalid,
        event::{NewEvent, check_json},
        id::EventId,
    },
    metrics,
    streams::{APPEND_AT_MOST, APPEND_BYTES, Append, Appended, Error, ShardId, Streams},
    traces::{Span, Traces},
};

pub use types::TypeChecker;

/// Events that wait for a shard's call; above, publishers wait with them.
const WAITING_AT_MOST: usize = 4 * APPEND_AT_MOST;
/// How long an append is repeated while Redis is away. Redis remembers a call's answer for longer, so that a repeat after
/// a lost answer appends nothing twice.
const REPEAT_FOR: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_AT_MOST: Duration = Duration::from_secs(1);

/// An event that is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    pub id: EventId,
    /// It was there already, by its idempotency key.
    pub is_repeat: bool,
}

/// Why an event is not in the log (or, for [`PublishError::Redis`], may not be).
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("idempotency_key: it came before with another type or data")]
    Conflict,
    #[error("the tenant has as many bytes of undelivered events as it may have (max_stored_mb)")]
    TenantFull,
    #[error(transparent)]
    Redis(#[from] Error),
}

/// What became of an event.
pub type Answer = Result<Published, PublishError>;

struct Waiting {
    event: NewEvent,
    caller: Caller,
}

/// Who waits for an event to be appended.
struct Caller {
    answer: oneshot::Sender<Answer>,
    span: Span,
}

/// An event that has its place among those to be appended.
pub struct Submitted(oneshot::Receiver<Answer>);

/// Appends events for many callers at once; cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    streams: Streams,
    lanes: Vec<mpsc::Sender<Waiting>>,
    max_payload_bytes: usize,
    types: TypeChecker,
    traces: Traces,
}

impl Publisher {
    /// Starts a lane for each shard. The lanes end once every clone of the publisher is dropped.
    pub fn start(streams: Streams, types: TypeChecker, max_payload_bytes: usize, tasks: &mut JoinSet<()>) -> Self {
        let lanes = streams
            .shards()
            .map(|shard| {
                let (sender, receiver) = mpsc::channel(WAITING_AT_MOST);
                tasks.spawn(run_lane(streams.clone(), shard, receiver));
                sender
            })
            .collect();
        Self { streams, lanes, max_payload_bytes, types, traces: Traces::default() }
    }

    /// The same, with a span of each event to `traces`.
    #[must_use]
    pub fn traced(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }

    /// Appends an event to the log. When the caller goes away meanwhile, it may be appended all the same.
    ///
    /// # Errors
    /// What is wrong with the event, or with Redis.
    pub fn publish(&self, event: NewEvent) -> impl Future<Output = Answer> + Send + 'static {
        let submitted = self.submit(event);
        async move { submitted.await?.answer().await }
    }

    /// Takes an event to append it, after those of its tenant that were submitted before: whoever publishes many in order
    /// waits for each to be taken, and for the answers later. Waits while too many of other callers wait.
    ///
    /// # Errors
    /// What is wrong with the event, or with Redis where its type has to be looked up.
    pub fn submit(
        &self,
        mut event: NewEvent,
    ) -> impl Future<Output = Result<Submitted, PublishError>> + Send + 'static {
        let checked = event.validate(self.max_payload_bytes).and_then(|()| check_json(&event.data));
        let lane = self.lanes[usize::from(self.streams.shard_of(&event.tenant))].clone();
        let (types, traces) = (self.types.clone(), self.traces.clone());
        async move {
            checked?;
            types.check(&event).await?;
            let (answer, answered) = oneshot::channel();
            let span = traces.publish(&mut event);
            lane.send(Waiting { event, caller: Caller { answer, span } }).await.map_err(|_| stopped())?;
            Ok(Submitted(answered))
        }
    }
}

impl Submitted {
    /// Waits until the event is in the log, or is not.
    ///
    /// # Errors
    /// What is wrong with Redis, or with the idempotency key.
    pub async fn answer(self) -> Answer {
        self.0.await.map_err(|_| stopped())?
    }
}

fn stopped() -> Error {
    Error::Unavailable("publishing has stopped".to_owned())
}

impl Caller {
    fn tell(self, answer: Answer) {
        match &answer {
            Ok(published) => self.span.published(published.id, published.is_repeat),
            Err(error) => self.span.failed(error),
        }
        // One that went away needs no answer.
        drop(self.answer.send(answer));
    }
}

async fn run_lane(streams: Streams, shard: ShardId, mut queue: mpsc::Receiver<Waiting>) {
    let mut held_over = None;
    loop {
        let first = match held_over.take() {
            Some(waiting) => waiting,
            None => match queue.recv().await {
                Some(waiting) => waiting,
                None => return,
            },
        };
        let mut bytes = first.event.data.len();
        let mut batch = vec![first];
        while batch.len() < APPEND_AT_MOST {
            let Ok(next) = queue.try_recv() else { break };
            bytes += next.event.data.len();
            if bytes > APPEND_BYTES {
                held_over = Some(next);
                break;
            }
            batch.push(next);
        }
        append(&streams, shard, batch).await;
    }
}

async fn append(streams: &Streams, shard: ShardId, batch: Vec<Waiting>) {
    let (entries, callers): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .map(|waiting| (Append::Event { event: waiting.event, source_id: None }, waiting.caller))
        .unzip();
    match append_with_repeats(streams, shard, &entries).await {
        Ok(results) => {
            for (caller, result) in callers.into_iter().zip(results) {
                caller.tell(published(result));
            }
        }
        Err(error) => {
            for caller in callers {
                caller.tell(Err(error.clone().into()));
            }
        }
    }
}

async fn append_with_repeats(streams: &Streams, shard: ShardId, entries: &[Append]) -> Result<Vec<Appended>, Error> {
    let call = format!("{:032x}", rand::random::<u128>());
    let deadline = Instant::now() + REPEAT_FOR;
    let mut pause = PAUSE;
    loop {
        match streams.append(shard, &call, entries, None).await {
            Err(error @ Error::Unavailable(_)) if Instant::now() + pause < deadline => {
                metrics::redis_error(error.kind());
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_AT_MOST);
            }
            other => return other,
        }
    }
}

fn published(result: Appended) -> Answer {
    match result {
        Appended::Event(id) => {
            metrics::event_published();
            Ok(Published { id, is_repeat: false })
        }
        Appended::Repeated(id) => Ok(Published { id, is_repeat: true }),
        Appended::Conflict => Err(PublishError::Conflict),
        Appended::TenantFull => Err(PublishError::TenantFull),
        Appended::Moved | Appended::Bad(_) => {
            Err(Error::Unreadable("an answer that only entries of the front door get".to_owned()).into())
        }
    }
}
