//! The engine as separate processes under load, while they and Redis are killed at random.
//!
//! `POSTHASTE_CHAOS_SECONDS` says how long; a few seconds unless set.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use posthaste::domain::id::{StreamId, SubscriptionId};
use rand::seq::IndexedRandom;
use tempfile::TempDir;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep},
};

use crate::support::{
    engine::{Engine, new_event, quick_retry, wait_until},
    receiver::{Receiver, Reply},
    redis::TestRedis,
};

const LASTS: Duration = Duration::from_secs(5);
const PATHS: [&str; 2] = ["/steady", "/flaky"];
/// What fails at `/flaky`; with 2 retries some deliveries exhaust them.
const FAILING: f64 = 0.3;
/// Dispatching and sending in one process, and in one each.
const ROLES: [&str; 6] = ["serve", "serve", "dispatcher", "sender", "sender", "sources"];
/// Requests under way at once in a sender.
const IN_FLIGHT: usize = 32;
/// How long nothing may arrive while something is owed: longer than all leases, leaderships and back-offs together.
const GOES_ON_WITHIN: Duration = Duration::from_secs(90);

/// One role in a process of its own, killed at the latest when dropped.
struct Process {
    role: &'static str,
    redis: String,
    folder: TempDir,
    child: Child,
}

impl Process {
    async fn start(role: &'static str, redis: &str) -> Self {
        let folder = TempDir::new().unwrap();
        Self { role, redis: redis.to_owned(), child: Self::spawn(role, redis, folder.path()).await, folder }
    }

    async fn spawn(role: &str, redis: &str, folder: &Path) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
        command.args([role, "--redis", redis]);
        if role == "serve" {
            command.stdout(Stdio::piped());
        } else {
            command.arg("--wait");
        }
        // Not the settings of whoever runs the tests.
        command.env_clear().env("POSTHASTE_DATA_DIR", folder);
        command.env("POSTHASTE_API__LISTEN", "127.0.0.1:0").env("POSTHASTE_METRICS__LISTEN", "127.0.0.1:0");
        command.env("POSTHASTE_REDIS__SHARDS", "4").env("POSTHASTE_REDIS__DURABILITY", "relaxed");
        command.env("POSTHASTE_TARGETS__ALLOW_CIDRS", "127.0.0.0/8").env("POSTHASTE_LOG__LEVEL", "error");
        command.env("POSTHASTE_DELIVERY__MAX_IN_FLIGHT", IN_FLIGHT.to_string());
        let mut child = command.stdin(Stdio::null()).spawn().expect("a process");
        if let Some(stdout) = child.stdout.take() {
            // It does not wait for a Redis that is killed before it is ready.
            let greeting = BufReader::new(stdout);
            let read = move || greeting.lines().next().expect("a greeting").unwrap();
            assert!(spawn_blocking(read).await.unwrap().contains("ready"));
        }
        child
    }

    /// Ends it as a crash does, and starts another.
    async fn replace(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::spawn(self.role, &self.redis, self.folder.path()).await;
    }

    /// Asks it to stop, and waits for its end.
    async fn stop(mut self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        wait_until("a process that is told to stop ends", async || self.child.try_wait().unwrap().is_some()).await;
        assert!(self.child.wait().unwrap().success(), "{}", self.role);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended by itself, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What arrived, and was answered with 200: by path and number of the event, how often.
type Arrived = Arc<Mutex<BTreeMap<(String, u64), usize>>>;

async fn receiver(arrived: &Arrived) -> Receiver {
    let receiver = Receiver::start().await;
    let arrived = arrived.clone();
    receiver.otherwise(move |request| {
        if request.path == "/flaky" && rand::random_bool(FAILING) {
            return Reply::status(500);
        }
        let body: serde_json::Value = serde_json::from_slice(&request.body).expect("JSON");
        let number = body["data"].as_u64().expect("the number of the event");
        *arrived.lock().unwrap().entry((request.path.clone(), number)).or_default() += 1;
        Reply::status(200)
    });
    receiver
}

/// Publishes numbered events until told to stop, through the log and through the front door; says which were accepted.
struct Load {
    stops: Arc<AtomicBool>,
    publishing: JoinSet<Vec<u64>>,
}

impl Load {
    fn start(engine: &Engine, redis: &str) -> Self {
        let (stops, next, mut publishing) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), JoinSet::new());
        for _ in 0..2 {
            let (stops, next, publisher) = (stops.clone(), next.clone(), engine.publisher.clone());
            publishing.spawn(async move {
                let mut accepted = Vec::new();
                while !stops.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    // What is not accepted is not owed.
                    if publisher.publish(new_event("acme", "a.b", number.to_string())).await.is_ok() {
                        accepted.push(number);
                    }
                    sleep(Duration::from_millis(10)).await;
                }
                accepted
            });
        }
        let (ends, client) = (stops.clone(), redis::Client::open(redis).unwrap());
        publishing.spawn(async move {
            let (mut accepted, mut connection) = (Vec::new(), None);
            while !ends.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                match add(&client, &mut connection, number).await {
                    Ok(()) => accepted.push(number),
                    Err(_) => connection = None,
                }
                sleep(Duration::from_millis(10)).await;
            }
            accepted
        });
        Self { stops, publishing }
    }

    async fn stop(self) -> BTreeSet<u64> {
        self.stops.store(true, Ordering::Relaxed);
        self.publishing.join_all().await.into_iter().flatten().collect()
    }
}

async fn add(
    client: &redis::Client,
    connection: &mut Option<redis::aio::MultiplexedConnection>,
    number: u64,
) -> redis::RedisResult<()> {
    if connection.is_none() {
        *connection = Some(client.get_multiplexed_async_connection().await?);
    }
    let mut command = redis::cmd("XADD");
    command.arg("posthaste:in").arg("*").arg("tenant").arg("acme").arg("type").arg("a.b").arg("data").arg(number);
    match connection {
        Some(connection) => command.exec_async(connection).await,
        None => Ok(()),
    }
}

/// The numbers of the events that a webhook has dead letters of.
async fn dead(engine: &Engine, webhook: SubscriptionId) -> BTreeSet<u64> {
    let letters = engine.streams.dead_letters(webhook, StreamId::MAX, StreamId::ZERO, 100_000).await.expect("letters");
    let events: Vec<StreamId> = letters.iter().map(|letter| letter.delivery.event).collect();
    let events = engine.streams.events(webhook.shard, &events).await.expect("events");
    events
        .into_iter()
        .map(|event| String::from_utf8_lossy(&event.expect("an event that is owed").data).parse().expect("a number"))
        .collect()
}

/// What is accepted and has neither arrived nor died, of one webhook.
async fn missing(
    engine: &Engine,
    arrived: &Arrived,
    accepted: &BTreeSet<u64>,
    webhook: (SubscriptionId, &str),
) -> usize {
    let dead = dead(engine, webhook.0).await;
    let arrived = arrived.lock().unwrap();
    let is_there = |number: &u64| dead.contains(number) || arrived.contains_key(&(webhook.1.to_owned(), *number));
    accepted.iter().filter(|number| !is_there(number)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_and_redis_killed_at_random_lose_nothing_that_was_accepted() {
    let lasts = env::var("POSTHASTE_CHAOS_SECONDS").map_or(LASTS, |text| Duration::from_secs(text.parse().unwrap()));
    let mut redis = TestRedis::start().await;
    let arrived = Arrived::default();
    let receiver = receiver(&arrived).await;
    let engine = Engine::idle(&redis, &[]).await;
    let mut webhooks = Vec::new();
    for path in PATHS {
        let id = engine.subscribe("acme", &receiver.url(path), &["*"], |s| s.retry = quick_retry(2)).await;
        webhooks.push((id, path));
    }
    let mut processes = Vec::new();
    for role in ROLES {
        processes.push(Process::start(role, &redis.url()).await);
    }
    let load = Load::start(&engine, &redis.url());

    let (ends, mut kills) = (Instant::now() + lasts, BTreeMap::<&str, usize>::new());
    while Instant::now() < ends {
        sleep(Duration::from_millis(rand::random_range(200..1_500))).await;
        let victims: Vec<usize> = (0..=processes.len()).collect();
        let victim = *victims.choose(&mut rand::rng()).expect("there is one");
        match processes.get_mut(victim) {
            Some(process) => process.replace().await,
            None => {
                redis.kill();
                redis.restart().await;
            }
        }
        *kills.entry(ROLES.get(victim).copied().unwrap_or("redis")).or_default() += 1;
    }
    let accepted = load.stop().await;
    let (mut least, mut deadline) = (usize::MAX, Instant::now());
    loop {
        let mut missed: BTreeMap<&str, usize> = BTreeMap::new();
        for webhook in &webhooks {
            missed.insert(webhook.1, missing(&engine, &arrived, &accepted, *webhook).await);
        }
        let left = missed.values().sum();
        if left == 0 {
            break;
        }
        if left < least {
            (least, deadline) = (left, Instant::now() + GOES_ON_WITHIN);
        }
        assert!(
            Instant::now() < deadline,
            "of {} accepted, after {kills:?}, neither arrived nor dead: {missed:?}",
            accepted.len()
        );
        sleep(Duration::from_millis(200)).await;
    }
    for (webhook, path) in &webhooks {
        let dead = dead(&engine, *webhook).await.len();
        let arrivals: Vec<usize> =
            arrived.lock().unwrap().iter().filter(|((at, _), _)| at == path).map(|(_, times)| *times).collect();
        let duplicates: usize = arrivals.iter().map(|times| times - 1).sum();
        println!(
            "{path}: accepted {}, arrived {}, dead {dead}, duplicates {duplicates}",
            accepted.len(),
            arrivals.len()
        );
        // What was in flight, or on its way to be settled, when something was killed.
        let killed: usize = kills.values().sum();
        assert!(duplicates <= killed * 2 * IN_FLIGHT, "{duplicates} duplicates after {kills:?}");
    }
    println!("killed: {kills:?}");
    for process in processes {
        process.stop().await;
    }
}
