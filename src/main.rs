//! The program: what the command line asks for is done, or one sentence says why not.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use posthaste::cli::{self, Cli};

/// A delivery allocates a few hundred times, in whichever thread, and frees in another: the C library's own took a quarter of
/// the engine's time for that.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::report(&error),
    }
}
