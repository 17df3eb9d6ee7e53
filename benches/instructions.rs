//! How many instructions the pure core takes, counted by callgrind and compared with `benches/instructions.toml`: it fails
//! where something has become dearer. A count, unlike a time, is the same on a busy machine and on a slow one.
//!
//! `cargo bench --bench instructions` compares, and with `-- --accept` writes the figures anew.

mod workloads;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    process::{Command, ExitCode},
};

use anyhow::{Context, bail, ensure};
use mimalloc::MiMalloc;
use serde::{Deserialize, Serialize};

use workloads::WORKLOADS;

const FIGURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.toml");
const FIGURES_HEAD: &str = "\
# What one run of each workload in benches/workloads takes: instructions, counted by callgrind. `make verify-instructions`
# compares with these, `make instructions` writes them anew. They are those of this compiler and target; the CPU that
# valgrind shows has no instructions for SHA-256, so that signing takes many more than where it is done by the CPU.

";
/// How much more than expected is too much.
const TOLERANCE: f64 = 0.05;
/// The same where another compiler has written the instructions: only what is far dearer is no doing of its.
const TOLERANCE_OF_ANOTHER_COMPILER: f64 = 0.25;
/// What is too little to count, besides: code that is as it was is inlined otherwise when other code changes.
const SLACK: f64 = 100.0;
/// Runs that are counted, of which the mean is taken: hash maps are keyed at random, and allocators tidy up now and then.
const RUNS: u64 = 100;

/// As the program allocates.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// What `instructions.toml` says.
#[derive(Serialize, Deserialize)]
struct Figures {
    rustc: String,
    target: String,
    instructions: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    // Cargo puts a `--bench` of its own among them.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        [] => compare(),
        ["--accept"] => accept(),
        ["--run", workload] => run(workload).map(|()| true),
        _ => Err(anyhow::anyhow!("nothing, or `--accept`, is understood, not {arguments:?}")),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a workload for callgrind to count; once before that, so that what is made at first use is there.
fn run(name: &str) -> anyhow::Result<()> {
    let workload = WORKLOADS.iter().find(|workload| workload.name == name);
    let mut work = (workload.context("no such workload")?.prepare)();
    work();
    counted(&mut work);
    Ok(())
}

/// Callgrind counts from its start to its end: it must be a function, under this name.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    for _ in 0..RUNS {
        work();
    }
}

/// The instructions of one run of a workload.
fn count(name: &str) -> anyhow::Result<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*instructions*counted*"]);
    let output = valgrind.arg(std::env::current_exe()?).args(["--run", name]).output();
    let output = output.map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow::anyhow!("valgrind is needed: install valgrind"),
        _ => error.into(),
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: valgrind failed:\n{said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<u64>().ok());
    match collected {
        Some(instructions) if instructions > 0 => Ok(instructions / RUNS),
        _ => bail!("{name}: callgrind has counted nothing:\n{said}"),
    }
}

/// The figures as they are now.
fn count_all() -> anyhow::Result<Figures> {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(compiler).arg("-vV").output().context("rustc must be asked for its version")?;
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = |name: &str| version.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    let rustc = line("release: ").context("rustc -vV names no release")?;
    let target = line("host: ").context("rustc -vV names no host")?;
    let instructions = WORKLOADS
        .iter()
        .map(|workload| Ok((workload.name.to_owned(), count(workload.name)?)))
        .collect::<anyhow::Result<_>>()?;
    Ok(Figures { rustc, target, instructions })
}

fn accept() -> anyhow::Result<bool> {
    let figures = count_all()?;
    fs::write(FIGURES, FIGURES_HEAD.to_owned() + &toml::to_string(&figures)?).context(FIGURES)?;
    figures.instructions.iter().for_each(|(name, counted)| println!("{name:40} {counted:>10}"));
    Ok(true)
}

/// Says of each workload what it takes; whether none takes too much, and each has a figure.
fn compare() -> anyhow::Result<bool> {
    let expected: Figures = toml::from_str(&fs::read_to_string(FIGURES).context(FIGURES)?).context(FIGURES)?;
    let now = count_all()?;
    println!("{:40} {:>10} {:>10} {:>10}", "instructions", "expected", "counted", "difference");
    for (name, counted) in &now.instructions {
        match expected.instructions.get(name) {
            Some(figure) => {
                println!("{name:40} {figure:>10} {counted:>10} {:>+9.1}%", 100.0 * excess(*figure, *counted));
            }
            None => println!("{name:40} {:>10} {counted:>10}", "-"),
        }
    }
    if now.target != expected.target {
        eprintln!("nothing is compared: the figures are those of {}, and this is {}", expected.target, now.target);
        return Ok(true);
    }
    let mut tolerance = TOLERANCE;
    if now.rustc != expected.rustc {
        tolerance = TOLERANCE_OF_ANOTHER_COMPILER;
        eprintln!(
            "the figures are those of rustc {}, and this is {}: {:.0} % more is allowed instead of {:.0} %; \
             `make instructions`, before a change, writes those of this one",
            expected.rustc,
            now.rustc,
            100.0 * tolerance,
            100.0 * TOLERANCE,
        );
    }
    let faults = faults(&expected.instructions, &now.instructions, tolerance);
    let gains = gains(&expected.instructions, &now.instructions, tolerance);
    gains.iter().chain(&faults).for_each(|sentence| eprintln!("{sentence}"));
    Ok(faults.is_empty())
}

/// By what part more is taken than expected; below 0: less.
fn excess(expected: u64, counted: u64) -> f64 {
    counted as f64 / expected as f64 - 1.0
}

/// Whether the difference, up or down, is more than is allowed.
fn differs(expected: u64, counted: u64, tolerance: f64) -> bool {
    expected.abs_diff(counted) as f64 > tolerance * expected as f64 + SLACK
}

/// A sentence for each workload that takes too much, has no figure, or is none any more.
fn faults(expected: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>, tolerance: f64) -> Vec<String> {
    let names: BTreeSet<&String> = expected.keys().chain(now.keys()).collect();
    let fault = |name: &String| match (expected.get(name), now.get(name)) {
        (Some(figure), Some(counted)) if counted > figure && differs(*figure, *counted, tolerance) => Some(format!(
            "`{name}` has become dearer: {counted} instructions, {:.1} % more than the {figure} expected; {:.0} % and \
             {SLACK} are allowed. If it is worth that, `make instructions` writes the new figures: commit them, and say why",
            100.0 * excess(*figure, *counted),
            100.0 * tolerance,
        )),
        (Some(_), Some(_)) => None,
        _ => Some(format!(
            "`{name}` is either in benches/workloads or in benches/instructions.toml, not in both: `make instructions` \
             writes the figures anew"
        )),
    };
    names.into_iter().filter_map(fault).collect()
}

/// A sentence for each workload that takes so much less that its figure would let it become dearer unseen.
fn gains(expected: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>, tolerance: f64) -> Vec<String> {
    let both = expected.iter().filter_map(|(name, figure)| Some((name, *figure, *now.get(name)?)));
    both.filter(|(_, figure, counted)| counted < figure && differs(*figure, *counted, tolerance))
        .map(|(name, figure, counted)| {
            format!(
                "`{name}` has become cheaper, {:.1} % below its figure: `make instructions` writes the new one, so that it stays so",
                -100.0 * excess(figure, counted),
            )
        })
        .collect()
}
