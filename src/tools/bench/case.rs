//! The cases: each a scenario with its parameters, the figures it yields, and how they are shown.

use std::fmt;

use super::{
    Options, Scenario, backlog,
    behaviour::Behaviour,
    engine::Processes,
    idle, latency, lists, measure, memory, noisy, publish,
    report::{Column, Figures},
    stage::Stage,
    throughput,
    webhooks::Layout,
};

/// Events of a fan-out to few webhooks.
const FANOUT_EVENTS: u64 = 200;
/// The small backlog that the large one is compared with.
const SMALL_BACKLOG: u64 = 1_000;

/// Processes that send, where they are most; also where it is the primaries that are counted.
const MOST_SENDERS: usize = 4;

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Each event goes to one of so many endpoints, each of another tenant.
    Throughput { endpoints: usize },
    /// Each event goes to all of so many webhooks.
    Fanout { events: u64, webhooks: usize },
    /// So many events a second, to one endpoint.
    Latency { per_second: u32 },
    /// One of twenty endpoints answers so.
    Noisy { first: Behaviour },
    /// One endpoint that refuses 30 % of all requests.
    Retries,
    /// Events over HTTP, so many in a request, for one webhook or none.
    Publish { batch: u64, webhooks: usize },
    /// A log of attempts, page by page.
    Lists,
    /// One event for each of so many webhooks.
    Many { webhooks: usize },
    /// So many deliveries that wait for a webhook.
    Backlog { pending: u64, is_small: bool },
    /// So many webhooks, and nothing to do.
    Idle { webhooks: usize },
    /// What Redis keeps for each thing.
    Memory { webhooks: usize },
    /// So many processes that send.
    Scaling { senders: usize },
    /// As many of them as send at most, on a cluster of so many primaries.
    Cluster { primaries: usize },
}

/// How large the cases are whose size is not the number of their events.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sizes {
    /// Webhooks, where a scenario has many; `None` is as many as it is known for.
    pub webhooks: Option<usize>,
    /// Deliveries that wait in the large backlog; likewise.
    pub pending: Option<u64>,
}

/// What a case is to be seen beside: the figure, of the same runs of which case, and what the ratio is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    pub with: Case,
    pub figure: &'static str,
    pub ratio: &'static str,
}

impl Case {
    /// Those of a scenario, in the order they are run.
    pub fn all(scenario: Scenario, sizes: Sizes) -> Vec<Self> {
        let webhooks = |known| sizes.webhooks.unwrap_or(known);
        let of = |scenario| Self::all(scenario, sizes);
        match scenario {
            Scenario::Throughput => [1, 20, 1_000].map(|endpoints| Self::Throughput { endpoints }).into(),
            Scenario::Fanout => [(FANOUT_EVENTS, webhooks(100)), (1, webhooks(50_000))]
                .map(|(events, webhooks)| Self::Fanout { events, webhooks })
                .into(),
            Scenario::Latency => [100, 1_000, 5_000].map(|per_second| Self::Latency { per_second }).into(),
            Scenario::Noisy => [Behaviour::Healthy, Behaviour::Hanging, Behaviour::Failing, Behaviour::Slow]
                .map(|first| Self::Noisy { first })
                .into(),
            Scenario::Retries => vec![Self::Retries],
            Scenario::Publish => {
                [(1, 0), (100, 0), (1, 1), (100, 1)].map(|(batch, webhooks)| Self::Publish { batch, webhooks }).into()
            }
            Scenario::Lists => vec![Self::Lists],
            Scenario::Many => vec![Self::Many { webhooks: webhooks(100_000) }],
            Scenario::Backlog => {
                let pending = sizes.pending.unwrap_or(1_000_000);
                vec![Self::small_backlog(pending), Self::Backlog { pending, is_small: false }]
            }
            Scenario::Idle => vec![Self::Idle { webhooks: webhooks(100_000) }],
            Scenario::Memory => vec![Self::Memory { webhooks: webhooks(20_000) }],
            Scenario::Scaling => {
                let senders = [1, 2, MOST_SENDERS].map(|senders| Self::Scaling { senders });
                senders.into_iter().chain([1, 2, 3].map(|primaries| Self::Cluster { primaries })).collect()
            }
            Scenario::All => Scenario::QUICK.into_iter().flat_map(of).collect(),
            Scenario::SlowOnes => Scenario::SLOW.into_iter().flat_map(of).collect(),
        }
    }

    /// What a backlog is compared with.
    fn small_backlog(pending: u64) -> Self {
        Self::Backlog { pending: SMALL_BACKLOG.min(pending), is_small: true }
    }

    /// The webhooks it needs.
    pub fn layout(self) -> Layout {
        match self {
            Self::Throughput { endpoints } => Layout::Own(endpoints),
            Self::Fanout { webhooks, .. } => Layout::Shared(webhooks),
            Self::Noisy { .. } => Layout::Own(noisy::WEBHOOKS),
            Self::Latency { .. } | Self::Retries | Self::Lists | Self::Backlog { .. } => Layout::Own(1),
            Self::Publish { webhooks, .. } => Layout::Own(webhooks),
            Self::Many { webhooks } | Self::Idle { webhooks } => Layout::Grouped(webhooks),
            Self::Memory { .. } => Layout::Own(0),
            Self::Scaling { .. } | Self::Cluster { .. } => Layout::Own(noisy::WEBHOOKS),
        }
    }

    /// As what the engine runs, unless it is measured as something else.
    pub fn processes(self, wanted: Processes) -> Processes {
        match self {
            Self::Scaling { senders } => Processes::Separate { senders },
            Self::Cluster { .. } => Processes::Separate { senders: MOST_SENDERS },
            _ => wanted,
        }
    }

    /// Of the cluster that it runs on; `None`: one server.
    pub fn primaries(self) -> Option<usize> {
        match self {
            Self::Cluster { primaries } => Some(primaries),
            _ => None,
        }
    }

    pub fn scenario(self) -> &'static str {
        match self {
            Self::Throughput { .. } => "throughput",
            Self::Fanout { .. } => "fanout",
            Self::Latency { .. } => "latency",
            Self::Noisy { .. } => "noisy",
            Self::Retries => "retries",
            Self::Publish { .. } => "publish",
            Self::Lists => "lists",
            Self::Many { .. } => "many",
            Self::Backlog { .. } => "backlog",
            Self::Idle { .. } => "idle",
            Self::Memory { .. } => "memory",
            Self::Scaling { .. } | Self::Cluster { .. } => "scaling",
        }
    }

    /// Whether a run takes minutes, so that one is enough.
    pub fn is_slow(self) -> bool {
        matches!(
            self,
            Self::Many { .. }
                | Self::Backlog { .. }
                | Self::Idle { .. }
                | Self::Memory { .. }
                | Self::Scaling { .. }
                | Self::Cluster { .. }
        )
    }

    /// Measures once.
    ///
    /// # Errors
    /// Not every event arrived.
    pub async fn run(self, stage: &Stage, options: &Options) -> anyhow::Result<Figures> {
        match self {
            Self::Throughput { .. } | Self::Scaling { .. } | Self::Cluster { .. } => {
                throughput::run(stage, options.events).await
            }
            Self::Fanout { events, .. } => throughput::run(stage, events).await,
            Self::Many { webhooks } => throughput::run(stage, webhooks as u64).await,
            Self::Retries => throughput::run_with_retries(stage, options.events).await,
            Self::Latency { per_second } => latency::run(stage, per_second, options.at_rate).await,
            Self::Noisy { first } => noisy::run(stage, first, options.at_rate).await,
            Self::Publish { batch, .. } => publish::run(stage, options.events, batch).await,
            Self::Lists => lists::run(stage, options.events).await,
            Self::Backlog { pending, .. } => backlog::run(stage, pending).await,
            Self::Idle { .. } => idle::run(stage, options.idle()).await,
            Self::Memory { webhooks } => memory::run(stage, webhooks).await,
        }
    }

    /// The figures shown to people, those of all cases of a scenario alike.
    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::Throughput { .. } | Self::Fanout { .. } | Self::Many { .. } => &measure::COLUMNS,
            Self::Scaling { .. } | Self::Cluster { .. } => &throughput::SCALING_COLUMNS,
            Self::Latency { .. } => &latency::COLUMNS,
            Self::Noisy { .. } => &noisy::COLUMNS,
            Self::Retries => &throughput::RETRIES_COLUMNS,
            Self::Publish { .. } => &publish::COLUMNS,
            Self::Lists => &lists::COLUMNS,
            Self::Backlog { .. } => &backlog::COLUMNS,
            Self::Idle { .. } => &idle::COLUMNS,
            Self::Memory { .. } => &memory::COLUMNS,
        }
    }

    /// What it is to be seen beside, if anything; that is run before it.
    pub fn comparison(self) -> Option<Comparison> {
        match self {
            Self::Noisy { first } if first != Behaviour::Healthy => Some(Comparison {
                with: Self::Noisy { first: Behaviour::Healthy },
                figure: "p99_ms",
                ratio: "p99_ratio_to_quiet",
            }),
            Self::Backlog { pending, is_small: false } => Some(Comparison {
                with: Self::small_backlog(pending),
                figure: "deliveries_per_second",
                ratio: "rate_ratio_to_small",
            }),
            Self::Cluster { .. } => Some(Comparison {
                with: Self::Scaling { senders: MOST_SENDERS },
                figure: "deliveries_per_second",
                ratio: "rate_ratio_to_one_server",
            }),
            _ => None,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Throughput { endpoints: 1 } => write!(f, "throughput, 1 endpoint"),
            Self::Throughput { endpoints } => write!(f, "throughput, {endpoints} endpoints"),
            Self::Fanout { events: 1, webhooks } => write!(f, "fanout, 1 event to {webhooks} webhooks"),
            Self::Fanout { events, webhooks } => write!(f, "fanout, {events} events to {webhooks} webhooks"),
            Self::Latency { per_second } => write!(f, "latency, {per_second} events/s"),
            Self::Noisy { first } => match first {
                Behaviour::Hanging => write!(f, "noisy, 1 of 20 hangs"),
                Behaviour::Slow => write!(f, "noisy, 1 of 20 answers after 1 s"),
                Behaviour::Failing => write!(f, "noisy, 1 of 20 fails at once"),
                _ => write!(f, "noisy, none is bad"),
            },
            Self::Retries => write!(f, "retries, 30 % fail"),
            Self::Publish { batch, webhooks } => {
                let how = if *batch == 1 { "one by one".to_owned() } else { format!("batches of {batch}") };
                let whom = if *webhooks == 0 { "no webhook" } else { "1 webhook" };
                write!(f, "publish, {how}, {whom}")
            }
            Self::Lists => write!(f, "lists, pages of attempts"),
            Self::Many { webhooks } => write!(f, "many, {webhooks} webhooks"),
            Self::Backlog { pending, .. } => write!(f, "backlog, {pending} pending"),
            Self::Idle { webhooks } => write!(f, "idle, {webhooks} webhooks"),
            Self::Memory { webhooks } => write!(f, "memory, {webhooks} webhooks"),
            Self::Scaling { senders: 1 } => write!(f, "scaling, 1 sender"),
            Self::Scaling { senders } => write!(f, "scaling, {senders} senders"),
            Self::Cluster { primaries: 1 } => write!(f, "scaling, cluster of 1 primary"),
            Self::Cluster { primaries } => write!(f, "scaling, cluster of {primaries} primaries"),
        }
    }
}
