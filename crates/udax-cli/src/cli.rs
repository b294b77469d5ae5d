//! The command line: one variant per command, whose arguments live beside what it does.

use clap::{Parser, Subcommand, ValueEnum};
use udax::Durability;

use crate::commands as cmd;
use crate::matrix::{MatrixArgs, MatrixCellArgs, MatrixHolderArgs};
use crate::opening::Opener;
use crate::output::{Format, Output};
use crate::tour::{TourArgs, TourWriterArgs};

/// Files whose pages are the memory of a device, kept in a pool.
///
/// A pool is a file on the host that holds a filesystem. Files in it are named `POOL:/path`; a path
/// without `:/` is one on the host. Sizes are written as 4G, 512M or 64KiB.
#[derive(Debug, Parser)]
#[command(name = "udax", version, max_term_width = 100, subcommand_required = true)]
#[command(after_help = "\
Examples:
  udax tour                            see what udax does, on a pool of its own
  udax matrix                          see what else becomes of a device's bytes
  udax create data.udax --size 4G      make a pool
  udax cp -r /usr/share/doc data.udax:/doc
  udax ls -l data.udax:/doc
  udax cp -r data.udax:/doc /tmp/doc
  udax check data.udax")]
pub(crate) struct Cli {
    /// Print facts as one JSON value.
    #[arg(long, global = true)]
    json: bool,

    /// What completed operations of this command survive.
    #[arg(long, global = true, value_enum, default_value_t = Survives::Process)]
    durability: Survives,

    #[command(subcommand)]
    command: Command,
}

/// What completed operations survive.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Survives {
    /// The death of the process at any instruction.
    Process,
    /// The loss of power too; each step waits for the medium.
    Power,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(cmd::create::CreateArgs),
    Ls(cmd::ls::LsArgs),
    Tree(cmd::tree::TreeArgs),
    Cat(cmd::cat::CatArgs),
    Cp(cmd::cp::CpArgs),
    Mv(cmd::mv::MvArgs),
    Rm(cmd::rm::RmArgs),
    Mkdir(cmd::mkdir::MkdirArgs),
    Ln(cmd::ln::LnArgs),
    Stat(cmd::stat::StatArgs),
    Df(cmd::df::DfArgs),
    Map(cmd::map::MapArgs),
    Check(cmd::check::CheckArgs),
    Pins(cmd::pins::PinsArgs),
    Release(cmd::release::ReleaseArgs),
    Freeze(cmd::freeze::FreezeArgs),
    Mount(cmd::mount::MountArgs),
    Table(cmd::table::TableArgs),
    Dev(cmd::dev::DevArgs),
    Matrix(MatrixArgs),
    Tour(TourArgs),
    #[command(hide = true)]
    TourWriter(TourWriterArgs),
    #[command(hide = true)]
    MatrixCell(MatrixCellArgs),
    #[command(hide = true)]
    MatrixHolder(MatrixHolderArgs),
}

impl Cli {
    /// Does what the arguments say.
    ///
    /// # Errors
    ///
    /// Returns why it could not be done.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut out = Output::stdout(if self.json { Format::Json } else { Format::Human });
        let pools = Opener::new(match self.durability {
            Survives::Process => Durability::Process,
            Survives::Power => Durability::Power,
        });
        match &self.command {
            Command::Create(args) => args.run(pools, &mut out),
            Command::Ls(args) => args.run(pools, &mut out),
            Command::Tree(args) => args.run(pools, &mut out),
            Command::Cat(args) => args.run(pools, &mut out),
            Command::Cp(args) => args.run(pools, &mut out),
            Command::Mv(args) => args.run(pools),
            Command::Rm(args) => args.run(pools),
            Command::Mkdir(args) => args.run(pools),
            Command::Ln(args) => args.run(pools),
            Command::Stat(args) => args.run(pools, &mut out),
            Command::Df(args) => args.run(pools, &mut out),
            Command::Map(args) => args.run(pools, &mut out),
            Command::Check(args) => args.run(pools, &mut out),
            Command::Pins(args) => args.run(&mut out),
            Command::Release(args) => args.run(pools, &mut out),
            Command::Freeze(args) => args.run(pools, &mut out),
            Command::Mount(args) => args.run(pools, &mut out),
            Command::Table(args) => args.run(&mut out),
            Command::Dev(args) => args.run(pools, &mut out),
            Command::Matrix(args) => args.run(&mut out),
            Command::Tour(args) => args.run(&mut out),
            Command::TourWriter(args) => args.run(),
            Command::MatrixCell(args) => args.run(),
            Command::MatrixHolder(args) => args.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Examples:"), "{}", command.get_name());
        }
    }
}
