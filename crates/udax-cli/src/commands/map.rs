//! `udax map`: where the bytes of a file lie, and by which folios they are mapped.

mod layout;

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::{Args, ValueEnum};
use serde::Serialize;
use udax::{
    Fallback, File, FileExtent, MapOptions, Mapping, Order, PAGE_SIZE, Pool, Populate, Stats,
    WhyEager,
};

use crate::opening::{InPool, Opener};
use crate::output::{Human, Name, Output};
use crate::size::human;
use crate::target::PoolPath;
use layout::{Layout, Permitted};

/// Show where the bytes of a file lie in its pool.
///
/// Each line is a run that is contiguous in the file and in the pool. Its order says how it can be
/// mapped: 0 by pages of 4 KiB, 9 by pages of 2 MiB, 18 by pages of 1 GiB. Why not by larger ones is
/// in the last column, as far as the places of the bytes say. A run that is shared is one that other
/// files have too; it is copied when one of them is written. What is missing between the lines is a
/// hole, which reads as zeros and takes no room. Bytes that are lost, because memory under them is
/// known to have failed, are listed at the end: write their whole pages anew to heal them.
///
/// With --touch the file is really mapped and every page of it read, and what served the faults is
/// counted: by which folios, and for what reasons they were not larger. These counters are those of
/// one process; what another one has counted, it tells by `Mapping::stats`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  udax map data.udax:/model.bin
  udax map --touch data.udax:/model.bin
  udax map --json data.udax:/model.bin | jq '.extents | length'")]
pub(crate) struct MapArgs {
    /// The file.
    #[arg(value_name = "POOL:/PATH", value_parser = PoolPath::parser())]
    path: PoolPath,
    /// Map the file and read every page: at the first touch (lazy), or all at once (eager).
    #[arg(
        long,
        value_name = "HOW",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "lazy"
    )]
    touch: Option<Touch>,
}

/// How the file is mapped to be touched.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Touch {
    Lazy,
    Eager,
}

/// What `map` prints; offsets and sizes in bytes.
#[derive(Debug, Serialize)]
struct FileMap {
    #[serde(flatten)]
    path: Name,
    size: u64,
    data: u64,
    holes: u64,
    /// Bytes that can be mapped by folios of order 9 and above.
    huge: u64,
    /// Bytes that other files, or other places of this one, have too.
    shared: u64,
    extents: Vec<Extent>,
    bad: Vec<Bad>,
    /// Why no mapping of this pool is lazy here, if none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    why_eager: Option<Why>,
    #[serde(skip_serializing_if = "Option::is_none")]
    touched: Option<Touched>,
}

/// How the faults of a whole file were served.
#[derive(Debug, Serialize)]
struct Touched {
    /// `lazy` or `eager`; a host that permits no userfaultfd makes every mapping eager.
    faulting: &'static str,
    /// Why it is eager, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    why_eager: Option<Why>,
    folios: Vec<Folios>,
    /// Faults that showed a hole as zeros.
    holes: u64,
    #[serde(flatten)]
    events: Events,
    /// Why folios were not larger, and how often.
    fallbacks: Vec<FellBack>,
}

/// What is counted of a file besides: see [`Stats`].
#[derive(Debug, Serialize)]
struct Events {
    failures: u64,
    poison: u64,
    copies: u64,
    pins: u64,
    breaks: u64,
    waits: u64,
    wakeups: u64,
}

/// Why a mapping is eager.
#[derive(Debug, Serialize)]
pub(crate) struct Why {
    reason: &'static str,
    meaning: String,
}

/// How many folios of one order were mapped.
#[derive(Debug, Serialize)]
struct Folios {
    order: u32,
    bytes: u64,
    count: u64,
}

/// How often a folio was smaller than the one tried first, or how many blocks cannot be one, for one
/// reason.
#[derive(Debug, Serialize)]
struct FellBack {
    reason: &'static str,
    meaning: String,
    count: u64,
}

/// Bytes whose memory failed.
#[derive(Debug, Serialize)]
struct Bad {
    offset: u64,
    len: u64,
}

/// One contiguous run.
#[derive(Debug, Serialize)]
struct Extent {
    offset: u64,
    device: u64,
    len: u64,
    order: u32,
    shared: bool,
    /// The largest power of two that divides the place in the pool, at most 1 GiB.
    alignment: u64,
    /// Why its pages are no folios of the next order, and for how many blocks of that order.
    not_larger: Vec<FellBack>,
}

impl MapArgs {
    /// Prints the extents, and what served the faults.
    ///
    /// # Errors
    ///
    /// Returns why the file cannot be read.
    pub(crate) fn run(&self, pools: Opener, out: &mut Output) -> anyhow::Result<()> {
        let pool = pools.to_read(self.path.pool())?;
        let file = pool.open_file(self.path.path()).of(pool.path())?;
        let mut found = FileMap::new(&self.path, &pool, &file).of(pool.path())?;
        if let Some(how) = self.touch {
            found.touched = Some(how.touch(&file).of(pool.path())?);
        }
        Ok(out.facts(&found)?)
    }
}

impl Touch {
    /// Maps the file, reads a byte of every page, and counts what served it.
    fn touch(self, file: &File) -> udax::Result<Touched> {
        let populate = match self {
            Touch::Lazy => Populate::Lazy,
            Touch::Eager => Populate::Eager,
        };
        let len = file.metadata().len();
        if len == 0 {
            return Ok(Touched::nothing(populate));
        }
        let map = file.map(0..len, &MapOptions::new().populate(populate))?;
        for at in (0..len).step_by(PAGE_SIZE) {
            map.read(&mut [0], at)?;
        }
        Ok(Touched::new(&map))
    }
}

impl Touched {
    fn new(map: &Mapping) -> Touched {
        let why_eager = map.why_eager().as_ref().map(Why::new);
        Touched { why_eager, ..Touched::of(map.faulting(), &map.stats()) }
    }

    fn nothing(populate: Populate) -> Touched {
        Touched::of(populate, &Stats::default())
    }

    fn of(populate: Populate, stats: &Stats) -> Touched {
        let folios = |order: Order| Folios {
            order: order.get(),
            bytes: order.pages().bytes(),
            count: stats.faults(order),
        };
        Touched {
            faulting: match populate {
                Populate::Lazy => "lazy",
                Populate::Eager => "eager",
            },
            why_eager: None,
            folios: Order::ALL.into_iter().map(folios).filter(|found| found.count > 0).collect(),
            holes: stats.holes,
            events: Events::of(stats),
            fallbacks: stats.reasons().map(FellBack::new).collect(),
        }
    }

    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let folios = self.folios.iter().rev();
        let mut parts: Vec<String> =
            folios.map(|found| format!("{} of {}", found.count, human(found.bytes))).collect();
        if self.holes > 0 {
            parts.push(format!("{} faults on holes", self.holes));
        }
        parts.extend(self.events.human());
        let parts = if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") };
        writeln!(out, "touched ({}): {parts}", self.faulting)?;
        if let Some(Why { meaning, .. }) = &self.why_eager {
            writeln!(out, "  eager: {meaning}")?;
        }
        for FellBack { reason, meaning, count } in &self.fallbacks {
            writeln!(out, "  {count} not larger, {reason}: {meaning}")?;
        }
        Ok(())
    }
}

impl Events {
    fn of(stats: &Stats) -> Events {
        let &Stats { failures, poison, copies, pins, breaks, waits, wakeups, .. } = stats;
        Events { failures, poison, copies, pins, breaks, waits, wakeups }
    }

    /// What there was of each.
    fn human(&self) -> impl Iterator<Item = String> {
        let counts = [
            (self.failures, "faults that failed"),
            (self.poison, "faults and pins that met memory that failed"),
            (self.copies, "pages of shared data copied"),
            (self.pins, "pins"),
            (self.breaks, "layouts broken"),
            (self.waits, "waits for a pin"),
            (self.wakeups, "waits that a pin ended"),
        ];
        counts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, of)| format!("{count} {of}"))
    }
}

impl FileMap {
    fn new(path: &PoolPath, pool: &Pool, file: &File) -> udax::Result<FileMap> {
        let (size, extents, bad) = (file.metadata().len(), file.extents()?, file.bad_ranges()?);
        let layout = Layout::new(&**pool.filesystem().device(), size, &extents, &bad);
        let bytes = |extent: &FileExtent| extent.pages.bytes();
        let permitted: Vec<_> = extents.iter().map(|extent| layout.of(extent)).collect();
        let data = extents.iter().map(bytes).sum();
        Ok(FileMap {
            path: Name::new(path.path().as_os_str()),
            size,
            data,
            holes: udax::Pages::holding(size).bytes().saturating_sub(data),
            huge: permitted.iter().map(|permitted| permitted.huge.bytes()).sum(),
            shared: extents.iter().filter(|extent| extent.is_shared).map(bytes).sum(),
            extents: extents.iter().zip(permitted).map(Extent::new).collect(),
            bad: bad
                .iter()
                .map(|bad| Bad { offset: bad.start, len: bad.end - bad.start })
                .collect(),
            why_eager: pool.why_eager().map(Why::new),
            touched: None,
        })
    }
}

impl Extent {
    fn new((extent, permitted): (&FileExtent, Permitted)) -> Extent {
        let device = extent.device.byte();
        Extent {
            offset: extent.index.byte(),
            device,
            len: extent.pages.bytes(),
            order: permitted.order.get(),
            shared: extent.is_shared,
            alignment: 1 << device.trailing_zeros().min(30),
            not_larger: permitted.not_larger.into_iter().map(FellBack::new).collect(),
        }
    }
}

impl FellBack {
    fn new((reason, count): (Fallback, u64)) -> FellBack {
        FellBack { reason: reason.code(), meaning: reason.to_string(), count }
    }
}

impl Why {
    pub(crate) fn new(why: &WhyEager) -> Why {
        Why { reason: why.code(), meaning: why.to_string() }
    }

    /// What it means, and what would help.
    pub(crate) fn meaning(&self) -> &str {
        &self.meaning
    }
}

impl Human for FileMap {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        self.path.write(out)?;
        let FileMap { size, data, holes, huge, shared, extents, bad, .. } = self;
        let (data, holes, huge) = (human(*data), human(*holes), human(*huge));
        write!(out, ": {size} bytes; data {data}, holes {holes}, in huge pages {huge}")?;
        if *shared > 0 {
            write!(out, ", shared {}", human(*shared))?;
        }
        writeln!(out)?;
        if !extents.is_empty() {
            write!(out, "{:>16} {:>16} {:>12} order", "offset", "in pool", "length")?;
            writeln!(out, "  aligned to  not larger")?;
        }
        let mut meanings = BTreeMap::new();
        for Extent { offset, device, len, order, shared, alignment, not_larger } in extents {
            let (len, alignment) = (human(*len), human(*alignment));
            let codes: Vec<&str> = not_larger.iter().map(|why| why.reason).collect();
            meanings.extend(not_larger.iter().map(|why| (why.reason, &why.meaning)));
            write!(out, "{offset:>#16x} {device:>#16x} {len:>12} {order:>5}  {alignment:<10}")?;
            write!(out, "  {}", codes.join(", "))?;
            writeln!(out, "{}", if *shared { "  shared" } else { "" })?;
        }
        for (reason, meaning) in meanings {
            writeln!(out, "not larger, {reason}: {meaning}")?;
        }
        for Bad { offset, len } in bad {
            writeln!(out, "{offset:>#16x} lost: memory of {len} bytes failed")?;
        }
        if let (Some(why), None) = (&self.why_eager, &self.touched) {
            writeln!(out, "mappings are eager: {}", why.meaning())?;
        }
        self.touched.as_ref().map_or(Ok(()), |touched| touched.human(out))
    }
}
