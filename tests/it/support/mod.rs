//! What the tests run against.

pub mod receiver;
pub mod redis;
