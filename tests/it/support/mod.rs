//! What the tests run against.

pub mod checks;
pub mod clock;
pub mod cluster;
pub mod engine;
pub mod program;
pub mod queue;
pub mod receiver;
pub mod redis;
pub mod samples;
pub mod state;
