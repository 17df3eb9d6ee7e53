//! Random steps. Selectors are numbers that are read against the state at that time, so that any sequence makes sense and
//! one that fails can be made shorter.

use proptest::prelude::*;

use crate::support::samples::Verdict;

/// One step. A `pick` chooses among what there is.
#[derive(Debug, Clone)]
pub enum Step {
    Publish {
        events: Vec<Published>,
    },
    Create {
        limits: SubscriptionLimits,
    },
    Update {
        pick: u8,
        limits: SubscriptionLimits,
        clears_faults: bool,
    },
    SetActive {
        pick: u8,
        is_active: bool,
    },
    Delete {
        pick: u8,
    },
    Purge {
        pick: u8,
    },
    /// The oldest event, or one out of order; a chunk of it, or all; from where it stands, or from elsewhere. With room
    /// for them deliveries are handed out then.
    Expand {
        pick: u8,
        chunk: usize,
        is_stale: bool,
        room: usize,
    },
    Lease {
        room: usize,
    },
    Renew {
        picks: Vec<u8>,
    },
    Settle {
        results: Vec<(u8, Verdict)>,
    },
    DropBacklog {
        pick: u8,
    },
    Redrive {
        pick: u8,
        letters: Vec<u8>,
    },
    Discard {
        pick: u8,
        letters: Vec<u8>,
    },
    /// Of anything that ever was a delivery.
    Resend {
        pick: u8,
    },
    StartReplay {
        pick: u8,
    },
    Replay {
        pick: u8,
        count: usize,
    },
    Trim {
        count: usize,
    },
    Audit {
        pick: u8,
    },
    Recount,
    /// An earlier call once more: its answer was lost, or it was held up.
    Again {
        pick: u8,
    },
    Elapse {
        ms: u64,
    },
    /// Redis is killed between two steps.
    Kill,
    /// Redis is killed while calls are under way.
    KillAmid {
        events: usize,
        room: usize,
        after_us: u64,
    },
}

/// An event to publish.
#[derive(Debug, Clone)]
pub struct Published {
    pub key: Option<u8>,
    pub type_number: u8,
    pub only_for: Option<u8>,
}

/// What a subscription allows.
#[derive(Debug, Clone)]
pub struct SubscriptionLimits {
    pub is_fifo: bool,
    pub max_concurrency: u32,
    pub rate_limit_per_minute: Option<u32>,
    /// Whether it names the engine's own events.
    pub wants_own: bool,
}

fn published() -> impl Strategy<Value = Published> {
    let key = prop_oneof![4 => Just(None), 1 => (0u8..4).prop_map(Some)];
    let only_for = prop_oneof![6 => Just(None), 1 => any::<u8>().prop_map(Some)];
    (key, 0u8..2, only_for).prop_map(|(key, type_number, only_for)| Published { key, type_number, only_for })
}

fn limits() -> impl Strategy<Value = SubscriptionLimits> {
    let rate = prop_oneof![3 => Just(None), 1 => Just(Some(600)), 1 => Just(Some(6_000))];
    let wants_own = prop::bool::weighted(0.2);
    (any::<bool>(), 1u32..4, rate, wants_own).prop_map(
        |(is_fifo, max_concurrency, rate_limit_per_minute, wants_own)| SubscriptionLimits {
            is_fifo,
            max_concurrency,
            rate_limit_per_minute,
            wants_own,
        },
    )
}

fn verdict() -> impl Strategy<Value = Verdict> {
    let retry = (0u64..3_000, prop_oneof![4 => Just(None), 1 => (0u64..20_000).prop_map(Some)])
        .prop_map(|(delay_ms, retry_after_ms)| Verdict::Retry { delay_ms, retry_after_ms });
    prop_oneof![
        6 => Just(Verdict::Delivered),
        4 => retry,
        2 => Just(Verdict::Exhausted),
        1 => Just(Verdict::Gone),
        1 => Just(Verdict::Released),
        1 => Just(Verdict::BodyMissing),
    ]
}

fn picks() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 1..5)
}

/// Any step; those that move deliveries on are likelier.
pub fn step() -> impl Strategy<Value = Step> {
    let elapsed = prop_oneof![Just(1), Just(150), Just(3_000), Just(15_001), Just(600_000)];
    let queue = prop_oneof![
        6 => prop::collection::vec(published(), 1..4).prop_map(|events| Step::Publish { events }),
        12 => (any::<u8>(), 0usize..4, prop::bool::weighted(0.1), prop_oneof![Just(0), 1usize..6])
            .prop_map(|(pick, chunk, is_stale, room)| Step::Expand { pick, chunk, is_stale, room }),
        10 => (1usize..6).prop_map(|room| Step::Lease { room }),
        12 => prop::collection::vec((any::<u8>(), verdict()), 1..5).prop_map(|results| Step::Settle { results }),
        2 => picks().prop_map(|picks| Step::Renew { picks }),
        5 => any::<u8>().prop_map(|pick| Step::Again { pick }),
        6 => elapsed.prop_map(|ms| Step::Elapse { ms }),
    ];
    let changes = prop_oneof![
        3 => limits().prop_map(|limits| Step::Create { limits }),
        2 => (any::<u8>(), limits(), any::<bool>())
            .prop_map(|(pick, limits, clears_faults)| Step::Update { pick, limits, clears_faults }),
        3 => (any::<u8>(), prop::bool::weighted(0.7)).prop_map(|(pick, is_active)| Step::SetActive { pick, is_active }),
        1 => any::<u8>().prop_map(|pick| Step::Delete { pick }),
        2 => any::<u8>().prop_map(|pick| Step::Purge { pick }),
        1 => any::<u8>().prop_map(|pick| Step::DropBacklog { pick }),
        3 => (any::<u8>(), picks()).prop_map(|(pick, letters)| Step::Redrive { pick, letters }),
        2 => (any::<u8>(), picks()).prop_map(|(pick, letters)| Step::Discard { pick, letters }),
        3 => any::<u8>().prop_map(|pick| Step::Resend { pick }),
        1 => any::<u8>().prop_map(|pick| Step::StartReplay { pick }),
        3 => (any::<u8>(), 1usize..4).prop_map(|(pick, count)| Step::Replay { pick, count }),
        3 => (1usize..6).prop_map(|count| Step::Trim { count }),
        2 => any::<u8>().prop_map(|pick| Step::Audit { pick }),
        1 => Just(Step::Recount),
    ];
    let crash = prop_oneof![
        1 => Just(Step::Kill),
        2 => (1usize..6, 1usize..6, 0u64..4_000)
            .prop_map(|(events, room, after_us)| Step::KillAmid { events, room, after_us }),
    ];
    prop_oneof![60 => queue, 30 => changes, 1 => crash]
}
