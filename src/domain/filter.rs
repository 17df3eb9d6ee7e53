//! Which subscriptions want an event of a type.

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
