//! The invariants of the queue, checked on all keys of a shard. Each message starts with the invariant's number.

use std::collections::{BTreeMap, BTreeSet};

use posthaste::{
    domain::{id::StreamId, retry::MAX_DELAY_MS},
    streams::LEASE,
};

use super::state::{Delivery, Standing, State, Subscription};

const HOUR_MS: u64 = 3_600_000;
/// A breaker holds no longer: 5 min.
const HOLD_MS: u64 = 300_000;
const LEASE_MS: u64 = LEASE.as_millis() as u64;
/// Leases lost in a row after which an entry is dead.
const LOST_AT_MOST: u64 = 6;
/// Scripts round to whole milliseconds, and plan a subscription from which nothing was taken one later.
const ROUNDING_MS: u64 = 1;

/// What a shard may hold.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub max_backlog: usize,
    pub max_dead: usize,
    /// Whether every attempt ever made is still in the attempt log.
    pub keeps_attempts: bool,
}

/// Every violation there is. `before` is the state before the last step: what a change of limits left above them may
/// stay, but not grow.
pub fn violations(state: &State, before: Option<&State>, bounds: Bounds) -> Vec<String> {
    let mut found = Found(Vec::new());
    for (id, subscription) in &state.subscriptions {
        let before = before.and_then(|state| state.subscriptions.get(id));
        pending_is_leased_or_waiting(id, subscription, &mut found);
        due_is_in_time(id, subscription, state, &mut found);
        leases_keep_limits(id, subscription, before, state.now, &mut found);
        order_is_that_of_the_log(id, subscription, &mut found);
        times_are_in_reach(id, subscription, state, &mut found);
        subscription_is_bounded(id, subscription, state, bounds, &mut found);
    }
    references_agree(state, &mut found);
    stored_bytes_agree(state, &mut found);
    statuses_agree(state, &mut found);
    counts_agree(state, &mut found);
    statistics_agree(state, bounds, &mut found);
    expanded_in_order(state, &mut found);
    shard_is_bounded(state, bounds, &mut found);
    found.0
}

struct Found(Vec<String>);

impl Found {
    fn unless(&mut self, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            self.0.push(message());
        }
    }
}

/// I1.
fn pending_is_leased_or_waiting(id: &str, sub: &Subscription, found: &mut Found) {
    let entries: BTreeSet<_> = sub.owed.iter().map(|owed| owed.entry).collect();
    let pending: BTreeSet<_> = sub.pending.keys().copied().collect();
    let (leased, waiting): (BTreeSet<_>, BTreeSet<_>) =
        (sub.leases.keys().copied().collect(), sub.retries.keys().copied().collect());
    let held: BTreeSet<_> = leased.union(&waiting).copied().collect();
    found.unless(pending == held, || format!("I1 {id}: pending {pending:?}, leased {leased:?}, waiting {waiting:?}"));
    found.unless(leased.is_disjoint(&waiting), || format!("I1 {id}: both leased {leased:?} and waiting {waiting:?}"));
    found.unless(pending.is_subset(&entries), || format!("I1 {id}: pending {pending:?}, entries {entries:?}"));
    let handed_out: BTreeSet<_> = entries.iter().filter(|entry| **entry <= sub.handed_out).copied().collect();
    found.unless(handed_out == pending, || format!("I1 {id}: handed out {handed_out:?}, pending {pending:?}"));
    let tokens: BTreeSet<_> = sub.tokens.keys().filter(|name| !name.ends_with('#')).cloned().collect();
    let leased: BTreeSet<_> = leased.iter().map(ToString::to_string).collect();
    found.unless(tokens == leased, || format!("I1 {id}: tokens of {tokens:?}, leased {leased:?}"));
}

/// When anything can be done for a subscription next, as the protocol says; `None` when nothing can.
fn planned(sub: &Subscription, now: u64) -> Option<u64> {
    if sub.status() != "a" || sub.owed.is_empty() {
        return None;
    }
    let live: Vec<u64> = sub.leases.values().map(|at| *at as u64).filter(|at| *at > now).collect();
    let first_expiry = live.iter().min().copied();
    if live.len() >= sub.cap() {
        return first_expiry;
    }
    let (interval, burst) = (sub.number("T"), sub.number("B"));
    let tat = sub.number("tat").min(now + burst * interval);
    let allowed = if interval > 0 { tat.saturating_sub((burst - 1) * interval) } else { 0 };
    let hold = sub.number("hold").min(now + HOLD_MS);
    let keep_away = sub.number("ra").min(now + HOUR_MS);
    let gate = [now, allowed, hold, keep_away].into_iter().max().unwrap_or(now);
    let is_expired = |entry| sub.leases.get(entry).is_some_and(|at| *at as u64 <= now);
    let next = if sub.is_fifo() {
        match sub.pending.keys().next() {
            None => Some(gate),
            Some(head) if is_expired(head) => Some(gate),
            Some(head) => sub.retries.get(head).map(|at| gate.max(*at as u64)),
        }
    } else if live.len() < sub.leases.len() || sub.owed.len() > sub.pending.len() {
        Some(gate)
    } else {
        sub.retries.values().map(|at| gate.max(*at as u64)).min()
    };
    first_expiry.into_iter().chain(next).min()
}

/// I2: an active subscription with work is looked at in time, and no other is.
fn due_is_in_time(id: &str, sub: &Subscription, state: &State, found: &mut Found) {
    let due = state.zset("due").get(id).map(|at| *at as u64);
    let planned = planned(sub, state.now);
    let in_time = match (due, planned) {
        (Some(due), Some(planned)) => due <= planned + ROUNDING_MS,
        (due, None) => due.is_none(),
        (None, Some(_)) => false,
    };
    found.unless(in_time, || format!("I2 {id}: due {due:?}, to be planned at {planned:?}, now {}", state.now));
}

/// I3.
fn leases_keep_limits(id: &str, sub: &Subscription, before: Option<&Subscription>, now: u64, found: &mut Found) {
    // A lease from before it became FIFO may have run out, and waits until all that is older is done.
    let counts = |until: &&f64| !sub.is_fifo() || **until as u64 > now;
    let leased = sub.leases.values().filter(counts).count();
    let cap = sub.cap().max(before.map_or(0, |sub| sub.leases.len()));
    found.unless(leased <= cap, || format!("I3 {id}: {leased} leased, {cap} may be"));
    if sub.is_fifo() {
        let pending = sub.pending.len();
        let bound = before.map_or(0, |sub| sub.pending.len()).max(1);
        found.unless(pending <= bound, || format!("I3 {id}: FIFO, and {pending} are pending"));
    }
    for (name, lost) in sub.tokens.iter().filter(|(name, _)| name.ends_with('#')) {
        let is_pending = name.trim_end_matches('#').parse().is_ok_and(|entry| sub.pending.contains_key(&entry));
        let lost: u64 = lost.parse().unwrap();
        found.unless(is_pending && lost < LOST_AT_MOST, || format!("I3 {id}: {name} lost {lost} leases in a row"));
    }
}

/// I7: what was dispatched, and neither replayed nor redriven, stands in the order of the log.
fn order_is_that_of_the_log(id: &str, sub: &Subscription, found: &mut Found) {
    let dispatched = sub.owed.iter().filter(|owed| !owed.fields.contains_key("c"));
    let events: Vec<_> = dispatched.map(|owed| owed.event).collect();
    found.unless(events.is_sorted_by(|a, b| a < b), || format!("I7 {id}: the events {events:?}"));
}

/// I10.
fn times_are_in_reach(id: &str, sub: &Subscription, state: &State, found: &mut Found) {
    let now = state.now as f64;
    let furthest = (2 * MAX_DELAY_MS).max(HOUR_MS).max(sub.number("B") * sub.number("T")) + LEASE_MS;
    let due = state.zset("due").get(id).copied().unwrap_or(0.0);
    found.unless(due <= now + furthest as f64, || format!("I10 {id}: due {due}, now {now}"));
    for (entry, expiry) in &sub.leases {
        found
            .unless(*expiry <= now + LEASE_MS as f64, || format!("I10 {id}: {entry} leased until {expiry}, now {now}"));
    }
    for (entry, retry) in &sub.retries {
        let furthest = now + (2 * MAX_DELAY_MS + HOUR_MS) as f64;
        found.unless(*retry <= furthest, || format!("I10 {id}: {entry} retried at {retry}, now {now}"));
    }
}

/// I11 of one subscription: bounds, and keys that are there exactly while something is in them.
fn subscription_is_bounded(id: &str, sub: &Subscription, state: &State, bounds: Bounds, found: &mut Found) {
    let (owed, dead) = (sub.owed.len(), sub.dead.len());
    found.unless(owed <= bounds.max_backlog, || format!("I11 {id}: {owed} owed"));
    found.unless(dead <= bounds.max_dead, || format!("I11 {id}: {dead} dead letters"));
    found.unless(state.zset("deadidx").contains_key(id) == (dead > 0), || format!("I11 {id}: deadidx, {dead} dead"));
    let tenant = sub.rt.get("tn").map_or("", String::as_str);
    found.unless(state.zset(&format!("tdead:{tenant}")).contains_key(id) == (dead > 0), || {
        format!("I11 {id}: tdead:{tenant}, {dead} dead")
    });
    let is_listed = state.zset(&format!("tsubs:{tenant}")).contains_key(id);
    let is_live = !matches!(sub.status(), "" | "d");
    found.unless(is_listed == is_live, || format!("I11 {id}: status `{}`, tsubs {is_listed}", sub.status()));
    let is_told = state.sets.get(&format!("own:{tenant}")).is_some_and(|told| told.contains(id));
    found.unless(is_told == (is_live && sub.wants_dead_letters), || format!("I11 {id}: own {is_told}"));
    let deleted = state.zset("subs").get(id).copied();
    found.unless(deleted.is_some_and(|at| (at == 0.0) == is_live), || format!("I11 {id}: subs says {deleted:?}"));
    found.unless(sub.has_record, || format!("I11 {id}: no record"));
    found.unless(sub.has_group != sub.rt.is_empty(), || format!("I11 {id}: group {}", sub.has_group));
    if sub.rt.is_empty() {
        found.unless(owed + dead + sub.tokens.len() == 0, || {
            format!("I11 {id}: cleared, with {owed} owed and {dead} dead")
        });
    }
    found.unless(sub.attempts.iter().all(|member| member.len() == 16), || format!("I11 {id}: a member of att"));
}

/// I4: references are counted rightly, and no body that is owed is gone.
fn references_agree(state: &State, found: &mut Found) {
    let mut counted: BTreeMap<_, u64> = BTreeMap::new();
    for (delivery, _) in state.entries() {
        *counted.entry(delivery.event).or_default() += 1;
    }
    let kept: BTreeMap<_, u64> =
        state.hash("refs").iter().map(|(event, count)| (event.parse().unwrap(), count.parse().unwrap_or(0))).collect();
    found.unless(counted == kept, || format!("I4: entries name {counted:?}, refs say {kept:?}"));
    for event in kept.keys() {
        let is_kept = state.events.contains_key(event) || state.spilled.contains(event);
        found.unless(is_kept, || format!("I4: {event} is owed and gone"));
    }
    for event in &state.spilled {
        let is_needed = kept.contains_key(event) && !state.events.contains_key(event);
        found.unless(is_needed, || format!("I11: pay:{event} is not needed"));
    }
}

/// I4: what a tenant stores is the bodies of its events that somebody is owed.
fn stored_bytes_agree(state: &State, found: &mut Found) {
    let mut owed: BTreeMap<String, u64> = BTreeMap::new();
    for event in state.hash("refs").keys() {
        let Some((tenant, bytes)) = state.bodies.get(&event.parse().unwrap()) else { continue };
        *owed.entry(tenant.clone()).or_default() += bytes;
    }
    let kept: BTreeMap<String, u64> =
        state.hash("owed").into_iter().map(|(tenant, bytes)| (tenant, bytes.parse().unwrap_or(u64::MAX))).collect();
    found.unless(owed == kept, || format!("I4: tenants are owed {owed:?} bytes, P:owed says {kept:?}"));
}

/// I5: a delivery has one entry at most, and the status of its event says where it stands.
fn statuses_agree(state: &State, found: &mut Found) {
    let mut entries: BTreeMap<Delivery, Standing> = BTreeMap::new();
    for (delivery, standing) in state.entries() {
        let twice = entries.insert(delivery.clone(), standing);
        found.unless(twice.is_none(), || format!("I5: {delivery:?} has two entries"));
    }
    let refs = state.hash("refs");
    for (event, status) in &state.statuses {
        let targets = status.keys().filter(|name| name.contains('#')).count();
        let n: usize = status.get("n").map_or(0, |n| n.parse().unwrap());
        found.unless(n == targets, || format!("I5: {event} has {n} deliveries, {targets} noted: {status:?}"));
        let is_open = refs.contains_key(&event.to_string()) || state.hash("exp").contains_key(&event.to_string());
        let ages = state.ttls[&format!("evs:{event}")] >= 0;
        found.unless(ages != is_open, || format!("I11: evs:{event} open {is_open}, ages {ages}"));
        for (name, value) in status.iter().filter(|(name, _)| name.contains('#')) {
            let (subscription, copy) = name.split_once('#').unwrap();
            let delivery =
                Delivery { event: *event, subscription: subscription.to_owned(), copy: copy.parse().unwrap() };
            let entry = entries.remove(&delivery);
            let expected = match &value[..1] {
                "p" => Some(Standing::Owed),
                "d" => Some(Standing::Dead),
                _ => None,
            };
            found.unless(entry == expected, || format!("I5: {delivery:?} is noted `{value}`, entry {entry:?}"));
        }
    }
    found.unless(entries.is_empty(), || format!("I5: not noted: {entries:?}"));
}

/// I5: the shard's counts, each subscription's, and the list of oldest entries.
fn counts_agree(state: &State, found: &mut Found) {
    let mut totals = [0; 4];
    let mut oldest = BTreeMap::new();
    for (id, sub) in &state.subscriptions {
        let (waiting, leased) = (sub.retries.len(), sub.leases.len());
        let counts = [sub.owed.len().saturating_sub(sub.pending.len()), waiting, leased, sub.dead.len()];
        let kept = ["n0", "n1", "n2", "n3"].map(|name| sub.number(name) as usize);
        found.unless(counts == kept, || format!("I5 {id}: fresh, waiting, leased, dead {counts:?}, kept {kept:?}"));
        for (total, count) in totals.iter_mut().zip(counts) {
            *total += count;
        }
        if let Some(head) = sub.owed.first() {
            oldest.insert(id.clone(), head.entry.ms as f64);
        }
    }
    let cnt = state.hash("cnt");
    let kept =
        ["fresh", "waiting", "leased", "dead"].map(|name| cnt.get(name).map_or(0, |n| n.parse::<i64>().unwrap()));
    found.unless(totals.map(|n| n as i64) == kept, || format!("I5: counts {totals:?}, P:cnt says {kept:?}"));
    let old = state.zset("old");
    found.unless(oldest == old, || format!("I5: oldest entries {oldest:?}, P:old says {old:?}"));
}

/// I5: every attempt whose result was taken is in the statistics once, and a late one if it succeeded while it was owed.
fn statistics_agree(state: &State, bounds: Bounds, found: &mut Found) {
    for (id, sub) in &state.subscriptions {
        let classes: Vec<u64> = (0..6).map(|class| state.statistic(id, &format!("s{class}"))).collect();
        let in_buckets: u64 = (0..16).map(|bucket| state.statistic(id, &format!("b{bucket}"))).sum();
        let attempts = classes.iter().sum::<u64>();
        found.unless(attempts == in_buckets, || format!("I5 {id}: {attempts} attempts, {in_buckets} in buckets"));
        let died = state.statistic(id, "dead") as usize;
        found.unless(died >= sub.dead.len(), || format!("I5 {id}: {died} died, {} dead", sub.dead.len()));
        for (class, counted) in classes.into_iter().enumerate().filter(|_| bounds.keeps_attempts) {
            let (mut in_time, mut late) = (0, 0);
            for member in sub.attempts.iter().filter(|member| usize::from(member[11]) == class) {
                let is_late = state.attempts.get(&place_of(member)).copied().unwrap_or_default();
                if is_late { late += u64::from(class == 2) } else { in_time += 1 }
            }
            found.unless((in_time..=in_time + late).contains(&counted), || {
                format!("I5 {id}: {counted} attempts of class {class}, {in_time} logged and {late} late")
            });
        }
    }
}

/// Which attempt of the log a member of `P:att` is.
fn place_of(member: &[u8]) -> StreamId {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    StreamId { ms: number(&member[..6]), seq: number(&member[6..10]) }
}

/// I6. What is not expanded is what comes after the last event that is, so that nothing can be missing between.
fn expanded_in_order(state: &State, found: &mut Found) {
    let first = state.undone.first();
    let (expanded, waiting) = (state.expanded, state.undone.len() as u64);
    let shown = state.dispatchers.unwrap_or((StreamId::ZERO, waiting));
    found.unless(shown == (expanded, waiting), || format!("I6: {waiting} after {expanded}, the group shows {shown:?}"));
    for event in state.hash("exp").keys() {
        let event = event.parse().unwrap();
        found.unless(first == Some(&event), || format!("I6: {event} is half expanded, {first:?} comes first"));
    }
}

/// I11 of the shard: no key without a bound.
fn shard_is_bounded(state: &State, bounds: Bounds, found: &mut Found) {
    found.unless(state.unknown.is_empty(), || format!("I11: unknown keys {:?}", state.unknown));
    for (name, ttl) in &state.ttls {
        if ["idem:", "call:", "asleep", "st:"].iter().any(|kind| name.starts_with(kind)) {
            found.unless(*ttl != -1, || format!("I11: {name} never ends"));
        }
    }
    for id in state.zset("due").keys().chain(state.zset("old").keys()).chain(state.zset("deadidx").keys()) {
        let is_there = state.subscriptions.get(id).is_some_and(|sub| !sub.rt.is_empty());
        found.unless(is_there, || format!("I11: due, old or deadidx name {id}, which is gone"));
    }
    let listed: usize = state.subscriptions.values().map(|sub| sub.attempts.len()).sum();
    let logged = state.attempts.len();
    found.unless(!bounds.keeps_attempts || listed == logged, || {
        format!("I11: {listed} attempts listed, {logged} logged")
    });
}
