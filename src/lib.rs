//! Posthaste: durable webhooks on Redis Streams.
//!
//! The path of an event:
//!
//! ```text
//! publish -> event log -> dispatch -> delivery stream -> send -> outcome -> attempt log
//!                                           ^                       |
//!                                           +--- retry at t --------+--> dead letter --> replay
//! ```
//!
//! Nouns are pure, verbs do I/O. A module imports from its own row's left and from the rows above it, never sideways in
//! row 3b nor upwards; a test reads the imports and fails on any other.
//!
//! | row | modules | may import |
//! |---|---|---|
//! | 0 | [`domain`] | std and value crates |
//! | 1 | [`config`] [`secrets`] [`shutdown`] [`metrics`] | row 0 |
//! | 2 | [`streams`] | rows 0-1 |
//! | 3a | [`publish`] [`manage`] [`send::post`](send) | rows 0-2 |
//! | 3b | [`dispatch`] [`send`] [`replay`] [`sources`] [`janitor`] | rows 0-3a, never one another |
//! | 4 | [`api`] [`tools`] | rows 0-3a, [`replay`] |
//! | 5 | [`cli`], then `main` | all |

pub mod api;
pub mod backoff;
pub mod config;
pub mod connect;
pub mod dispatch;
pub mod domain;
pub mod janitor;
pub mod manage;
pub mod metrics;
pub mod publish;
pub mod redis_server;
pub mod replay;
pub mod roles;
pub mod secrets;
pub mod send;
pub mod shutdown;
pub mod sources;
pub mod streams;
