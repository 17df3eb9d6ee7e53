//! Which subscriptions want an event of a type.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    str::FromStr,
};

use super::{
    Invalid,
    event::{OWN_TYPES, check_type},
    id::SubscriptionId,
};

/// Bytes of a pattern's text, at most: as many as a type has.
const MAX_PATTERN_BYTES: usize = 128;

/// One event filter of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern {
    /// `*`: every type but the engine's own.
    All,
    /// `prefix.*`, kept as `prefix.`.
    Prefix(String),
    /// A type.
    Exact(String),
}

impl Pattern {
    /// Whether it matches events of this type.
    pub fn matches(&self, event_type: &str) -> bool {
        match self {
            Self::All => !event_type.starts_with(OWN_TYPES),
            Self::Prefix(prefix) => event_type.starts_with(prefix.as_str()),
            Self::Exact(exact) => event_type == exact,
        }
    }

    /// What [`Index`] finds it by: its text without the `*`. No two patterns share one, since no type ends in a dot.
    fn key(&self) -> &str {
        match self {
            Self::All => "",
            Self::Prefix(prefix) => prefix,
            Self::Exact(exact) => exact,
        }
    }
}

impl FromStr for Pattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text == "*" {
            return Ok(Self::All);
        }
        let event_type = text.strip_suffix(".*").unwrap_or(text);
        if text.len() > MAX_PATTERN_BYTES || check_type("events", event_type).is_err() {
            let shown: String = text.chars().take(MAX_PATTERN_BYTES).collect();
            let problem = format!(
                "`{}` is not an event filter: a type such as `message.created`, `message.*`, or `*`; \
                 at most {MAX_PATTERN_BYTES} letters, digits, `_`, `-` and single dots",
                shown.escape_debug(),
            );
            return Err(Invalid::new("events", problem));
        }
        Ok(match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Exact(text.to_owned()),
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Exact(exact) => f.write_str(exact),
        }
    }
}

/// The first of a subscription's patterns that matches: the rule to name when asked why it got the event.
pub fn matching<'p>(patterns: &'p [Pattern], event_type: &str) -> Option<&'p Pattern> {
    patterns.iter().find(|pattern| pattern.matches(event_type))
}

/// Subscriptions by their patterns. To match a type takes one look-up for each of its dots and two more, however many
/// subscriptions there are.
#[derive(Debug, Clone, Default)]
pub struct Index {
    subscribers: HashMap<String, BTreeSet<SubscriptionId>>,
}

impl Index {
    /// Adds these patterns of a subscription to those it has.
    pub fn insert(&mut self, id: SubscriptionId, patterns: &[Pattern]) {
        for pattern in patterns {
            self.subscribers.entry(pattern.key().to_owned()).or_default().insert(id);
        }
    }

    /// Takes these patterns of a subscription away; those that it does not have are no fault.
    pub fn remove(&mut self, id: SubscriptionId, patterns: &[Pattern]) {
        for pattern in patterns {
            let Some(ids) = self.subscribers.get_mut(pattern.key()) else { continue };
            ids.remove(&id);
            if ids.is_empty() {
                self.subscribers.remove(pattern.key());
            }
        }
    }

    /// The subscriptions that want events of this type, by id, each once.
    pub fn matching(&self, event_type: &str) -> Vec<SubscriptionId> {
        let all = (!event_type.starts_with(OWN_TYPES)).then_some("");
        let prefixes = event_type.match_indices('.').map(|(dot, _)| &event_type[..=dot]);
        let keys = prefixes.chain(all).chain([event_type]);
        let mut ids = Vec::new();
        for found in keys.filter_map(|key| self.subscribers.get(key)) {
            ids.extend(found);
        }
        // Those of each key are in order, and a stable sort merges what is.
        ids.sort();
        ids.dedup();
        ids
    }
}

impl<'p> FromIterator<(SubscriptionId, &'p [Pattern])> for Index {
    fn from_iter<I: IntoIterator<Item = (SubscriptionId, &'p [Pattern])>>(subscriptions: I) -> Self {
        let mut index = Self::default();
        for (id, patterns) in subscriptions {
            index.insert(id, patterns);
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    fn id(random: u64) -> SubscriptionId {
        SubscriptionId { ms: 0, shard: 0, random }
    }

    #[test]
    fn a_pattern_is_everything_a_prefix_or_a_type() {
        let check = |text: &str, expected: Pattern| {
            assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
            assert_eq!(expected.to_string(), text);
        };
        check("*", Pattern::All);
        check("message.*", Pattern::Prefix("message.".into()));
        check("a.b-c.D_0.*", Pattern::Prefix("a.b-c.D_0.".into()));
        check("posthaste.*", Pattern::Prefix("posthaste.".into()));
        check("message.created", Pattern::Exact("message.created".into()));
        check(&format!("{}.*", "x".repeat(126)), Pattern::Prefix(format!("{}.", "x".repeat(126))));
        check(&"x".repeat(128), Pattern::Exact("x".repeat(128)));
    }

    #[test]
    fn any_other_text_is_refused_and_named() {
        let long = [format!("{}.*", "x".repeat(127)), "x".repeat(129), "é".repeat(65)];
        let short =
            ["", "**", ".*", "a*", "a.*.b", "*.a", "a..*", "a.**", ".a", "a.", "message created", "a,b", "é", "a\n"];
        for bad in short.into_iter().chain(long.iter().map(String::as_str)) {
            let refusal = bad.parse::<Pattern>().unwrap_err();
            assert_eq!(refusal.field, "events", "{bad}");
            assert!(!refusal.problem.contains('\n'), "{bad}");
        }
    }

    #[test]
    fn a_pattern_matches_what_it_says() {
        let check = |text: &str, event_type: &str, expected: bool| {
            assert_eq!(pattern(text).matches(event_type), expected, "{text} {event_type}");
        };
        check("*", "message.created", true);
        check("*", "posthaste", true);
        check("*", "posthastes.x", true);
        check("*", "posthaste.webhook.disabled", false);
        check("posthaste.*", "posthaste.webhook.disabled", true);
        check("posthaste.webhook.*", "posthaste.webhook.disabled", true);
        check("posthaste.webhook.disabled", "posthaste.webhook.disabled", true);
        check("message.*", "message.created", true);
        check("message.*", "message.a.b", true);
        check("message.*", "message", false);
        check("message.*", "messages.a", false);
        check("message.*", "Message.created", false);
        check("message.created", "message.created", true);
        check("message.created", "message.created.late", false);
        check("message", "message.created", false);
    }

    #[test]
    fn the_first_pattern_that_matches_is_the_rule() {
        let patterns = ["contact.created", "message.*", "*"].map(pattern);
        let check = |event_type: &str, expected: Option<&str>| {
            assert_eq!(matching(&patterns, event_type).map(Pattern::to_string).as_deref(), expected);
        };
        check("message.created", Some("message.*"));
        check("contact.created", Some("contact.created"));
        check("call.missed", Some("*"));
        check("posthaste.webhook.disabled", None);
    }

    #[test]
    fn an_index_forgets_what_is_removed() {
        let (one, two) = (["a.*", "a.b", "*"].map(pattern), ["a.b"].map(pattern));
        let mut index: Index = [(id(2), &one[..]), (id(1), &two[..])].into_iter().collect();
        assert_eq!(index.matching("a.b"), [id(1), id(2)]);
        index.remove(id(2), &one[..1]);
        assert_eq!(index.matching("a.c"), [id(2)]);
        index.remove(id(2), &one);
        assert_eq!(index.matching("a.b"), [id(1)]);
        index.remove(id(1), &two);
        assert!(index.subscribers.is_empty());
    }

    /// Types and patterns of so few parts that they often meet.
    fn event_type() -> impl Strategy<Value = String> {
        vec(prop_oneof![Just("a"), Just("b"), Just("posthaste")], 1..4).prop_map(|parts| parts.join("."))
    }

    fn patterns() -> impl Strategy<Value = Vec<Pattern>> {
        let texts = prop_oneof![Just("*".to_owned()), event_type(), event_type().prop_map(|text| text + ".*")];
        vec(texts.prop_map(|text| pattern(&text)), 0..4)
    }

    proptest! {
        #[test]
        fn an_index_agrees_with_a_scan(
            kept in vec(patterns(), 0..8), removed in vec(patterns(), 0..8), event_type in event_type(),
        ) {
            let gone = |number: usize| id(1_000 + number as u64);
            let mut index = Index::default();
            for (number, patterns) in removed.iter().enumerate() {
                index.insert(gone(number), patterns);
            }
            for (number, patterns) in kept.iter().enumerate().rev() {
                index.insert(id(number as u64), patterns);
            }
            for (number, patterns) in removed.iter().enumerate() {
                index.remove(gone(number), patterns);
            }
            let wants = |patterns: &Vec<Pattern>| matching(patterns, &event_type).is_some();
            let scan: Vec<_> = (0..).zip(&kept).filter(|(_, patterns)| wants(patterns)).map(|(n, _)| id(n)).collect();
            prop_assert_eq!(index.matching(&event_type), scan);
        }

        #[test]
        fn a_pattern_survives_its_text(text in "[a*.]{0,6}|\\PC{0,8}") {
            if let Ok(pattern) = text.parse::<Pattern>() {
                prop_assert_eq!(pattern.to_string(), text);
            }
        }

        #[test]
        fn an_index_takes_any_text_for_a_type(event_type in "\\PC{0,12}") {
            let index: Index = [(id(1), &[Pattern::All][..])].into_iter().collect();
            prop_assert_eq!(index.matching(&event_type), [id(1)]);
        }
    }
}
