//! `demo`: what the engine does, shown on a private Redis.

use std::io::{self, ErrorKind};

use super::errors::OutputClosed;
use crate::tools::demo;

pub async fn run() -> anyhow::Result<()> {
    let told = demo::run(&mut io::stdout()).await;
    told.map_err(|error| match error.downcast_ref::<io::Error>() {
        Some(cause) if cause.kind() == ErrorKind::BrokenPipe => OutputClosed.into(),
        _ => error,
    })
}
