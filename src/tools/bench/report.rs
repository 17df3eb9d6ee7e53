//! The figures of all runs, for people and for machines.

use std::{collections::BTreeMap, thread};

use serde::Serialize;

use super::{CONCURRENCY, EVENT_BYTES, Options, case::Case};

/// What a run measured, by name; the name carries the unit.
pub type Figures = BTreeMap<&'static str, f64>;

/// A figure as it is shown.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub title: &'static str,
    pub figure: &'static str,
    pub decimals: usize,
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
    pub posthaste_version: &'static str,
    pub redis_version: String,
    pub appendfsync: &'static str,
    pub cores: usize,
    pub event_bytes: usize,
    pub concurrency: usize,
    pub runs: u32,
    pub results: Vec<Outcome>,
}

/// What the runs of one case measured.
#[derive(Debug, Serialize)]
pub struct Outcome {
    pub scenario: &'static str,
    pub case: String,
    #[serde(skip)]
    columns: &'static [Column],
    pub figures: BTreeMap<&'static str, Spread>,
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
    pub fn of(case: Case, runs: &[Figures]) -> Self {
        let names = runs.iter().flat_map(BTreeMap::keys).copied();
        let spread = |name| Spread::of(runs.iter().filter_map(|run| run.get(name)).copied().collect());
        let figures = names.filter_map(|name| Some((name, spread(name)?))).collect();
        Self { scenario: case.scenario(), case: case.to_string(), columns: case.columns(), figures }
    }

    fn titles(&self) -> Vec<String> {
        let titles = self.columns.iter().map(|column| column.title.to_owned());
        [self.scenario.to_uppercase()].into_iter().chain(titles).collect()
    }

    fn cells(&self) -> Vec<String> {
        let shown = |column: &Column| {
            self.figures.get(column.figure).map_or_else(String::new, |figure| figure.shown(column.decimals))
        };
        [self.case.clone()].into_iter().chain(self.columns.iter().map(shown)).collect()
    }
}

impl Report {
    pub fn new(options: Options) -> Self {
        Self {
            posthaste_version: env!("CARGO_PKG_VERSION"),
            redis_version: String::new(),
            appendfsync: options.fsync.name(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            event_bytes: EVENT_BYTES,
            concurrency: CONCURRENCY,
            runs: options.runs,
            results: Vec::new(),
        }
    }

    /// Under what conditions it was measured: a line.
    pub fn conditions(&self) -> String {
        format!(
            "posthaste {}, Redis {} with appendfsync {}, {} cores shared by all, events of {} bytes, {} requests at \
             once; medians of {} (least–most)",
            self.posthaste_version,
            self.redis_version,
            self.appendfsync,
            self.cores,
            self.event_bytes,
            self.concurrency,
            self.runs
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let options = Options {
            scenario: super::super::Scenario::All,
            fsync: super::super::Fsync::Always,
            seconds: 1,
            events: 1,
            runs: 2,
        };
        let mut report = Report::new(options);
        for case in Case::all(options.scenario) {
            let figures = |value| case.columns().iter().map(|column| (column.figure, value)).collect::<Figures>();
            report.results.push(Outcome::of(case, &[figures(1.0), figures(2.0)]));
        }
        let tables = report.tables();
        let shape: Vec<_> = tables.iter().map(|table| (table[0][0].as_str(), table.len())).collect();
        assert_eq!(shape, [("THROUGHPUT", 3), ("LATENCY", 3), ("LISTS", 2)]);
        for row in tables.iter().flatten() {
            assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        }
    }
}
