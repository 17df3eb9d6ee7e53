//! The program: what the command line asks for is done, or one sentence says why not.

use std::process::ExitCode;

use clap::Parser;
use posthaste::cli::{self, Cli};

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::report(&error),
    }
}
