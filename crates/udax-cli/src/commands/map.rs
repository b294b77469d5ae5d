//! `udax map`: where the bytes of a file lie.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;
use udax::{FileExtent, Order};

use crate::opening::{InPool, Opener};
use crate::output::{Human, Name, Output};
use crate::size::human;
use crate::target::PoolPath;

/// Show where the bytes of a file lie in its pool.
///
/// Each line is a run that is contiguous in the file and in the pool. Its order says how it can be
/// mapped: 0 by pages of 4 KiB, 9 by pages of 2 MiB, 18 by pages of 1 GiB. What is missing between
/// the lines is a hole, which reads as zeros and takes no room.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax map data.udax:/model.bin
  udax map --json data.udax:/model.bin | jq '.extents | length'")]
pub(crate) struct MapArgs {
    /// The file.
    #[arg(value_name = "POOL:/PATH", value_parser = PoolPath::parser())]
    path: PoolPath,
}

/// What `map` prints; offsets and sizes in bytes.
#[derive(Debug, Serialize)]
struct FileMap {
    #[serde(flatten)]
    path: Name,
    size: u64,
    data: u64,
    holes: u64,
    /// Bytes that lie in entries of order 9 and above.
    huge: u64,
    extents: Vec<Extent>,
}

/// One contiguous run.
#[derive(Debug, Serialize)]
struct Extent {
    offset: u64,
    device: u64,
    len: u64,
    order: u32,
    /// The largest power of two that divides the place in the pool, at most 1 GiB.
    alignment: u64,
}

impl MapArgs {
    /// Prints the extents.
    ///
    /// # Errors
    ///
    /// Returns why the file cannot be read.
    pub(crate) fn run(&self, pools: Opener, out: &mut Output) -> anyhow::Result<()> {
        let pool = pools.to_read(self.path.pool())?;
        let file = pool.open_file(self.path.path()).of(pool.path())?;
        let extents = file.extents().of(pool.path())?;
        Ok(out.facts(&FileMap::new(&self.path, file.metadata().len(), &extents))?)
    }
}

impl FileMap {
    fn new(path: &PoolPath, size: u64, extents: &[FileExtent]) -> FileMap {
        let bytes = |extent: &FileExtent| extent.pages.bytes();
        let is_huge = |extent: &&FileExtent| extent.order > Order::Base;
        let data = extents.iter().map(bytes).sum();
        FileMap {
            path: Name::new(path.path().as_os_str()),
            size,
            data,
            holes: udax::Pages::holding(size).bytes().saturating_sub(data),
            huge: extents.iter().filter(is_huge).map(bytes).sum(),
            extents: extents.iter().map(Extent::new).collect(),
        }
    }
}

impl Extent {
    fn new(extent: &FileExtent) -> Extent {
        let device = extent.device.byte();
        Extent {
            offset: extent.index.byte(),
            device,
            len: extent.pages.bytes(),
            order: extent.order.get(),
            alignment: 1 << device.trailing_zeros().min(30),
        }
    }
}

impl Human for FileMap {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        self.path.write(out)?;
        let FileMap { size, data, holes, huge, extents, .. } = self;
        let (data, holes, huge) = (human(*data), human(*holes), human(*huge));
        writeln!(out, ": {size} bytes; data {data}, holes {holes}, in huge pages {huge}")?;
        if !extents.is_empty() {
            writeln!(out, "{:>16} {:>16} {:>12} order  aligned to", "offset", "in pool", "length")?;
        }
        for Extent { offset, device, len, order, alignment } in extents {
            let (len, alignment) = (human(*len), human(*alignment));
            writeln!(out, "{offset:>#16x} {device:>#16x} {len:>12} {order:>5}  {alignment}")?;
        }
        Ok(())
    }
}
