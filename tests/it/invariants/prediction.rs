//! What a call must answer and change, derived from the state before it: a model of the queue in a few lines a step.

use std::collections::{BTreeMap, BTreeSet};

use posthaste::{
    domain::id::{DeliveryId, StreamId, SubscriptionId},
    streams::{Expanded, Expansion, Job, Lease, Queued, Redriven, Refusal, Resend},
};

use super::action::{Action, Answer};
use crate::support::{
    checks::Bounds,
    samples::{Facts, Verdict},
    state::{Delivery, Standing, State, Subscription},
};

/// Where deliveries may stand afterwards.
pub type Changes = BTreeMap<Delivery, Vec<Standing>>;

/// What follows from a call.
#[derive(Debug, Default)]
pub struct Prediction {
    /// What must change if the call ran. All else must stay, but for what is displaced from a full list of dead letters.
    pub must: Changes,
    /// What may change besides.
    pub may: Changes,
    /// What must be answered; `None` where that is judged elsewhere.
    pub answer: Option<Answer>,
}

impl Prediction {
    fn answering(answer: Answer) -> Self {
        Self { answer: Some(answer), ..Self::default() }
    }

    /// What follows when nobody knows whether the call ran.
    pub fn unsure(mut self) -> Self {
        self.may.append(&mut self.must);
        self
    }
}

pub fn predict(action: &Action, state: &State, bounds: Bounds) -> Prediction {
    let find = |id: &SubscriptionId| state.subscriptions.get(&id.to_string());
    let is_live = |id: &SubscriptionId| find(id).is_some_and(|sub| !matches!(sub.status(), "" | "d"));
    match action {
        Action::Append { .. } => Prediction::default(),
        Action::Renew(leases) => {
            let held = leases.iter().filter(|lease| is_held(lease, state)).count();
            Prediction::answering(Answer::Count(held as u64))
        }
        // A repeat is answered as the first call was; whether it is one, only the whole record tells.
        Action::Create(new) => match find(&new.id).is_some_and(|sub| !sub.rt.is_empty()) {
            false => Prediction::answering(Answer::Done(true)),
            true => Prediction::default(),
        },
        Action::Update { subscription: new, version, .. } => {
            let is_current = find(&new.id).is_some_and(|sub| sub.rt.get("v") == Some(&version.to_string()));
            match (is_live(&new.id), is_current) {
                (true, false) => Prediction::default(),
                (is_live, _) => Prediction::answering(Answer::Done(is_live)),
            }
        }
        Action::SetActive(id, _) | Action::Delete(id) => Prediction::answering(Answer::Done(is_live(id))),
        Action::Purge(id) => purge(id, find(id)),
        Action::Expand { chunks, room: 0 } => expand(chunks, state),
        Action::Expand { chunks, .. } => Prediction { may: lease(state).may, ..expand(chunks, state) },
        Action::Lease { .. } => lease(state),
        Action::Settle(results) => settle(results, state),
        Action::DropBacklog(id, last) => drop_backlog(id, *last, find(id), state.now),
        Action::Redrive(id, letters) => redrive(id, letters, find(id), bounds),
        Action::Discard(id, letters) => {
            let letters: BTreeSet<_> = letters.iter().collect();
            let found = find(id).into_iter().flat_map(|sub| &sub.dead).filter(|letter| letters.contains(&letter.entry));
            let must: Changes =
                found.map(|letter| (delivery(letter.event, id, letter.copy), vec![Standing::Cancelled])).collect();
            Prediction { answer: Some(Answer::Count(must.len() as u64)), must, ..Prediction::default() }
        }
        Action::Resend { id, call } => match state.ttls.contains_key(&format!("call:{call}")) {
            true => Prediction::default(),
            false => resend(*id, find(&id.subscription), state, bounds),
        },
        Action::CreateJob(_) => Prediction::answering(Answer::Done(true)),
        Action::Replay { job, events, .. } => replay(job, events, find(&job.subscription), state, bounds),
        Action::Trim(last) => Prediction::answering(Answer::Count(trimmable(state, *last).len() as u64)),
        // Nothing is amiss between two calls, so there is nothing to mend.
        Action::Audit(_) | Action::Recount => Prediction::answering(Answer::Count(0)),
    }
}

fn delivery(event: StreamId, subscription: &SubscriptionId, copy: u16) -> Delivery {
    Delivery { event, subscription: subscription.to_string(), copy }
}

fn purge(id: &SubscriptionId, sub: Option<&Subscription>) -> Prediction {
    let Some(sub) = sub.filter(|sub| sub.status() == "d") else {
        return Prediction::answering(Answer::Done(sub.is_none_or(|sub| sub.rt.is_empty())));
    };
    let entries = sub.owed.iter().chain(&sub.dead);
    let must = entries.map(|owed| (delivery(owed.event, id, owed.copy), vec![Standing::Cancelled])).collect();
    Prediction { must, answer: Some(Answer::Done(true)), ..Prediction::default() }
}

fn expand(chunks: &[Expansion], state: &State) -> Prediction {
    let (mut place, mut cursors) = (state.expanded, state.hash("exp"));
    let mut must = Changes::new();
    let mut done = 0;
    let mut refusal = None;
    for chunk in chunks {
        if chunk.previous == place {
            let at: Option<SubscriptionId> = cursors.get(&chunk.event.to_string()).map(|at| at.parse().unwrap());
            if at != chunk.after {
                refusal = Some(Refusal::Cursor(at));
                break;
            }
            for target in &chunk.targets {
                let sub = state.subscriptions.get(&target.to_string());
                if sub.is_some_and(|sub| !matches!(sub.status(), "" | "d")) {
                    must.insert(delivery(chunk.event, target, 0), vec![Standing::Owed, Standing::Dead]);
                }
            }
            match chunk.up_to {
                Some(up_to) => drop(cursors.insert(chunk.event.to_string(), up_to.to_string())),
                None => (place, _) = (chunk.event, cursors.remove(&chunk.event.to_string())),
            }
        } else if chunk.event > place {
            refusal = Some(Refusal::Order(place));
            break;
        }
        done += 1;
    }
    Prediction {
        must,
        answer: Some(Answer::Expanded(Expanded { done, refusal, overflowed: 0 }, Vec::new())),
        ..Prediction::default()
    }
}

/// An entry whose lease expires for the sixth time in a row dies.
fn lease(state: &State) -> Prediction {
    let mut may = Changes::new();
    for (id, sub) in &state.subscriptions {
        for owed in &sub.owed {
            if sub.tokens.get(&format!("{}#", owed.entry)).is_some_and(|lost| lost == "5") {
                let delivery = Delivery { event: owed.event, subscription: id.clone(), copy: owed.copy };
                may.insert(delivery, vec![Standing::Dead]);
            }
        }
    }
    Prediction { may, ..Prediction::default() }
}

/// Whether Redis says that a lease is still the one that was handed out.
pub fn is_held(lease: &Lease, state: &State) -> bool {
    let sub = state.subscriptions.get(&lease.subscription.to_string());
    sub.and_then(|sub| sub.tokens.get(&lease.entry.to_string())).is_some_and(|token| **token == *lease.token)
}

fn settle(results: &[(Lease, Verdict, Facts)], state: &State) -> Prediction {
    let mut must = Changes::new();
    let mut stale = Vec::new();
    let (mut ended, mut let_go) = (BTreeSet::new(), BTreeSet::new());
    for (index, (lease, verdict, _)) in results.iter().enumerate() {
        let id = (lease.subscription, lease.entry);
        let sub = state.subscriptions.get(&lease.subscription.to_string());
        let is_pending = sub.is_some_and(|sub| sub.pending.contains_key(&lease.entry)) && !ended.contains(&id);
        let is_held = is_held(lease, state) && is_pending && !let_go.contains(&id);
        if !is_held {
            stale.push(index);
        }
        let delivery = delivery(lease.event, &lease.subscription, lease.copy);
        match verdict {
            Verdict::Delivered if is_pending => {
                ended.insert(id);
                must.insert(delivery, vec![Standing::Delivered]);
            }
            Verdict::Exhausted | Verdict::Gone | Verdict::BodyMissing if is_held => {
                ended.insert(id);
                must.insert(delivery, vec![Standing::Dead]);
            }
            Verdict::Retry { .. } | Verdict::Released if is_held => drop(let_go.insert(id)),
            _ => {}
        }
    }
    Prediction { must, answer: Some(Answer::Stale(stale)), ..Prediction::default() }
}

fn drop_backlog(id: &SubscriptionId, last: StreamId, sub: Option<&Subscription>, now: u64) -> Prediction {
    let owed = sub.filter(|sub| !sub.rt.is_empty()).map(|sub| sub.owed.iter()).into_iter().flatten();
    let is_held = |entry| sub.and_then(|sub| sub.leases.get(entry)).is_some_and(|expiry| *expiry as u64 > now);
    let must: Changes = owed
        .filter(|owed| owed.entry <= last && !is_held(&owed.entry))
        .map(|owed| (delivery(owed.event, id, owed.copy), vec![Standing::Dead]))
        .collect();
    Prediction { answer: Some(Answer::Count(must.len() as u64)), must, ..Prediction::default() }
}

fn redrive(id: &SubscriptionId, letters: &[StreamId], sub: Option<&Subscription>, bounds: Bounds) -> Prediction {
    let Some(sub) = sub.filter(|sub| !matches!(sub.status(), "" | "d")) else {
        return Prediction::answering(Answer::Redriven(Redriven { count: 0, is_full: false, is_gone: true }));
    };
    let mut must = Changes::new();
    let mut is_full = false;
    for entry in letters {
        if sub.owed.len() + must.len() >= bounds.max_backlog {
            is_full = true;
            break;
        }
        if let Some(letter) = sub.dead.iter().find(|letter| letter.entry == *entry) {
            must.insert(delivery(letter.event, id, letter.copy), vec![Standing::Owed]);
        }
    }
    let answer = Redriven { count: must.len() as u64, is_full, is_gone: false };
    Prediction { must, answer: Some(Answer::Redriven(answer)), ..Prediction::default() }
}

fn replay(job: &Job, events: &[StreamId], sub: Option<&Subscription>, state: &State, bounds: Bounds) -> Prediction {
    let answering = |queued| Prediction::answering(Answer::Queued(queued));
    let kept = state.hash(&format!("rpl:{}", job.id));
    let Some(cursor) = kept.get("cursor") else { return answering(Queued::Gone) };
    let cursor: StreamId = cursor.parse().unwrap();
    if cursor != job.cursor {
        return answering(Queued::MovedOn(cursor));
    }
    let Some(sub) = sub.filter(|sub| !matches!(sub.status(), "" | "d")) else { return answering(Queued::Gone) };
    let is_full = !sub.owed.is_empty() && sub.owed.len() + events.len() > bounds.max_backlog;
    if is_full || events.iter().any(|event| *event > state.expanded) {
        return answering(Queued::Later);
    }
    let mut must = Changes::new();
    for event in events {
        if is_kept(*event, state) {
            let copy = next_copy(*event, &job.subscription, state);
            must.insert(delivery(*event, &job.subscription, copy), vec![Standing::Owed]);
        }
    }
    let queued = Queued::Done(must.len() as u64);
    Prediction { must, answer: Some(Answer::Queued(queued)), ..Prediction::default() }
}

fn is_kept(event: StreamId, state: &State) -> bool {
    state.events.contains_key(&event) || state.spilled.contains(&event)
}

/// The first copy of an event that a subscription has not had.
fn next_copy(event: StreamId, subscription: &SubscriptionId, state: &State) -> u16 {
    let status = state.statuses.get(&event).cloned().unwrap_or_default();
    (0..).find(|copy: &u16| !status.contains_key(&format!("{subscription}#{copy}"))).unwrap()
}

fn resend(id: DeliveryId, sub: Option<&Subscription>, state: &State, bounds: Bounds) -> Prediction {
    let answering = |resend| Prediction::answering(Answer::Resent(resend));
    let Some(sub) = sub.filter(|sub| !matches!(sub.status(), "" | "d")) else { return answering(Resend::Gone) };
    let noted =
        state.statuses.get(&id.event).and_then(|status| status.get(&format!("{}#{}", id.subscription, id.copy)));
    let Some(noted) = noted else { return answering(Resend::Unknown) };
    let entry: StreamId = noted.split(' ').nth(1).unwrap().parse().unwrap();
    match &noted[..1] {
        "d" => answering(Resend::Dead(entry)),
        "p" if sub.retries.contains_key(&entry) => answering(Resend::Due),
        "p" => answering(Resend::Open),
        _ if sub.owed.len() >= bounds.max_backlog => answering(Resend::Full),
        _ if !is_kept(id.event, state) => answering(Resend::Lost),
        _ => {
            let copy = next_copy(id.event, &id.subscription, state);
            let must = [(delivery(id.event, &id.subscription, copy), vec![Standing::Owed])].into();
            let answer = Answer::Resent(Resend::Copied(DeliveryId { copy, ..id }));
            Prediction { must, answer: Some(answer), ..Prediction::default() }
        }
    }
}

/// The events that a trim up to `last` takes.
pub fn trimmable(state: &State, last: StreamId) -> Vec<StreamId> {
    state.events.keys().copied().take_while(|event| *event <= last.min(state.expanded)).collect()
}
