//! A queue on a Redis of its own, what is known of it from outside, and steps taken on it, each checked.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use posthaste::{
    domain::{
        event::{NewEvent, OWN_TYPES},
        id::{DeliveryId, EventId, StreamId, SubscriptionId},
        subscription::Ordering,
    },
    secrets::Sealer,
    streams::{Append, Appended, Expansion, Job, JobState, Lease, Leased, Limits, Queued, Streams},
};
use redis::aio::MultiplexedConnection;
use std::time::Duration;

use super::{
    action::{Action, Answer, SHARD},
    own::{self, OwnEvent},
    prediction::{Changes, Prediction, is_held, predict, trimmable},
    step::{Published, Step, SubscriptionLimits},
};
use crate::support::{
    checks::{Bounds, violations},
    clock,
    redis::TestRedis,
    samples::{Facts, TENANT, Verdict, event, subscription},
    state::{Standing, State, command},
};

pub const BOUNDS: Bounds = Bounds { max_backlog: 8, max_dead: 4, keeps_attempts: true };
const SUBSCRIPTIONS: usize = 6;
/// Soon enough that a run of steps gets there.
const DISABLE_AFTER: Duration = Duration::from_secs(30);
/// Leases and calls that are remembered, to come back with later.
const REMEMBERED: usize = 24;
const ROUNDS_TO_DRAIN: usize = 100;

pub struct World<'r> {
    redis: &'r mut TestRedis,
    prefix: String,
    streams: Streams,
    connection: MultiplexedConnection,
    pub state: State,
    created: u64,
    calls: u64,
    /// Everything acknowledged by publish, and what was trimmed of it.
    published: BTreeSet<EventId>,
    trimmed: BTreeSet<StreamId>,
    /// The whole id and the type of each, and of the engine's own.
    known: BTreeMap<StreamId, (EventId, Facts)>,
    /// What a publisher got for an idempotency key, and the type it published.
    keys: HashMap<String, (String, EventId)>,
    answers: HashMap<String, Vec<Appended>>,
    /// Whom the dispatcher found that an event is for.
    targets: BTreeMap<StreamId, Vec<SubscriptionId>>,
    leases: Vec<Lease>,
    jobs: Vec<Job>,
    past: Vec<Action>,
    /// Subscriptions whose limits were changed.
    changed: BTreeSet<String>,
}

impl<'r> World<'r> {
    /// A queue under a prefix of its own.
    pub async fn new(redis: &'r mut TestRedis, prefix: String) -> Self {
        let (streams, mut connection) = (open(redis, &prefix).await, redis.connect().await);
        let state = State::read(&mut connection, &format!("{prefix}:{{s0}}")).await;
        Self {
            redis,
            prefix,
            streams,
            connection,
            state,
            created: 0,
            calls: 0,
            published: BTreeSet::new(),
            trimmed: BTreeSet::new(),
            known: BTreeMap::new(),
            keys: HashMap::new(),
            answers: HashMap::new(),
            targets: BTreeMap::new(),
            leases: Vec::new(),
            jobs: Vec::new(),
            past: Vec::new(),
            changed: BTreeSet::new(),
        }
    }

    /// Takes a step and checks all that must hold after it.
    pub async fn step(&mut self, step: &Step) {
        match step {
            Step::Elapse { ms } => self.elapse(*ms).await,
            Step::Kill => {
                self.kill_and_restart().await;
                self.observe(Prediction::default()).await;
            }
            Step::KillAmid { events, room, after_us } => self.kill_amid(*events, *room, *after_us).await,
            Step::Again { pick } => {
                if let Some(action) = choose(&self.past, *pick).cloned() {
                    self.act(action).await;
                }
            }
            other => {
                if let Some(action) = self.resolve(other) {
                    self.act(action.clone()).await;
                    self.past.push(action);
                    forget_old(&mut self.past);
                }
            }
        }
    }

    /// Makes a call, and compares its answer and its effect with what they must be.
    pub async fn act(&mut self, action: Action) {
        let prediction = predict(&action, &self.state, BOUNDS);
        let answer = action.perform(&self.streams).await.unwrap_or_else(|error| panic!("{action:?}: {error}"));
        if let Some(expected) = &prediction.answer {
            assert_eq!(&answer, expected, "the answer to {action:?}");
        }
        self.take_in(&action, &answer);
        if let Action::Update { subscription, .. } = &action {
            self.changed.insert(subscription.id.to_string());
        }
        if let Action::Trim(last) = action {
            self.trimmed.extend(trimmable(&self.state, last));
        }
        self.observe(prediction).await;
    }

    /// Reads the state anew; only what was predicted may have changed, and every invariant holds.
    async fn observe(&mut self, prediction: Prediction) {
        let state = State::read(&mut self.connection, &format!("{}:{{s0}}", self.prefix)).await;
        let mut wrong = violations(&state, Some(&self.state), BOUNDS);
        wrong.extend(surprises(&self.state, &state, &prediction));
        wrong.extend(self.take_in_own(&state, &prediction));
        let kept: BTreeSet<StreamId> =
            self.published.iter().map(|id| id.at).filter(|event| !self.trimmed.contains(event)).collect();
        if !kept.iter().eq(state.events.keys()) {
            wrong.push(format!("I8: published {kept:?}, in the log {:?}", state.events.keys()));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        self.state = state;
    }

    /// The engine's own events: those that this step made, and no others, are new in the log.
    fn take_in_own(&mut self, state: &State, prediction: &Prediction) -> Vec<String> {
        let published: BTreeSet<StreamId> = self.published.iter().map(|id| id.at).collect();
        let mut new = Vec::new();
        for (at, fields) in &state.events {
            let id = EventId { at: *at, shard: SHARD, nonce: fields["i"].parse().unwrap() };
            let facts = Facts { nonce: id.nonce, event_type: fields["t"].clone(), bytes: fields["b"].len() };
            self.known.insert(*at, (id, facts));
            if fields["t"].starts_with(OWN_TYPES) && !published.contains(at) {
                self.published.insert(id);
                new.push(OwnEvent::read(fields));
            }
        }
        own::surprises(&self.state, state, prediction, &self.known, &new)
    }

    /// The type that an event has, or had.
    fn type_of(&self, event: StreamId) -> String {
        self.known[&event].1.event_type.clone()
    }

    fn result(&self, lease: Lease, verdict: Verdict) -> (Lease, Verdict, Facts) {
        let facts = self.known[&lease.event].1.clone();
        (lease, verdict, facts)
    }

    /// What a process would remember of an answer.
    fn take_in(&mut self, action: &Action, answer: &Answer) {
        match (action, answer) {
            (Action::Append { call, batch }, Answer::Appended(results)) => self.take_in_append(call, batch, results),
            (Action::Lease { room }, Answer::Leased(Leased { leases, .. }))
            | (Action::Expand { room, .. }, Answer::Expanded(_, leases)) => {
                assert!(leases.len() <= *room);
                for lease in leases {
                    self.check_lease(lease, matches!(action, Action::Expand { .. }));
                }
                self.leases.extend(leases.iter().cloned());
                forget_old(&mut self.leases);
            }
            (Action::Replay { job, next, .. }, Answer::Queued(Queued::Done(_))) => {
                let known = self.jobs.iter_mut().find(|known| known.id == job.id).unwrap();
                known.cursor = *next;
            }
            (Action::CreateJob(job), _) if self.jobs.iter().all(|known| known.id != job.id) => {
                self.jobs.push(job.clone());
            }
            _ => {}
        }
    }

    fn take_in_append(&mut self, call: &str, batch: &[Append], results: &[Appended]) {
        if let Some(before) = self.answers.get(call) {
            assert_eq!(before, results, "a repeat of call {call} is answered as it was");
        }
        self.answers.insert(call.to_owned(), results.to_vec());
        for (append, result) in batch.iter().zip(results) {
            let Append::Event { event, .. } = append else { continue };
            let known = event.idempotency_key.as_ref().and_then(|key| self.keys.get(key)).cloned();
            match (known, result) {
                (None, Appended::Event(id)) => {
                    self.published.insert(*id);
                    if let Some(key) = &event.idempotency_key {
                        self.keys.insert(key.clone(), (event.event_type.clone(), *id));
                    }
                }
                (Some((event_type, id)), result) if event_type == event.event_type => {
                    let is_same = matches!(result, Appended::Event(same) | Appended::Repeated(same) if *same == id);
                    assert!(is_same, "{event:?} is {id}, not {result:?}");
                }
                (Some(_), Appended::Conflict) => {}
                other => panic!("{event:?}: {other:?}"),
            }
        }
    }

    /// A delivery is handed out only when nobody holds it and it is its turn, with the number of the attempt.
    /// One that was just expanded may be the first that there is.
    fn check_lease(&self, lease: &Lease, is_expanded: bool) {
        let sub = &self.state.subscriptions[&lease.subscription.to_string()];
        assert_eq!(sub.status(), "a", "{lease:?}");
        let count = sub.pending.get(&lease.entry).copied();
        let expected = match sub.leases.get(&lease.entry) {
            Some(_) => count.unwrap(),
            None => count.map_or(1, |count| count + 1),
        };
        assert_eq!(u64::from(lease.attempt), expected, "{lease:?} of {sub:?}");
        if sub.is_fifo() {
            let first = sub.owed.first().map(|owed| owed.entry);
            assert!(first == Some(lease.entry) || is_expanded && first.is_none(), "I7: {lease:?}");
        }
    }

    fn resolve(&mut self, step: &Step) -> Option<Action> {
        Some(match step {
            Step::Publish { events } => self.publish(events),
            Step::Create { limits } => {
                if self.ids().len() >= SUBSCRIPTIONS {
                    return None;
                }
                self.created += 1;
                Action::Create(Box::new(limited(subscription(self.created), limits)))
            }
            Step::Update { pick, limits, clears_faults } => {
                let id = self.pick(*pick)?;
                let version = self.state.subscriptions[&id.to_string()].rt.get("v")?.parse().unwrap();
                let subscription = Box::new(limited(subscription(id.random), limits));
                Action::Update { subscription, version, clears_faults: *clears_faults }
            }
            Step::SetActive { pick, is_active } => Action::SetActive(self.pick(*pick)?, *is_active),
            Step::Delete { pick } => Action::Delete(self.pick(*pick)?),
            Step::Purge { pick } => {
                let is_deleted = |id: &&SubscriptionId| self.state.subscriptions[&id.to_string()].status() == "d";
                Action::Purge(
                    choose(&self.ids().iter().filter(is_deleted).copied().collect::<Vec<_>>(), *pick).copied()?,
                )
            }
            Step::Expand { pick, chunk, is_stale, room } => {
                Action::Expand { chunks: vec![self.expansion(*pick, *chunk, *is_stale)?], room: *room }
            }
            Step::Lease { room } => Action::Lease { room: *room },
            Step::Renew { picks } => {
                Action::Renew(picks.iter().filter_map(|pick| choose(&self.leases, *pick).cloned()).collect())
            }
            Step::Settle { results } => {
                let picked = results.iter().map(|(pick, verdict)| (self.pick_lease(*pick), *verdict));
                let results = picked.filter_map(|(lease, verdict)| Some(self.result(lease?, verdict)));
                Action::Settle(results.collect())
            }
            Step::DropBacklog { pick } => Action::DropBacklog(self.pick(*pick)?, StreamId::MAX),
            Step::Redrive { pick, letters } => {
                let (id, letters) = self.letters(*pick, letters)?;
                Action::Redrive(id, letters)
            }
            Step::Discard { pick, letters } => {
                let (id, letters) = self.letters(*pick, letters)?;
                Action::Discard(id, letters)
            }
            Step::Resend { pick } => {
                self.calls += 1;
                let known: Vec<_> = self.state.ledger().into_keys().collect();
                let delivery = choose(&known, *pick)?;
                let subscription = delivery.subscription.parse().unwrap();
                let id = DeliveryId { event: delivery.event, subscription, copy: delivery.copy };
                Action::Resend { id, call: format!("call{}", self.calls) }
            }
            Step::StartReplay { pick } => Action::CreateJob(Job {
                id: format!("job{}", self.jobs.len()),
                subscription: self.pick(*pick)?,
                from: StreamId::ZERO,
                until: StreamId::MAX,
                pattern: None,
                rate: None,
                cursor: StreamId::ZERO,
                queued: 0,
                state: JobState::Running,
            }),
            Step::Replay { pick, count } => {
                let job = choose(&self.jobs, *pick).cloned()?;
                let events: Vec<_> = self.state.events.range(job.cursor..).map(|(at, _)| *at).take(*count).collect();
                let next = events.last()?.next();
                Action::Replay { job, next, is_last: false, events }
            }
            Step::Trim { count } => {
                Action::Trim(*self.state.events.keys().nth(*count - 1).or(self.state.events.keys().next_back())?)
            }
            Step::Audit { pick } => Action::Audit(self.pick(*pick)?),
            Step::Recount => Action::Recount,
            Step::Again { .. } | Step::Elapse { .. } | Step::Kill | Step::KillAmid { .. } => {
                return None;
            }
        })
    }

    fn publish(&mut self, events: &[Published]) -> Action {
        self.calls += 1;
        let batch = events.iter().map(|published| Append::Event {
            event: NewEvent {
                idempotency_key: published.key.map(|key| key.to_string()),
                only_for: published.only_for.and_then(|pick| self.pick(pick)),
                data: [&br#"{"n":1}"#[..], b"1"][usize::from(published.type_number)].into(),
                ..event(["a.b", "c"][usize::from(published.type_number)])
            },
            source_id: None,
        });
        Action::Append { call: format!("call{}", self.calls), batch: batch.collect() }
    }

    fn ids(&self) -> Vec<SubscriptionId> {
        self.state
            .subscriptions
            .iter()
            .filter(|(_, sub)| !sub.rt.is_empty())
            .map(|(id, _)| id.parse().unwrap())
            .collect()
    }

    fn pick(&self, pick: u8) -> Option<SubscriptionId> {
        choose(&self.ids(), pick).copied()
    }

    /// Mostly one that is still held.
    fn pick_lease(&self, pick: u8) -> Option<Lease> {
        let held: Vec<&Lease> = self.leases.iter().filter(|lease| is_held(lease, &self.state)).collect();
        if pick < 200 { choose(&held, pick).copied().cloned() } else { choose(&self.leases, pick).cloned() }
    }

    fn letters(&self, pick: u8, letters: &[u8]) -> Option<(SubscriptionId, Vec<StreamId>)> {
        let ids: Vec<_> =
            self.ids().into_iter().filter(|id| !self.state.subscriptions[&id.to_string()].dead.is_empty()).collect();
        let id = *choose(&ids, pick)?;
        let dead = &self.state.subscriptions[&id.to_string()].dead;
        Some((id, letters.iter().filter_map(|pick| choose(dead, *pick)).map(|letter| letter.entry).collect()))
    }

    fn expansion(&mut self, pick: u8, chunk: usize, is_stale: bool) -> Option<Expansion> {
        let log: Vec<_> = [self.state.expanded].into_iter().chain(self.state.undone.iter().copied()).collect();
        let pairs: Vec<_> = log.windows(2).collect();
        let pair = if pick < 220 { pairs.first()? } else { choose(&pairs, pick)? };
        let (previous, event) = (pair[0], pair[1]);
        let found = self.find_targets(event);
        let targets = self.targets.entry(event).or_insert(found);
        let cursor = self.state.hash("exp").get(&event.to_string()).map(|cursor| cursor.parse().unwrap());
        let after = if is_stale { targets.last().copied() } else { cursor };
        let mut left: Vec<_> = targets.iter().copied().filter(|id| after.is_none_or(|after| *id > after)).collect();
        let is_last = chunk == 0 || chunk >= left.len();
        if !is_last {
            left.truncate(chunk);
        }
        let up_to = if is_last { None } else { left.last().copied() };
        let (tenant, size) = self.state.bodies[&event].clone();
        Some(Expansion {
            previous,
            event,
            nonce: self.state.events[&event]["i"].parse().unwrap(),
            event_type: self.type_of(event),
            tenant,
            size: size as usize,
            after,
            up_to,
            is_tracked: true,
            targets: left,
        })
    }

    /// As a dispatcher does, which may know of subscriptions that are deleted meanwhile.
    fn find_targets(&self, event: StreamId) -> Vec<SubscriptionId> {
        let only_for: Option<SubscriptionId> = self.state.events[&event].get("to").map(|id| id.parse().unwrap());
        self.ids().into_iter().filter(|id| only_for.is_none_or(|only| only == *id)).collect()
    }

    async fn elapse(&mut self, ms: u64) {
        clock::elapse(&mut self.connection, &format!("{}:{{s0}}", self.prefix), &self.state, ms).await;
        self.observe(Prediction::default()).await;
    }

    async fn kill_and_restart(&mut self) {
        self.redis.kill();
        self.reconnect().await;
    }

    async fn reconnect(&mut self) {
        self.redis.restart().await;
        self.streams = open(self.redis, &self.prefix).await;
        self.connection = self.redis.connect().await;
    }

    /// Kills Redis while calls are under way. What was acknowledged is there afterwards; of the rest each call ran wholly
    /// or not at all, and is made again.
    async fn kill_amid(&mut self, events: usize, room: usize, after_us: u64) {
        let mut actions: Vec<Action> =
            (0..events).map(|_| self.publish(&[Published { key: None, type_number: 0, only_for: None }])).collect();
        actions.extend(self.expansion(0, 0, false).map(|chunk| Action::Expand { chunks: vec![chunk], room }));
        let held = self.leases.iter().filter(|lease| is_held(lease, &self.state)).cloned();
        let verdicts = [Verdict::Delivered, Verdict::Retry { delay_ms: 1, retry_after_ms: None }, Verdict::Exhausted];
        let results = held.zip(verdicts.into_iter().cycle()).map(|(lease, verdict)| self.result(lease, verdict));
        actions.extend(results.map(|result| Action::Settle(vec![result])));
        actions.push(Action::Lease { room });
        let calls = futures_util::future::join_all(actions.iter().map(|action| action.perform(&self.streams)));
        let redis = &mut *self.redis;
        let (answers, ()) = tokio::join!(calls, async {
            tokio::time::sleep(Duration::from_micros(after_us)).await;
            redis.kill();
        });
        self.reconnect().await;
        let mut all = Prediction::default();
        let mut unanswered = Vec::new();
        for (action, answer) in actions.into_iter().zip(answers) {
            let prediction = predict(&action, &self.state, BOUNDS);
            match answer {
                // Calls beside it may have changed what it met: only a result that was taken is sure.
                Ok(Answer::Stale(stale)) if !stale.is_empty() => all.may.extend(prediction.unsure().may),
                Ok(Answer::Expanded(done, leases)) if done.done == 0 => {
                    self.leases.extend(leases);
                    all.may.extend(prediction.may);
                }
                Ok(answer) => {
                    self.take_in_unchecked(&action, &answer);
                    all.must.extend(prediction.must);
                    all.may.extend(prediction.may);
                }
                Err(_) => {
                    all.may.extend(prediction.unsure().may);
                    unanswered.push(action);
                }
            }
        }
        for action in &unanswered {
            // A publisher repeats its call; what others left open is found by whoever comes next.
            if matches!(action, Action::Append { .. }) {
                let answer = action.perform(&self.streams).await.unwrap();
                self.take_in_unchecked(action, &answer);
            }
        }
        self.observe(all).await;
        for id in self.ids() {
            self.act(Action::Audit(id)).await;
        }
    }

    /// Takes in an answer got beside others, whose leases cannot be compared with the state before.
    fn take_in_unchecked(&mut self, action: &Action, answer: &Answer) {
        match answer {
            Answer::Leased(Leased { leases, .. }) | Answer::Expanded(_, leases) => {
                self.leases.extend(leases.iter().cloned());
            }
            _ => self.take_in(action, answer),
        }
    }

    /// Lets everything come to its end: all that was owed to a subscription that is left is delivered or dead.
    pub async fn drain(&mut self) {
        for round in 0.. {
            assert!(round < ROUNDS_TO_DRAIN, "it does not end: {:#?}", self.state);
            for id in self.ids() {
                self.act(Action::SetActive(id, true)).await;
            }
            while let Some(chunk) = self.expansion(0, 0, false) {
                self.act(Action::Expand { chunks: vec![chunk], room: 0 }).await;
            }
            self.elapse(3_600_000).await;
            self.act(Action::Lease { room: 256 }).await;
            let held = self.leases.iter().filter(|lease| is_held(lease, &self.state)).cloned();
            let results: Vec<_> = held.map(|lease| self.result(lease, Verdict::Delivered)).collect();
            let is_over = results.is_empty();
            self.act(Action::Settle(results)).await;
            if is_over {
                break;
            }
        }
        for id in self.ids() {
            self.act(Action::Purge(id)).await;
        }
        self.check_end().await;
    }

    async fn check_end(&mut self) {
        let ledger = self.state.ledger();
        let owed = ledger.values().filter(|standing| **standing == Standing::Owed).count();
        assert_eq!(owed, 0, "I5: {ledger:#?}");
        assert!(self.state.zset("due").is_empty());
        for id in self.ids() {
            let dead = self.state.subscriptions[&id.to_string()].dead.iter().map(|letter| letter.entry).collect();
            self.act(Action::Discard(id, dead)).await;
        }
        assert!(self.state.hash("refs").is_empty() && self.state.spilled.is_empty(), "I4: {:#?}", self.state);
    }

    /// Redis loses the last bytes it has written. What is left is whole, and an audit finds nothing to mend.
    pub async fn tear_tail(&mut self, bytes: u64) {
        self.redis.stop().await;
        self.redis.torn_tail(bytes);
        self.reconnect().await;
        self.state = State::read(&mut self.connection, &format!("{}:{{s0}}", self.prefix)).await;
        // Where limits were lowered, or a breaker opened, more may be leased than is allowed now, and the state before is gone.
        let mut before = State::default();
        before.subscriptions.extend(self.state.subscriptions.iter().filter_map(|(id, sub)| {
            let may_exceed = self.changed.contains(id) || sub.number("hold") > 0;
            may_exceed.then(|| (id.clone(), sub.clone()))
        }));
        let wrong = violations(&self.state, Some(&before), Bounds { keeps_attempts: false, ..BOUNDS });
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        // What was published since is gone, and with it what anybody knew of it.
        let left = &self.state.events;
        self.published.retain(|id| left.contains_key(&id.at));
        self.trimmed.clear();
        self.leases.retain(|lease| is_held(lease, &self.state));
        for id in self.ids() {
            self.act(Action::Audit(id)).await;
        }
    }

    /// Ends the world and what it kept in Redis.
    pub async fn end(mut self) {
        let () = command(&mut self.connection, &["FLUSHALL"]).await;
    }
}

async fn open(redis: &TestRedis, prefix: &str) -> Streams {
    let limits = Limits {
        max_backlog: BOUNDS.max_backlog as u64,
        max_dead: BOUNDS.max_dead as u64,
        disable_after: DISABLE_AFTER,
    };
    let streams = Streams::open(&redis.url(), prefix, 1, limits, Sealer::new(&[])).await.unwrap();
    assert_eq!(streams.shard_of(TENANT), SHARD);
    streams
}

fn limited(
    subscription: posthaste::domain::subscription::Subscription,
    limits: &SubscriptionLimits,
) -> posthaste::domain::subscription::Subscription {
    posthaste::domain::subscription::Subscription {
        max_concurrency: limits.max_concurrency,
        rate_limit_per_minute: limits.rate_limit_per_minute,
        ordering: if limits.is_fifo { Ordering::Fifo } else { Ordering::None },
        events: [if limits.wants_own { "posthaste.*" } else { "*" }.parse().unwrap()].into(),
        ..subscription
    }
}

fn choose<T>(from: &[T], pick: u8) -> Option<&T> {
    from.get(usize::from(pick) % from.len().max(1))
}

fn forget_old<T>(remembered: &mut Vec<T>) {
    let old = remembered.len().saturating_sub(REMEMBERED);
    remembered.drain(..old);
}

/// What changed though it may not, and what did not though it must (I5, I8).
fn surprises(before: &State, after: &State, prediction: &Prediction) -> Vec<String> {
    let (was, is) = (before.ledger(), after.ledger());
    let mut wrong = Vec::new();
    let allows = |changes: &Changes, delivery, now: &Standing| {
        let allowed = changes.get(delivery);
        // The oldest dead letter of a full list goes, even one that died in this step.
        let is_full = |id: &str| after.subscriptions[id].dead.len() == BOUNDS.max_dead;
        let displaced = |standings: &[Standing]| standings.contains(&Standing::Dead) && *now == Standing::Cancelled;
        allowed.is_some_and(|allowed| allowed.contains(now) || displaced(allowed) && is_full(&delivery.subscription))
    };
    for delivery in was.keys().chain(is.keys()).collect::<BTreeSet<_>>() {
        let (old, new) = (was.get(delivery), is.get(delivery));
        let is_displaced = old == Some(&Standing::Dead)
            && new == Some(&Standing::Cancelled)
            && after.subscriptions[&delivery.subscription].dead.len() == BOUNDS.max_dead;
        let must = prediction.must.contains_key(delivery);
        let is_right = match new {
            Some(now) if must => allows(&prediction.must, delivery, now),
            Some(now) => old == new || is_displaced || allows(&prediction.may, delivery, now),
            None => false,
        };
        if !is_right {
            wrong.push(format!("I5: {delivery:?} was {old:?} and is {new:?}; predicted {prediction:?}"));
        }
    }
    for delivery in prediction.must.keys().filter(|delivery| !is.contains_key(delivery)) {
        wrong.push(format!("I5: {delivery:?} is missing"));
    }
    wrong
}
