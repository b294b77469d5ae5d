//! The project's checks, run as `cargo xtask <command>`.
//!
//! `ci` is all of CI. The longer runs (loom at bound 3, 10^5 random schedules, 10^6 random
//! operations of page maps and 10^5 of the filesystem, the full crash enumeration, the mutants)
//! have commands of their own and are run before an issue is closed.

#![forbid(unsafe_code)]

mod ci;
mod mutants;
mod source;
mod steps;
mod tidy;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The bound of `loom --full`.
const FULL_BOUND: u32 = 3;

/// Checks of the udax workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs all of CI: format, clippy, tidy, dependencies, tests, loom at bound 2,
    /// random schedules.
    Ci,
    /// Checks what no compiler checks: layers, unsafe, lengths, rule numbers, format offsets.
    Tidy,
    /// Explores the interleavings of the page-word protocol and of entry locks.
    Loom {
        /// Preemptions allowed in one execution.
        #[arg(long, default_value_t = 2)]
        bound: u32,
        /// The same as `--bound 3`, which takes minutes and not seconds.
        #[arg(long, conflicts_with = "bound")]
        full: bool,
    },
    /// Runs random schedules of threads that use, kill and bring back a page map, and that fault,
    /// pin, break and write back a mapping.
    Schedules {
        /// How many; as many again have few preemptions.
        #[arg(long, default_value_t = 100_000)]
        count: u64,
        /// The seed; a random one is chosen and printed if it is left out.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Breaks a copy of the code in each way that is on record, and shows that a test notices.
    Mutants(mutants::Options),
    /// Enumerates the crash images of the filesystem and plants persistence faults.
    Crash {
        /// Handed on to the enumerator, for example `--json` or `--bound 4096`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs random operations of page maps against the model of who holds each page.
    Model {
        /// How many operations, at least.
        #[arg(long, default_value_t = 1_000_000)]
        steps: u64,
        /// The seed; a random one is chosen and printed if it is left out.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Runs threads that change, map and pin files at once, against a model of bytes, and watches
    /// memory, mappings and the order of locks.
    Stress {
        /// What is put under stress.
        what: steps::Stressed,
        /// How many operations, at least.
        #[arg(long, default_value_t = 1_000_000)]
        steps: u64,
        /// For how long, instead of a number of operations.
        #[arg(long, conflicts_with = "steps")]
        minutes: Option<u64>,
        /// The seed; a random one is chosen and printed if it is left out.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Runs random operations against the byte-array model.
    Random {
        /// How many operations.
        #[arg(long, default_value_t = 100_000)]
        steps: u64,
        /// The seed; a random one is chosen and printed if it is left out.
        #[arg(long)]
        seed: Option<u64>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Ci => ci::run(),
        Command::Tidy => tidy::run(),
        Command::Loom { full: true, .. } => steps::loom(FULL_BOUND),
        Command::Loom { bound, .. } => steps::loom(bound),
        Command::Schedules { count, seed } => steps::schedules(count, seed),
        Command::Mutants(options) => mutants::run(&options),
        Command::Crash { arguments } => steps::crash(&arguments),
        Command::Model { steps, seed } => steps::model(steps, seed),
        Command::Stress { what, steps, minutes, seed } => steps::stress(what, steps, minutes, seed),
        Command::Random { steps, seed } => steps::random(steps, seed),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
