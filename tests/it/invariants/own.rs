//! The engine's own events and its count of dead letters: what a step must add to them, derived from what it did to the
//! deliveries.

use std::collections::BTreeMap;

use posthaste::domain::{
    event::{DEAD_LETTERED, OWN_TYPES},
    id::{DeliveryId, EventId, StreamId},
};

use super::prediction::Prediction;
use crate::support::{
    samples::{Facts, TENANT},
    state::{Delivery, Fields, Standing, State},
};

/// An event of the engine's own.
pub struct OwnEvent {
    event_type: String,
    data: serde_json::Value,
}

impl OwnEvent {
    pub fn read(fields: &Fields) -> Self {
        assert_eq!(fields["tn"], TENANT);
        Self { event_type: fields["t"].clone(), data: serde_json::from_str(&fields["b"]).unwrap() }
    }

    fn text(&self, field: &str) -> &str {
        self.data[field].as_str().unwrap_or_else(|| panic!("{field} of {} {}", self.event_type, self.data))
    }

    /// The delivery that it tells of.
    fn delivery(&self, known: &BTreeMap<StreamId, (EventId, Facts)>) -> Delivery {
        let id: DeliveryId = self.text("delivery_id").parse().unwrap();
        let event: EventId = self.text("event_id").parse().unwrap();
        assert_eq!(event, known[&id.event].0);
        assert_eq!(self.text("webhook_id"), id.subscription.to_string());
        Delivery { event: id.event, subscription: id.subscription.to_string(), copy: id.copy }
    }
}

/// What was told and did not happen, and what happened and was not told or counted.
pub fn surprises(
    before: &State,
    after: &State,
    prediction: &Prediction,
    known: &BTreeMap<StreamId, (EventId, Facts)>,
    told: &[OwnEvent],
) -> Vec<String> {
    let mut wrong = Vec::new();
    let died = deaths(before, after, prediction);
    let is_wanted = after.sets.get(&format!("own:{TENANT}")).is_some_and(|subs| !subs.is_empty());
    let is_told = |delivery: &&Delivery| is_wanted && !known[&delivery.event].1.event_type.starts_with(OWN_TYPES);
    let mut expected: Vec<Delivery> = died.iter().filter(is_told).cloned().collect();
    let of_type = |wanted: &'static str| told.iter().filter(move |event| event.event_type == wanted);
    let mut found: Vec<Delivery> = of_type(DEAD_LETTERED).map(|event| event.delivery(known)).collect();
    expected.sort();
    found.sort();
    if expected != found {
        wrong.push(format!("dead letters {expected:?}, told of {found:?}"));
    }
    for id in after.subscriptions.keys() {
        let counted = after.statistic(id, "dead") - before.statistic(id, "dead");
        let count = died.iter().filter(|delivery| delivery.subscription == *id).count() as u64;
        if counted != count {
            wrong.push(format!("{id}: {count} died, {counted} counted"));
        }
    }
    for event in of_type("posthaste.webhook.disabled") {
        let id = event.text("webhook_id");
        let was = before.subscriptions[id].status();
        if was == "x" || after.subscriptions[id].status() != "x" || !["gone", "failing"].contains(&event.text("reason"))
        {
            wrong.push(format!("{id} was {was}, and is told to be disabled: {}", event.data));
        }
    }
    for event in of_type("posthaste.webhook.recovered") {
        let id = event.text("webhook_id");
        if before.subscriptions[id].number("down") == 0 || after.subscriptions[id].number("down") != 0 {
            wrong.push(format!("{id} is told to have recovered: {}", event.data));
        }
    }
    wrong
}

/// The deliveries that became dead letters in this step, also those displaced at once by others.
fn deaths(before: &State, after: &State, prediction: &Prediction) -> Vec<Delivery> {
    let was = before.ledger();
    let can_die = |delivery: &Delivery| {
        let allowed = prediction.must.get(delivery).into_iter().chain(prediction.may.get(delivery));
        allowed.flatten().any(|standing| *standing == Standing::Dead)
    };
    let has_died = |(delivery, now): &(Delivery, Standing)| {
        let lived = matches!(was.get(delivery), None | Some(Standing::Owed));
        lived && (*now == Standing::Dead || *now == Standing::Cancelled && can_die(delivery))
    };
    after.ledger().into_iter().filter(has_died).map(|(delivery, _)| delivery).collect()
}
