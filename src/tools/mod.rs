//! Programs beside the engine: each starts what it needs, on this machine alone, and leaves nothing behind.

pub mod bench;
pub mod demo;
mod private_cluster;
mod private_redis;
pub mod receiver;
