//! The commands that run until they are stopped.

use std::net::SocketAddr;

use clap::Args;

use super::context::Context;
use crate::roles::{self, Options, Role};

#[derive(Debug, Default, Args)]
pub struct RoleArgs {
    /// Where to serve /metrics, /healthz and /readyz [default: metrics.listen of the configuration]
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// Wait for Redis instead of failing when it cannot be reached
    #[arg(long)]
    wait: bool,
}

/// Runs a role until a signal, or a failure.
pub async fn run(context: Context, role: Role, args: RoleArgs) -> anyhow::Result<()> {
    let options = Options { metrics_listen: args.metrics_listen, wait: args.wait };
    roles::run(context.config, role, options).await
}
