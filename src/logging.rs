//! Log lines on stderr, as `[log]` says. Standard output is never logged to: it is for data.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Who logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// One that runs until it is stopped, and whose log somebody collects.
    Role,
    /// A command that ends by itself: it logs warnings only, unless told otherwise, as people read them.
    Command,
}

/// Starts logging; `verbosity` is how often `-v` was given. A second start changes nothing.
pub fn start(log: &Log, program: Program, verbosity: u8) {
    let is_terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(directives(&log.level, program, verbosity)))
        .with_writer(io::stderr)
        .with_ansi(is_terminal && wants_colours())
        // Its complaint about a closed stderr would go to stderr, and panic.
        .log_internal_errors(false);
    // An error says that somebody else has started logging: so be it.
    let _ = match (log.format, program) {
        (LogFormat::Json, _) => builder.json().flatten_event(true).try_init(),
        (LogFormat::Auto, Program::Role) if !is_terminal => builder.json().flatten_event(true).try_init(),
        (LogFormat::Auto | LogFormat::Human, Program::Role) => builder.try_init(),
        (LogFormat::Auto | LogFormat::Human, Program::Command) => {
            builder.without_time().with_target(verbosity > 0).try_init()
        }
    };
}

/// Whether the user has not turned colours off (<https://no-color.org>).
pub fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn directives(level: &str, program: Program, verbosity: u8) -> String {
    match (program, verbosity) {
        (Program::Role, 0) => level.to_owned(),
        (Program::Command, 0) => "warn".to_owned(),
        (Program::Command, 1) => "warn,posthaste=info".to_owned(),
        (Program::Role, 1) | (Program::Command, 2) => "info,posthaste=debug".to_owned(),
        (Program::Role | Program::Command, _) => "debug,posthaste=trace".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_v_says_more_and_the_configuration_counts_for_roles() {
        let check = |program, verbosity, expected| assert_eq!(directives("error", program, verbosity), expected);
        check(Program::Role, 0, "error");
        check(Program::Role, 1, "info,posthaste=debug");
        check(Program::Role, 2, "debug,posthaste=trace");
        check(Program::Command, 0, "warn");
        check(Program::Command, 1, "warn,posthaste=info");
        check(Program::Command, 2, "info,posthaste=debug");
        check(Program::Command, 9, "debug,posthaste=trace");
    }
}
