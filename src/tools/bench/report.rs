//! The figures of all runs, for people and for machines.

use std::{borrow::Cow, collections::BTreeMap, fs, thread};

use serde::Serialize;

use super::{CONCURRENCY, EVENT_BYTES, Fsync, case::Case};

/// What a run measured, by name; the name carries the unit.
pub type Figures = BTreeMap<Cow<'static, str>, f64>;

/// A figure as it is shown.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub title: &'static str,
    pub figure: &'static str,
    pub decimals: usize,
}

impl Column {
    pub const fn new(title: &'static str, figure: &'static str, decimals: usize) -> Self {
        Self { title, figure, decimals }
    }
}

/// A figure over several runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

/// Everything that was measured, and under what conditions.
#[derive(Debug, Serialize)]
pub struct Report {
    /// When it began.
    pub date: String,
    pub posthaste_version: &'static str,
    pub redis_version: String,
    pub kernel: String,
    pub cpu: String,
    pub cores: usize,
    pub event_bytes: usize,
    pub concurrency: usize,
    pub results: Vec<Outcome>,
}

/// What the runs of one case measured.
#[derive(Debug, Serialize)]
pub struct Outcome {
    #[serde(skip)]
    pub case: Case,
    scenario: &'static str,
    #[serde(rename = "case")]
    name: String,
    pub appendfsync: &'static str,
    runs: usize,
    #[serde(skip)]
    columns: &'static [Column],
    pub figures: BTreeMap<Cow<'static, str>, Spread>,
}

/// Rows of cells, the first the titles.
pub type Table = Vec<Vec<String>>;

impl Spread {
    /// `None` of no runs.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, least, most })
    }

    fn shown(&self, decimals: usize) -> String {
        let Self { median, least, most } = self;
        if least == most {
            format!("{median:.decimals$}")
        } else {
            format!("{median:.decimals$} ({least:.decimals$}–{most:.decimals$})")
        }
    }
}

impl Outcome {
    pub fn of(case: Case, fsync: Fsync, runs: &[Figures]) -> Self {
        Self {
            case,
            scenario: case.scenario(),
            name: case.to_string(),
            appendfsync: fsync.name(),
            runs: runs.len(),
            columns: case.columns(),
            figures: spreads(runs),
        }
    }

    fn titles(&self) -> Vec<String> {
        let titles = self.columns.iter().map(|column| column.title.to_owned());
        [self.scenario.to_uppercase(), "APPENDFSYNC".to_owned()].into_iter().chain(titles).collect()
    }

    fn cells(&self) -> Vec<String> {
        let shown = |column: &Column| {
            self.figures.get(column.figure).map_or_else(String::new, |figure| figure.shown(column.decimals))
        };
        [self.name.clone(), self.appendfsync.to_owned()].into_iter().chain(self.columns.iter().map(shown)).collect()
    }
}

fn spreads(runs: &[Figures]) -> BTreeMap<Cow<'static, str>, Spread> {
    let names = runs.iter().flat_map(BTreeMap::keys);
    let spread = |name| Spread::of(runs.iter().filter_map(|run| run.get(name)).copied().collect());
    names.filter_map(|name| Some((name.clone(), spread(name)?))).collect()
}

/// The median of each figure.
pub fn medians(runs: &[Figures]) -> Figures {
    spreads(runs).into_iter().map(|(name, spread)| (name, spread.median)).collect()
}

impl Report {
    /// One that begins now, without results.
    pub fn begun_now() -> Self {
        Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            posthaste_version: env!("CARGO_PKG_VERSION"),
            redis_version: String::new(),
            kernel: read_trimmed("/proc/sys/kernel/osrelease"),
            cpu: cpu_model(&read_trimmed("/proc/cpuinfo")),
            cores: thread::available_parallelism().map_or(1, usize::from),
            event_bytes: EVENT_BYTES,
            concurrency: CONCURRENCY,
            results: Vec::new(),
        }
    }

    /// Under what conditions it was measured: a line.
    pub fn conditions(&self) -> String {
        format!(
            "{}: posthaste {}, Redis {}, Linux {}, {} cores of {} shared by all, events of {} bytes, {} requests at once; \
             medians (least–most)",
            self.date,
            self.posthaste_version,
            self.redis_version,
            self.kernel,
            self.cores,
            self.cpu,
            self.event_bytes,
            self.concurrency,
        )
    }

    /// A table for each scenario.
    pub fn tables(&self) -> Vec<Table> {
        let mut tables: Vec<(&str, Table)> = Vec::new();
        for outcome in &self.results {
            match tables.last_mut() {
                Some((scenario, table)) if *scenario == outcome.scenario => table.push(outcome.cells()),
                _ => tables.push((outcome.scenario, vec![outcome.titles(), outcome.cells()])),
            }
        }
        tables.into_iter().map(|(_, table)| table).collect()
    }
}

/// What a file says; nothing where the system has none.
fn read_trimmed(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// As `/proc/cpuinfo` calls the first of them.
fn cpu_model(cpuinfo: &str) -> String {
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.trim_start().strip_prefix(':'));
    model.unwrap_or("an unknown CPU").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Scenario, case::Sizes},
        *,
    };

    #[test]
    fn a_spread_is_the_median_and_the_ends() {
        let check = |values: &[f64], expected: &str| {
            let shown = Spread::of(values.to_vec()).map(|spread| spread.shown(1));
            assert_eq!(shown.unwrap_or_default(), expected);
        };
        check(&[], "");
        check(&[2.0], "2.0");
        check(&[3.0, 1.0, 2.0], "2.0 (1.0–3.0)");
        check(&[4.0, 1.0], "2.5 (1.0–4.0)");
        check(&[1.0, 1.0], "1.0");
    }

    #[test]
    fn every_scenario_has_its_table_and_every_case_its_row() {
        let mut report = Report::begun_now();
        for scenario in [Scenario::All, Scenario::SlowOnes] {
            for case in Case::all(scenario, Sizes::default()) {
                let shown = case.columns().iter();
                let figures = |value| shown.clone().map(|column| (column.figure.into(), value)).collect::<Figures>();
                report.results.push(Outcome::of(case, Fsync::Always, &[figures(1.0), figures(2.0)]));
            }
        }
        let tables = report.tables();
        let shape: Vec<_> = tables.iter().map(|table| (table[0][0].as_str(), table.len() - 1)).collect();
        let expected = [
            ("THROUGHPUT", 3),
            ("FANOUT", 2),
            ("LATENCY", 3),
            ("NOISY", 4),
            ("RETRIES", 1),
            ("PUBLISH", 4),
            ("LISTS", 1),
            ("MANY", 1),
            ("BACKLOG", 2),
            ("IDLE", 1),
            ("MEMORY", 1),
            ("SCALING", 6),
        ];
        assert_eq!(shape, expected);
        for row in tables.iter().flatten() {
            assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        }
    }

    #[test]
    fn the_first_cpu_gives_its_name() {
        let check = |text: &str, expected: &str| assert_eq!(cpu_model(text), expected, "{text}");
        check("processor\t: 0\nmodel name\t: A fast one\nmodel name\t: B\n", "A fast one");
        check("", "an unknown CPU");
    }
}
