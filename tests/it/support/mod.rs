//! What the tests run against.

pub mod checks;
pub mod engine;
pub mod receiver;
pub mod redis;
pub mod samples;
pub mod state;
