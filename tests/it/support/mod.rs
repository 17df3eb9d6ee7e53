//! What the tests run against.

pub mod engine;
pub mod receiver;
pub mod redis;
