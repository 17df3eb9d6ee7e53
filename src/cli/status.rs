//! `status`: what waits, what is dead, and who works, on one screen.

use std::{collections::BTreeMap, io::IsTerminal, time::Duration};

use clap::Args;
use futures_util::future::try_join_all;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use super::{context::Context, output::aligned, values::count};
use crate::streams::{self, Seat, Streams};

/// Between two screens of `--watch`.
const REDRAW_EVERY: Duration = Duration::from_secs(1);
/// To the upper left corner; and from the cursor on, clear the line or the rest of the screen.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_REST: &str = "\x1b[J";
/// Roles that are shown where none is alive, too: without them nothing is delivered.
const ROLES: [&str; 3] = ["sources", "dispatcher", "sender"];

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  posthaste status --watch")]
pub struct StatusArgs {
    /// Draw it anew every second
    #[arg(long)]
    watch: bool,
}

/// What `status --json` prints.
#[derive(Debug, PartialEq, Serialize)]
struct Status {
    backlog: Backlog,
    oldest_undelivered_seconds: Option<f64>,
    /// Deliveries that were given up, over all tenants.
    dead_letters: u64,
    /// Entries that could not be read.
    unreadable: u64,
    /// Events kept in the log.
    events: u64,
    /// How many are alive, by role.
    workers: BTreeMap<String, u64>,
    shards: u16,
    /// Shards that nobody dispatches.
    shards_without_leader: Vec<u16>,
    /// Whether somebody takes in what arrives at the front door.
    front_door_has_leader: bool,
    redis: Redis,
}

/// What waits where, named as in the metric `posthaste_backlog`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Backlog {
    front_door: u64,
    /// Events not yet dispatched.
    log: u64,
    fresh: u64,
    waiting: u64,
    leased: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Redis {
    name: String,
    version: String,
    /// `null`: it is no cluster. In one, the memory is that of its fullest primary.
    cluster_primaries: Option<usize>,
    used_memory_bytes: u64,
    /// `null`: no limit.
    max_memory_bytes: Option<u64>,
    problems: Vec<String>,
}

pub async fn run(context: &Context, args: StatusArgs) -> anyhow::Result<()> {
    let streams = context.streams().await?;
    if !args.watch {
        let status = read(&streams).await?;
        return if context.out.is_json { context.out.json(&status) } else { context.out.line(screen(&status)) };
    }
    let is_terminal = std::io::stdout().is_terminal();
    let mut ticks = interval(REDRAW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match read(&streams).await {
            Ok(status) if context.out.is_json => context.out.json(&status)?,
            Ok(status) => draw(context, &screen(&status), is_terminal)?,
            // Whoever watches wants to see it come back.
            Err(error) if error.is_passing() => draw(context, &error.to_string(), is_terminal)?,
            Err(error) => return Err(error.into()),
        }
    }
}

fn draw(context: &Context, screen: &str, is_terminal: bool) -> anyhow::Result<()> {
    if !is_terminal {
        return context.out.line(screen);
    }
    let lines: Vec<String> = screen.lines().map(|line| format!("{line}{CLEAR_LINE}\n")).collect();
    context.out.line(format_args!("{HOME}{}{CLEAR_REST}", lines.concat()))
}

async fn read(streams: &Streams) -> streams::Result<Status> {
    let now_ms = streams.now_ms().await?;
    let figures = try_join_all(streams.shards().map(|shard| streams.figures(shard, now_ms))).await?;
    let seats: Vec<Seat> = streams.shards().map(Seat::Shard).chain([Seat::FrontDoor]).collect();
    let leaders = streams.leaders(&seats).await?;
    let has_leader = |seat: &Seat| seats.iter().zip(&leaders).any(|(led, leader)| led == seat && leader.is_some());
    let report = streams.server_report().await?;
    let sum = |value: fn(&streams::ShardFigures) -> u64| figures.iter().map(value).sum::<u64>();
    let oldest_ms = figures.iter().filter_map(|shard| shard.oldest_ms).min();
    Ok(Status {
        backlog: Backlog {
            front_door: streams.front_door_length().await?,
            log: sum(|shard| shard.undispatched),
            fresh: sum(|shard| shard.counts.fresh),
            waiting: sum(|shard| shard.counts.waiting),
            leased: sum(|shard| shard.counts.leased),
        },
        oldest_undelivered_seconds: oldest_ms.map(|ms| now_ms.saturating_sub(ms) as f64 / 1_000.0),
        dead_letters: sum(|shard| shard.counts.dead),
        unreadable: sum(|shard| shard.bad),
        events: sum(|shard| shard.events),
        workers: by_role(&streams.workers().await?),
        shards: streams.shards().end,
        shards_without_leader: streams.shards().filter(|shard| !has_leader(&Seat::Shard(*shard))).collect(),
        front_door_has_leader: has_leader(&Seat::FrontDoor),
        redis: Redis {
            name: report.name,
            version: report.version,
            cluster_primaries: report.primaries,
            used_memory_bytes: report.used_memory_bytes,
            max_memory_bytes: Some(report.max_memory_bytes).filter(|bytes| *bytes > 0),
            problems: [report.faults, report.losses, report.advice].concat(),
        },
    })
}

/// How many workers (`role:process`) there are of each role; of the known ones also when there are none.
fn by_role(workers: &[String]) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> = ROLES.iter().map(|role| ((*role).to_owned(), 0)).collect();
    for worker in workers {
        let role = worker.split_once(':').map_or(worker.as_str(), |(role, _)| role);
        *counts.entry(role.to_owned()).or_default() += 1;
    }
    counts
}

fn screen(status: &Status) -> String {
    let Status { backlog, redis, .. } = status;
    let row = |title: &str, text: String| vec![title.to_owned(), text];
    let mut rows = vec![
        row("waiting", waiting(backlog)),
        row("oldest", status.oldest_undelivered_seconds.map_or("nothing waits".to_owned(), age)),
        row("dead", format!("{}, {} unreadable", count(status.dead_letters, "dead letter"), status.unreadable)),
        row("log", count(status.events, "event")),
        row("workers", workers(&status.workers)),
        row("leaders", leaders(status)),
        row("redis", format!("{} {}, {}", redis.name, redis.version, memory(redis))),
    ];
    rows.extend(redis.problems.iter().map(|problem| row("problem", problem.clone())));
    aligned(&rows)
}

fn waiting(backlog: &Backlog) -> String {
    let Backlog { front_door, log, fresh, waiting, leased } = backlog;
    format!(
        "{front_door} at the front door, {log} to dispatch, {fresh} to send, {waiting} to send again, {leased} under way"
    )
}

fn workers(workers: &BTreeMap<String, u64>) -> String {
    workers.iter().map(|(role, number)| format!("{role} {number}")).collect::<Vec<_>>().join(", ")
}

fn leaders(status: &Status) -> String {
    let led = usize::from(status.shards) - status.shards_without_leader.len();
    let front_door = if status.front_door_has_leader { "the front door too" } else { "but not the front door" };
    format!("{led} of {} led, {front_door}", count(status.shards.into(), "shard"))
}

fn memory(redis: &Redis) -> String {
    let mut used = bytes(redis.used_memory_bytes);
    if let Some(number) = redis.cluster_primaries {
        used = format!("a cluster of {number}, the fullest {used}");
    }
    redis.max_memory_bytes.map_or(format!("{used} used"), |max| format!("{used} of {} used", bytes(max)))
}

fn bytes(number: u64) -> String {
    const MIB: f64 = 1024.0 * 1024.0;
    match number as f64 / MIB {
        mib if mib >= 1024.0 => format!("{:.1} GiB", mib / 1024.0),
        mib => format!("{mib:.1} MiB"),
    }
}

fn age(seconds: f64) -> String {
    match seconds as u64 {
        0..60 => format!("{seconds:.1} s"),
        whole @ 60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        whole => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_counted_by_role_and_missing_roles_show() {
        let workers = ["sender:a-1", "sender:b-2", "dispatcher:a-1", "janitor:x"].map(str::to_owned);
        let counts = by_role(&workers);
        let expected = [("dispatcher", 1), ("janitor", 1), ("sender", 2), ("sources", 0)];
        assert_eq!(counts.iter().map(|(role, number)| (role.as_str(), *number)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn ages_and_sizes_are_shown_in_units_that_fit() {
        let check = |seconds, expected: &str| assert_eq!(age(seconds), expected);
        check(0.0, "0.0 s");
        check(59.94, "59.9 s");
        check(61.0, "1 min 1 s");
        check(7_384.0, "2 h 3 min");
        assert_eq!(bytes(1_572_864), "1.5 MiB");
        assert_eq!(bytes(3 * 1024 * 1024 * 1024), "3.0 GiB");
    }

    #[test]
    fn the_screen_names_what_is_missing() {
        let status = Status {
            backlog: Backlog { front_door: 1, log: 2, fresh: 3, waiting: 4, leased: 5 },
            oldest_undelivered_seconds: Some(4.0),
            dead_letters: 1,
            unreadable: 0,
            events: 10,
            workers: by_role(&["sender:a".to_owned()]),
            shards: 4,
            shards_without_leader: vec![2],
            front_door_has_leader: false,
            redis: Redis {
                name: "redis".into(),
                version: "7.0.15".into(),
                cluster_primaries: None,
                used_memory_bytes: 1024 * 1024,
                max_memory_bytes: None,
                problems: vec!["appendonly is no".into()],
            },
        };
        let expected = "\
waiting  1 at the front door, 2 to dispatch, 3 to send, 4 to send again, 5 under way
oldest   4.0 s
dead     1 dead letter, 0 unreadable
log      10 events
workers  dispatcher 0, sender 1, sources 0
leaders  3 of 4 shards led, but not the front door
redis    redis 7.0.15, 1.0 MiB used
problem  appendonly is no";
        assert_eq!(screen(&status), expected);
    }
}
