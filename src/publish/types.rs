//! `api.strict_types`: an event is published only if its type is known and its data fit the type's schema.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use quick_cache::{Weighter, sync::Cache};

use super::PublishError;
use crate::{
    domain::{Invalid, catalog, event::NewEvent, schema::Schema},
    streams::{self, Error, Streams},
};

/// How long a tenant's type is taken to be as it was read: after that a change of it is seen.
const KNOWN_FOR: Duration = Duration::from_secs(5);
/// Types kept, about, and the weight of their schemas: each unit is a kilobyte or so, and at the very worst sixteen.
const TYPES_KEPT: usize = 1_000;
const WEIGHT_KEPT: u64 = 16 * 1024;
/// Steps of a check that is done at once, and bytes to parse: a millisecond or so, ten at
/// the worst. A longer one must not hold up others.
const STEPS_AT_ONCE: u64 = 512 * 1024;
const BYTES_AT_ONCE: usize = 32 * 1024;

/// Checks events against the types that their tenants have; cheap to clone.
#[derive(Clone)]
pub struct TypeChecker(Option<Arc<Strict>>);

struct Strict {
    streams: Streams,
    kept: Cache<(String, String), Arc<Kept>, ByWeight>,
}

/// A tenant's type as it was read.
struct Kept {
    read_at: Instant,
    /// Its record, if it is the tenant's own.
    record: Option<String>,
    found: Found,
}

#[derive(Clone)]
enum Found {
    /// With its schema, if it has one.
    Known(Option<Arc<Schema>>),
    Unknown,
    /// What is kept of it is of no use.
    Unusable(String),
}

#[derive(Clone)]
struct ByWeight;

impl Weighter<(String, String), Arc<Kept>> for ByWeight {
    fn weight(&self, _: &(String, String), kept: &Arc<Kept>) -> u64 {
        match &kept.found {
            Found::Known(Some(schema)) => schema.weight() + 1,
            Found::Known(None) | Found::Unknown | Found::Unusable(_) => 1,
        }
    }
}

impl TypeChecker {
    /// Takes every event, without looking at it.
    pub fn off() -> Self {
        Self(None)
    }

    /// Looks at each event if `is_strict` (`api.strict_types`), else at none.
    pub fn new(streams: &Streams, is_strict: bool) -> Self {
        let strict =
            || Strict { streams: streams.clone(), kept: Cache::with_weighter(TYPES_KEPT, WEIGHT_KEPT, ByWeight) };
        Self(is_strict.then(|| Arc::new(strict())))
    }

    /// Checks an event's type and data.
    ///
    /// # Errors
    /// [`PublishError::Invalid`]: the type is not known, or the data do not fit; or what is wrong with Redis.
    pub async fn check(&self, event: &NewEvent) -> Result<(), PublishError> {
        let Some(strict) = &self.0 else { return Ok(()) };
        let kept = strict.find(&event.tenant, &event.event_type).await?;
        let schema = match &kept.found {
            Found::Known(None) => return Ok(()),
            Found::Known(Some(schema)) => schema,
            Found::Unknown => return Err(unknown(&event.event_type).into()),
            Found::Unusable(problem) => return Err(Invalid::new("type", problem).into()),
        };
        let bytes = event.data.len();
        let checked = if bytes <= BYTES_AT_ONCE && schema.steps(bytes) <= STEPS_AT_ONCE {
            schema.check(&event.data)
        } else {
            let (schema, data) = (Arc::clone(schema), event.data.clone());
            aside(move || schema.check(&data)).await?
        };
        checked.map_err(|problem| Invalid::new("data", problem).into())
    }
}

impl Strict {
    /// What is known of a tenant's type; its own comes before that of everybody.
    async fn find(&self, tenant: &str, event_type: &str) -> Result<Arc<Kept>, PublishError> {
        let key = (tenant.to_owned(), event_type.to_owned());
        let before = self.kept.get(&key);
        if let Some(kept) = before.as_ref().filter(|kept| kept.read_at.elapsed() < KNOWN_FOR) {
            return Ok(Arc::clone(kept));
        }
        let read_at = Instant::now();
        let record = self.streams.event_type_record(tenant, event_type).await?;
        let found = match (before, &record) {
            (Some(before), record) if before.record == *record => before.found.clone(),
            (_, Some(record)) => {
                let (event_type, record) = (event_type.to_owned(), record.clone());
                aside(move || prepare(&event_type, &record)).await?
            }
            (_, None) if catalog::find(event_type).is_none() => Found::Unknown,
            (_, None) => {
                let event_type = event_type.to_owned();
                Found::Known(aside(move || catalog::schema_of(&event_type)).await?)
            }
        };
        let kept = Arc::new(Kept { read_at, record, found });
        self.kept.insert(key, Arc::clone(&kept));
        Ok(kept)
    }
}

/// Makes a tenant's own type ready.
fn prepare(event_type: &str, record: &str) -> Found {
    let unusable = |problem: String| {
        Found::Unusable(format!("{problem}: remove `{event_type}` with `types remove`, and add it again"))
    };
    let info = match streams::read_event_type(event_type, record) {
        Ok(info) => info,
        Err(error) => return unusable(error.to_string()),
    };
    match info.schema.map(|schema| Schema::parse(&schema)).transpose() {
        Ok(schema) => Found::Known(schema.map(Arc::new)),
        Err(problem) => unusable(format!("its schema cannot be used ({problem})")),
    }
}

fn unknown(event_type: &str) -> Invalid {
    let problem = format!(
        "`{event_type}` is not known, and api.strict_types is on: add it (`types add`, POST /api/v1/event-types), or \
         publish one of those that `types list` shows"
    );
    Invalid::new("type", problem)
}

/// Does what may take a while where nobody waits for anything else.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, PublishError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        if error.is_panic() {
            // It would do so again: the event is at fault, and must not be tried for ever.
            return Invalid::new("data", "cannot be checked against the schema of the event's type").into();
        }
        Error::Unavailable("the check of an event's type was cut short".to_owned()).into()
    })
}
