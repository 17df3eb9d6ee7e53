//! The cases: each a scenario with its parameters, the figures it yields, and how they are shown.

use std::fmt;

use super::{
    Options, Scenario, latency, lists,
    report::{Column, Figures},
    stage::Stage,
    throughput,
};

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Each event goes to one of so many endpoints, each of another tenant.
    Throughput { endpoints: usize },
    /// So many events a second, to one endpoint.
    Latency { per_second: u32 },
    /// A log of attempts, page by page.
    Lists,
}

impl Case {
    /// Those of a scenario, in the order they are run.
    pub fn all(scenario: Scenario) -> Vec<Self> {
        let throughput = [1, 20].map(|endpoints| Self::Throughput { endpoints });
        let latency = [100, 1_000].map(|per_second| Self::Latency { per_second });
        match scenario {
            Scenario::Throughput => throughput.into(),
            Scenario::Latency => latency.into(),
            Scenario::Lists => vec![Self::Lists],
            Scenario::All => [&throughput[..], &latency, &[Self::Lists]].concat(),
        }
    }

    /// How many endpoints it needs.
    pub fn endpoints(self) -> usize {
        match self {
            Self::Throughput { endpoints } => endpoints,
            Self::Latency { .. } | Self::Lists => 1,
        }
    }

    pub fn scenario(self) -> &'static str {
        match self {
            Self::Throughput { .. } => "throughput",
            Self::Latency { .. } => "latency",
            Self::Lists => "lists",
        }
    }

    /// Measures once.
    ///
    /// # Errors
    /// Not every event arrived.
    pub async fn run(self, stage: &Stage, options: Options) -> anyhow::Result<Figures> {
        match self {
            Self::Throughput { .. } => throughput::run(stage, options.events).await,
            Self::Latency { per_second } => latency::run(stage, per_second, options.seconds).await,
            Self::Lists => lists::run(stage, options.events).await,
        }
    }

    /// The figures shown to people, those of all cases of a scenario alike.
    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::Throughput { .. } => &throughput::COLUMNS,
            Self::Latency { .. } => &latency::COLUMNS,
            Self::Lists => &lists::COLUMNS,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Throughput { endpoints: 1 } => write!(f, "throughput, 1 endpoint"),
            Self::Throughput { endpoints } => write!(f, "throughput, {endpoints} endpoints"),
            Self::Latency { per_second } => write!(f, "latency, {per_second} events/s"),
            Self::Lists => write!(f, "lists, pages of attempts"),
        }
    }
}
