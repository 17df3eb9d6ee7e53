//! The command line: what each command takes, and which function does it.
//!
//! Data go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 64 configuration refused, 69
//! Redis not reachable.

mod bench;
mod check;
mod context;
mod dead_letter;
mod demo;
mod errors;
mod explain;
mod input;
mod key;
mod lines;
mod listen;
mod logs;
mod output;
mod publish;
mod publish_many;
mod replay;
mod role;
mod signatures;
mod stats;
mod status;
mod tail;
mod tenant;
mod types;
mod values;
mod verify;
mod webhook;
mod webhook_fields;
mod webhook_test;

use std::{path::PathBuf, process::ExitCode, str::FromStr};

use anyhow::{Context as _, anyhow};
use clap::{ArgAction, Args, Parser, Subcommand};

use self::{context::Context, errors::Exit, output::Paint};
use crate::{logging::Program, roles::Role};

/// Durable webhooks on Redis Streams: anything that can XADD can publish.
#[derive(Debug, Parser)]
#[command(name = "posthaste", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Example:
  posthaste serve &
  posthaste webhook create --url https://example.com/hook --events 'message.*'
  posthaste publish message.created --data '{\"text\":\"hello\"}'
  posthaste status";

/// What every command takes stands below this in its help.
const GLOBAL: &str = "Global options";

/// What every command takes.
#[derive(Debug, Args)]
struct Global {
    /// Configuration file [default: ./config.toml if there, over the built-in defaults]
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    config: Option<PathBuf>,
    /// Redis to use instead of the configured one: redis://, rediss:// or unix://
    #[arg(long, global = true, value_name = "URL", help_heading = GLOBAL)]
    redis: Option<String>,
    /// Print the JSON of the HTTP API instead of text for people
    #[arg(long, global = true, help_heading = GLOBAL)]
    json: bool,
    /// Log more; twice for even more
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = GLOBAL)]
    verbose: u8,
}

/// Whose things a command is about.
#[derive(Debug, Args)]
struct TenantArg {
    /// Whose it is
    #[arg(long, value_name = "TENANT", default_value = crate::domain::event::DEFAULT_TENANT)]
    tenant: String,
}

/// Which part of a list is printed.
#[derive(Debug, Args)]
struct PageArgs {
    /// Print so many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    limit: u16,
    /// Go on where the page before ended
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
}

impl PageArgs {
    /// Where the page begins.
    fn cursor<T: FromStr>(&self) -> anyhow::Result<Option<T>> {
        let read = |text: &str| text.parse().map_err(|_| anyhow!("--cursor: not one that a page before ended with"));
        self.cursor.as_deref().map(read).transpose()
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process: API, dispatcher, sender, sources
    #[command(
        after_help = "With redis.url = \"embedded\", the default, it also runs a private redis-server.\n\nExample:
  posthaste serve --config config.toml"
    )]
    Serve,
    /// Run a dispatcher: it puts each event on the streams of the webhooks that want it
    #[command(after_help = "Example:\n  posthaste dispatcher --redis redis://127.0.0.1:6379 --wait")]
    Dispatcher(role::RoleArgs),
    /// Run a sender: it posts what is due
    #[command(after_help = "Example:\n  posthaste sender --redis redis://127.0.0.1:6379 --wait")]
    Sender(role::RoleArgs),
    /// Run a reader of the sources: it takes in what others XADD
    #[command(after_help = "Example:\n  posthaste sources --redis redis://127.0.0.1:6379 --wait")]
    Sources(role::RoleArgs),
    /// Run the HTTP API
    #[command(
        after_help = "Example:\n  POSTHASTE_API__ADMIN_KEY=… posthaste api --redis redis://127.0.0.1:6379 --wait"
    )]
    Api(role::RoleArgs),
    /// Publish an event, or a file of events
    Publish(publish::PublishArgs),
    /// Manage webhooks: who gets which events, and where
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// Manage tenants
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Manage API keys: who may use the HTTP API
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Look at the types of events, and manage a tenant's own
    #[command(subcommand)]
    Types(types::TypesCommand),
    /// Look at dead letters, send them once more, or throw them away
    #[command(subcommand, visible_alias = "dead-letter")]
    Deadletter(dead_letter::DeadLetterCommand),
    /// Put a range of the event log to one webhook once more
    Replay(replay::ReplayArgs),
    /// Show what waits, what is dead, and who works
    Status(status::StatusArgs),
    /// Say of an event which webhooks got it and why, which did not, and what became of each delivery
    Explain(explain::ExplainArgs),
    /// Show attempts as they are made
    Tail(tail::TailArgs),
    /// Receive deliveries on this machine: show what arrives, and whether its signatures hold
    Listen(listen::ListenArgs),
    /// Say whether the signatures of a request hold, and why not
    Verify(verify::VerifyArgs),
    /// Check the configuration and Redis, and say what is lacking
    #[command(after_help = "Exits with 0 when all that is needed is there, 1 when not, 64 when the configuration is \
                            refused and 69 when Redis cannot be reached.\n\nExample:
  posthaste check --redis redis://127.0.0.1:6379")]
    Check,
    /// See the whole story in seconds, on a private Redis: deliveries, retries, a dead letter, a replay
    #[command(after_help = "It listens on the loopback address only, and leaves nothing behind.\n\nExample:
  posthaste demo")]
    Demo,
    /// Measure throughput and latency on a private Redis, beside a bare HTTP client
    Bench(bench::BenchArgs),
    /// Print the OpenAPI document of the HTTP API
    #[command(hide = true, after_help = "Example:\n  posthaste openapi > docs/openapi.json")]
    Openapi,
    /// The receiver that `bench` starts
    #[command(name = crate::tools::bench::RECEIVER_COMMAND, hide = true, after_help = "Example:\n  posthaste bench-receiver")]
    BenchReceiver,
}

impl Command {
    fn program(&self) -> Program {
        match self {
            Self::Serve | Self::Dispatcher(_) | Self::Sender(_) | Self::Sources(_) | Self::Api(_) => Program::Role,
            Self::Publish(_)
            | Self::Webhook(_)
            | Self::Tenant(_)
            | Self::Key(_)
            | Self::Types(_)
            | Self::Deadletter(_)
            | Self::Replay(_)
            | Self::Status(_)
            | Self::Explain(_)
            | Self::Tail(_)
            | Self::Listen(_)
            | Self::Verify(_)
            | Self::Check
            | Self::Demo
            | Self::Bench(_)
            | Self::Openapi
            | Self::BenchReceiver => Program::Command,
        }
    }

    async fn run(self, context: Context) -> anyhow::Result<()> {
        match self {
            Self::Serve => role::run(context, Role::Serve, role::RoleArgs::default()).await,
            Self::Dispatcher(args) => role::run(context, Role::Dispatcher, args).await,
            Self::Sender(args) => role::run(context, Role::Sender, args).await,
            Self::Sources(args) => role::run(context, Role::Sources, args).await,
            Self::Api(args) => role::run(context, Role::Api, args).await,
            Self::Publish(args) => publish::run(&context, args).await,
            Self::Webhook(command) => webhook::run(&context, command).await,
            Self::Tenant(command) => tenant::run(&context, command).await,
            Self::Key(command) => key::run(&context, command).await,
            Self::Types(command) => types::run(&context, command).await,
            Self::Deadletter(command) => dead_letter::run(&context, command).await,
            Self::Replay(args) => replay::run(&context, args).await,
            Self::Status(args) => status::run(&context, args).await,
            Self::Explain(args) => explain::run(&context, args).await,
            Self::Tail(args) => tail::run(&context, args).await,
            Self::Listen(args) => listen::run(&context, args).await,
            Self::Verify(args) => verify::run(&context, args),
            Self::Check => check::run(&context).await,
            Self::Demo => demo::run().await,
            Self::Bench(args) => bench::run(&context, args).await,
            Self::Openapi => context.out.line(crate::api::openapi::json().trim_end()),
            Self::BenchReceiver => crate::tools::bench::run_receiver().await,
        }
    }
}

/// Does what the command line asks for.
///
/// # Errors
/// Why it was not done, for [`report`].
pub fn run(cli: Cli) -> anyhow::Result<()> {
    let context = Context::new(&cli.global, cli.command.program())?;
    let runtime = tokio::runtime::Runtime::new().context("no threads can be started")?;
    let done = runtime.block_on(cli.command.run(context));
    // A read of standard input that still waits must not hold up the end.
    runtime.shutdown_background();
    done
}

/// Says why a command failed, in one sentence on stderr, and with which code to exit.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let exit = errors::exit(error);
    if exit != Exit::Done {
        errors::say(format_args!("{} {}", Paint::stderr().red("error:"), errors::sentence(error)));
    }
    ExitCode::from(exit as u8)
}

#[cfg(test)]
mod tests;
