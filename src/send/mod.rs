//! Sending: what is due is leased, posted, and settled.
//!
//! A slot is taken before a delivery is: what is leased starts at once, so that none lies idle where another sender could
//! have it. The slot comes back when Redis knows the result, so an outage of Redis stops the sending by itself.

mod deliver;
mod held;
mod material;
pub mod post;
pub mod request;
mod settle;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, future::join_all, stream::FuturesUnordered};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};

use self::{
    deliver::Deliverer,
    held::Held,
    material::Material,
    post::Post,
    settle::{Report, Settler},
};
use crate::{
    backoff::Backoff,
    clock,
    domain::outcome::Reason,
    handover::{Handed, Intake},
    metrics,
    shutdown::Shutdown,
    streams::{Ending, Lease, Leased, RecentEvents, SETTLE_AT_MOST, Settled, ShardId, Streams},
    traces::Traces,
};

/// How often a shard with something due later is looked at: a hint that it is due earlier may be lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a shard with nothing due is looked at.
const LOOK_AT_IDLE_EVERY: Duration = Duration::from_secs(5);
/// What is left of the grace for handing back what did not end in time.
const HANDING_BACK: Duration = Duration::from_secs(1);
const WAKES_QUEUED: usize = 4096;

/// What a sender may do.
#[derive(Clone)]
pub struct Settings {
    /// Past this age a delivery that fails is not tried again.
    pub max_age: Duration,
    /// How long requests under way may take to end after a stop.
    pub grace: Duration,
    /// Where the span of each attempt goes.
    pub traces: Traces,
}

/// Something falls due on a shard at a time.
#[derive(Debug, Clone, Copy)]
pub struct Wake {
    shard: ShardId,
    at: Instant,
}

impl Wake {
    fn now(shard: ShardId) -> Self {
        Self { shard, at: Instant::now() }
    }

    /// `due_ms` on Redis' clock, which shows `now_ms` now. Without anything due, the next look is soon enough.
    fn at_redis_time(shard: ShardId, now_ms: u64, due_ms: Option<u64>) -> Self {
        let wait = |due_ms: u64| Duration::from_millis(due_ms.saturating_sub(now_ms)).min(LOOK_EVERY);
        let at = due_ms.map(|due_ms| Instant::now() + wait(due_ms));
        Self { shard, at: at.unwrap_or_else(|| clock::next_beat(LOOK_AT_IDLE_EVERY)) }
    }
}

/// Sends until it is told to stop; then ends what is under way within the grace and hands the rest back. What the dispatcher of
/// this process has leased comes by `intake`, which also has the slots of both.
pub async fn run(streams: Streams, post: Post, settings: Settings, intake: Intake, shutdown: Shutdown) {
    let held = Arc::new(Held::default());
    let Intake { events, slots, slot_count, handed } = intake;
    let (reports, reported) = mpsc::channel::<Report>(slot_count);
    let (wakes, woken) = mpsc::channel(WAKES_QUEUED);

    let mut helpers = JoinSet::new();
    helpers.spawn(listen_for_bells(streams.clone(), events.clone(), wakes.clone()));
    helpers.spawn({
        let (held, streams) = (held.clone(), streams.clone());
        async move { held.keep_renewed(&streams).await }
    });
    let settler = Settler { streams: streams.clone(), held: held.clone(), reports: reported, wakes: wakes.clone() };
    let mut settling = JoinSet::new();
    settling.spawn(settler.run());

    let deliverer = Arc::new(Deliverer {
        material: Material::new(streams.clone(), events),
        post,
        held: held.clone(),
        slots: slots.clone(),
        slot_count: slot_count as u32,
        suspect: Mutex::new(()),
        reports,
        max_age: settings.max_age,
        traces: settings.traces,
        shutdown: shutdown.clone(),
    });
    let mut leasing = Leasing {
        looks: vec![Instant::now(); streams.shards().len()],
        beat: streams.aside(),
        streams: streams.clone(),
        slots,
        woken,
        deliverer,
        deliveries: JoinSet::new(),
        failing: HashSet::new(),
        backoff: Backoff::new("leasing deliveries"),
    };
    leasing.deliveries.spawn(take_in(handed, leasing.deliverer.clone(), streams.clone(), wakes, shutdown.clone()));
    leasing.run(&shutdown).await;
    let Leasing { deliveries, deliverer, .. } = leasing;
    drop(deliverer);
    let patience = settings.grace.saturating_sub(HANDING_BACK);
    end(deliveries, settling, patience, &shutdown).await;
    hand_back(&streams, held.by_shard()).await;
}

/// Delivers what the dispatcher of this process has leased, until that has ended. What comes after a stop goes back.
async fn take_in(
    mut handed: mpsc::UnboundedReceiver<Handed>,
    deliverer: Arc<Deliverer>,
    streams: Streams,
    wakes: mpsc::Sender<Wake>,
    shutdown: Shutdown,
) {
    let mut deliveries = JoinSet::new();
    while let Some(Handed { shard, leased, mut slots }) = handed.recv().await {
        // A full queue means that the leasing loop is awake.
        let _ = wakes.try_send(Wake::at_redis_time(shard, leased.now_ms, leased.next_due_ms));
        let Some(leases) = with_slots(leased, &mut slots) else { continue };
        if shutdown.is_stopping() {
            let leases = leases.into_iter().map(|(lease, _)| lease).collect();
            hand_back(&streams, [(shard, leases)]).await;
        } else {
            deliveries.spawn(deliverer.clone().deliver_all(leases));
        }
        while deliveries.try_join_next().is_some() {}
    }
    while deliveries.join_next().await.is_some() {}
}

/// Each lease of a call with its slot; `None` where there is none.
fn with_slots(leased: Leased, slots: &mut OwnedSemaphorePermit) -> Option<Vec<(Lease, OwnedSemaphorePermit)>> {
    (0..leased.given_up).for_each(|_| metrics::dead_lettered(Reason::LeaseLost));
    // A call hands out no more than there was room for.
    let leases: Vec<_> = leased.leases.into_iter().filter_map(|lease| Some((lease, slots.split(1)?))).collect();
    (!leases.is_empty()).then_some(leases)
}

/// Waits for what is under way and its settling, as long as there is patience.
async fn end(mut deliveries: JoinSet<()>, mut settling: JoinSet<()>, patience: Duration, shutdown: &Shutdown) {
    let all = async {
        while deliveries.join_next().await.is_some() {}
        // It ends with the last of those who report to it.
        while settling.join_next().await.is_some() {}
    };
    tokio::select! {
        () = all => {}
        () = tokio::time::sleep(patience) => {}
        () = shutdown.aborted() => {}
    }
    settling.shutdown().await;
    deliveries.shutdown().await;
}

/// Hands back what did not end in time, so that others need not wait for the leases to run out.
async fn hand_back(streams: &Streams, leases: impl IntoIterator<Item = (ShardId, Vec<Lease>)>) {
    let calls = leases.into_iter().map(async |(shard, leases)| {
        let released: Vec<Settled> =
            leases.into_iter().map(|lease| Settled { lease, ending: Ending::Released }).collect();
        for batch in released.chunks(SETTLE_AT_MOST) {
            if let Err(error) = streams.settle(shard, batch).await {
                tracing::warn!(%error, deliveries = batch.len(), "could not hand deliveries back: they are sent once their leases run out");
                return;
            }
        }
    });
    join_all(calls).await;
}

/// Passes on hints that something fell due on a shard. Without them the looks at intervals remain.
async fn listen_for_bells(streams: Streams, events: RecentEvents, wakes: mpsc::Sender<Wake>) {
    let mut backoff = Backoff::new("listening for what falls due");
    loop {
        match streams.bells().await {
            Ok(mut bells) => {
                backoff.recovered();
                // Until it was back some may have been kept of before.
                events.forget();
                while let Some(shard) = bells.next().await {
                    // A full queue means that the leasing loop is awake.
                    let _ = wakes.try_send(Wake::now(shard));
                }
                metrics::bell_gap();
                events.forget();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => backoff.pause(&error).await,
        }
    }
}

/// Leases what is due whenever there are slots.
struct Leasing {
    streams: Streams,
    /// The same from beat to beat, while nothing is held.
    beat: Streams,
    slots: Arc<Semaphore>,
    /// When each shard is looked at next.
    looks: Vec<Instant>,
    woken: mpsc::Receiver<Wake>,
    deliverer: Arc<Deliverer>,
    deliveries: JoinSet<()>,
    /// Shards on which the last call failed.
    failing: HashSet<ShardId>,
    backoff: Backoff,
}

impl Leasing {
    /// A call that is under way when it must stop is waited for: what it leased is known, and handed back.
    async fn run(&mut self, shutdown: &Shutdown) {
        loop {
            let (due, room) = tokio::select! {
                biased;
                () = shutdown.stopping() => return,
                ready = self.ready() => ready,
            };
            self.lease(&due, room).await;
            while self.deliveries.try_join_next().is_some() {}
        }
    }

    async fn ready(&mut self) -> (Vec<ShardId>, OwnedSemaphorePermit) {
        (self.next_due().await, self.room().await)
    }

    /// Leases on as many of the shards as there are slots. One that fails is looked at later: what is on other servers is
    /// sent meanwhile.
    async fn lease(&mut self, due: &[ShardId], mut room: OwnedSemaphorePermit) {
        let shards = &due[..due.len().min(room.num_permits())];
        let each = room.num_permits() / shards.len();
        // At rest all shards are looked at together: in one write.
        let streams = if self.deliverer.held.count() == 0 { &self.beat } else { &self.streams }.clone();
        let mut calls: FuturesUnordered<_> =
            shards.iter().map(|shard| streams.lease(*shard, each).map(|leased| (*shard, leased))).collect();
        let mut failure = None;
        while let Some((shard, leased)) = calls.next().await {
            match leased {
                Ok(leased) => {
                    self.failing.remove(&shard);
                    self.take(shard, leased, &mut room);
                }
                Err(error) => {
                    self.failing.insert(shard);
                    failure = Some(error);
                }
            }
        }
        if let Some(error) = failure {
            let later = Instant::now() + self.backoff.failed(&error);
            for shard in shards.iter().filter(|shard| self.failing.contains(shard)) {
                self.looks[usize::from(*shard)] = later;
            }
        } else if self.failing.is_empty() {
            self.backoff.recovered();
        }
    }

    /// Waits until some shard is to be looked at; those that have waited longest come first.
    async fn next_due(&mut self) -> Vec<ShardId> {
        loop {
            while let Ok(wake) = self.woken.try_recv() {
                self.note(wake);
            }
            let now = Instant::now();
            let mut due: Vec<ShardId> =
                self.streams.shards().filter(|shard| self.looks[usize::from(*shard)] <= now).collect();
            if !due.is_empty() {
                due.sort_by_key(|shard| self.looks[usize::from(*shard)]);
                return due;
            }
            let next = self.looks.iter().min().copied().unwrap_or(now + LOOK_EVERY);
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                wake = self.woken.recv() => if let Some(wake) = wake { self.note(wake) },
            }
        }
    }

    fn note(&mut self, wake: Wake) {
        let look = &mut self.looks[usize::from(wake.shard)];
        *look = (*look).min(wake.at);
    }

    /// Takes the free slots, one at least and about half of all at most; what is not needed is given back once that is known.
    /// While few are taken the rest is for what the dispatcher of this process expands meanwhile: without a slot that would wait
    /// for a call more.
    async fn room(&self) -> OwnedSemaphorePermit {
        let mut room = self.slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let more = self.slots.available_permits().min(self.deliverer.slot_count as usize / 2) as u32;
        if let Ok(more) = self.slots.clone().try_acquire_many_owned(more) {
            room.merge(more);
        }
        room
    }

    fn take(&mut self, shard: ShardId, leased: Leased, room: &mut OwnedSemaphorePermit) {
        self.looks[usize::from(shard)] = Wake::at_redis_time(shard, leased.now_ms, leased.next_due_ms).at;
        if let Some(leases) = with_slots(leased, room) {
            self.deliveries.spawn(self.deliverer.clone().deliver_all(leases));
        }
    }
}
