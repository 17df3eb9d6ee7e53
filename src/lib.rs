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
//! Nouns are pure, verbs do I/O. A module imports what its row allows; a test reads the imports and fails on any other.
//!
//! | row | modules, each after those it uses | may import |
//! |---|---|---|
//! | 0 | `domain` | std and value crates |
//! | 1 | `clock` `config` `secrets` `shutdown` `metrics` `traces` `logging` `redis_server` | `domain` and its row's left |
//! | 2 | `streams` `backoff` `connect` `handover` | rows 0-1 and its row's left |
//! | 3a | `publish` `manage` `send::post` | rows 0-2 |
//! | 3b | `send::request` | rows 0-2 and `send::post` |
//! | 3c | `dispatch` `send` `replay` `sources` `janitor` `test_send` | rows 0-3b, never one another |
//! | 4 | `api` | rows 0-3a, `replay` and `test_send` |
//! | 5 | `roles` `tools` `cli` | rows 0-4 and its row's left |

pub mod api;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connect;
pub mod dispatch;
pub mod domain;
pub mod handover;
pub mod janitor;
pub mod logging;
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
pub mod test_send;
pub mod tools;
pub mod traces;
