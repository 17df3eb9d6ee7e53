//! An event against the 10,000 subscriptions of a tenant.

use posthaste::domain::{
    filter::{Index, Pattern},
    id::SubscriptionId,
};

use super::{Work, work};

const SUBSCRIPTIONS: u64 = 10_000;

fn id(number: u64) -> SubscriptionId {
    // The random part is in no order, as in an id: what was made later is not greater by it.
    SubscriptionId { ms: 1_790_000_000_000 + number, shard: 3, random: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

/// The subscriptions of which each has the patterns that `patterns` gives its number.
fn index(patterns: impl Fn(u64) -> Vec<String>) -> Index {
    let mut index = Index::default();
    for number in 0..SUBSCRIPTIONS {
        let patterns: Vec<Pattern> =
            patterns(number).iter().map(|text| text.parse().expect("an event filter")).collect();
        index.insert(id(number), &patterns);
    }
    index
}

fn matching(index: Index, event_type: &str, expected: usize) -> Work {
    let event_type = event_type.to_owned();
    assert_eq!(index.matching(&event_type).len(), expected, "the subscriptions that want {event_type}");
    work(move || index.matching(&event_type))
}

/// Each wants one type, and three want the same. Another type each time: a map's luck with one is not its luck with all.
pub fn few_by_type() -> Work {
    let event_type = |group: u64| format!("shop_{group}.order.paid");
    let index = index(|number| vec![event_type(number / 3)]);
    let types: Vec<String> = (0..SUBSCRIPTIONS / 3).map(event_type).collect();
    assert!(types.iter().all(|event_type| index.matching(event_type).len() == 3));
    let mut next = (0..types.len()).cycle();
    work(move || next.next().map(|number| index.matching(&types[number])))
}

/// Each wants what is below a prefix, and ten want each of the four that the type has.
pub fn some_by_prefix() -> Work {
    let prefix = |number: u64| match number {
        0..10 => "shop.*".to_owned(),
        10..20 => "shop.eu.*".to_owned(),
        20..30 => "shop.eu.berlin.*".to_owned(),
        _ => format!("shop.eu.berlin.till_{}.*", number / 10),
    };
    matching(index(|number| vec![prefix(number)]), "shop.eu.berlin.till_512.order.paid", 40)
}

/// Every other one wants the type, many by more than one of their patterns.
pub fn half_by_three_patterns() -> Work {
    let patterns = |number: u64| match number % 6 {
        0 => vec!["shop.*", "shop.order.paid"],
        2 => vec!["shop.order.*", "contact.created", "shop.order.paid"],
        4 => vec!["shop.order.paid"],
        _ => vec!["contact.*"],
    };
    let owned = move |number| patterns(number).into_iter().map(str::to_owned).collect();
    matching(index(owned), "shop.order.paid", 5_000)
}

/// Each wants all there is.
pub fn all() -> Work {
    matching(index(|_| vec!["*".to_owned()]), "shop.order.paid", SUBSCRIPTIONS as usize)
}

/// One of those that want all there is goes, and comes again.
pub fn change() -> Work {
    let mut index = index(|_| vec!["*".to_owned()]);
    let (id, patterns) = (id(SUBSCRIPTIONS / 2), [Pattern::All]);
    work(move || {
        index.remove(id, &patterns);
        index.insert(id, &patterns);
    })
}
