//! Being written.

pub mod post;
