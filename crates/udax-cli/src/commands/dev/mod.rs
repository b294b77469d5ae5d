//! `udax dev`: a device mapped, read, written, pinned and removed, without a filesystem.

mod session;
mod step;

use std::path::PathBuf;

use clap::Args;
use udax::OpenDevDax;

use crate::align::Align;
use crate::opening::Opener;
use crate::output::Output;
use session::Session;
use step::Step;

/// Use a device without a filesystem: map, read, write, pin and remove it (device-dax).
///
/// The device is a file or a device node, mapped in folios of exactly its alignment; or a table of
/// such (see `udax table --help`). Steps are done one after the other in one process, which has the
/// device for itself meanwhile:
///
///     map AT LENGTH          map a range for stores, and touch every folio of it
///     read AT LENGTH FILE    copy bytes to a file
///     write AT FILE          copy a file to the device
///     pin LABEL AT LENGTH    pin a range, as for a device that transfers
///     unpin LABEL            let it go
///     pins                   list what is pinned, and for how long
///     kill                   take the device away, if nobody has a page of it
///
/// A device has no names and no owner of its bytes. Where a pool starts or ends on it `write` is
/// refused; that it is the middle of a pool on a table is not seen.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  truncate -s 1G scratch.img
  udax dev scratch.img                                       what it is
  udax dev scratch.img map 0 64M                             how it is mapped
  udax dev scratch.img write 0 in.bin read 0 4K /dev/stdout
  udax dev scratch.img pin nic 0 2M kill unpin nic kill      removal waits for pins
  udax dev --align 1G /dev/dax0.0 map 0 8G"
)]
pub(crate) struct DevArgs {
    /// The device, or a table.
    device: PathBuf,

    /// Bytes of a folio: nothing is mapped or pinned in any other size.
    #[arg(long, value_enum, default_value_t = Align::Pmd)]
    align: Align,

    /// Write to the device although a pool is on it, which is lost then.
    #[arg(long)]
    force: bool,

    /// What is done with it.
    #[arg(value_name = "STEP")]
    steps: Vec<String>,
}

impl DevArgs {
    /// Does the steps, and prints what came of each.
    ///
    /// # Errors
    ///
    /// Returns why the device cannot be opened, or the first step that failed; those before it are
    /// printed.
    pub(crate) fn run(&self, pools: Opener, out: &mut Output) -> anyhow::Result<()> {
        let steps = Step::parse(&self.steps)?;
        let options =
            OpenDevDax::new().alignment(self.align.order()).durability(pools.durability());
        let mut session = Session::open(&self.device, &options)?;
        if steps.iter().any(|step| matches!(step, Step::Write { .. })) && !self.force {
            session.refuse_pool()?;
        }
        let done = steps.iter().try_for_each(|step| session.take(step));
        out.facts(session.facts())?;
        done
    }
}
