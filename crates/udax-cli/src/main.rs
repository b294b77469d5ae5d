//! The udax tool: pools on the command line.
//!
//! This crate owns arguments, what is printed, and the exit code (0 done, 1 failed, 2 wrong
//! usage). What pools do is the business of the `udax` crate.
#![forbid(unsafe_code)]

mod align;
mod cli;
mod commands;
mod copy;
mod interrupt;
mod matrix;
mod moment;
mod opening;
mod output;
mod progress;
mod rate;
mod size;
mod target;
mod tour;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(output::chain(&error));
            ExitCode::FAILURE
        }
    }
}
