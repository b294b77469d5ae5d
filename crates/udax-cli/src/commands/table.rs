//! `udax table`: checks a table of devices, and draws the stack below it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use udax::{Order, TableTree, TreeLine, TreeMember, TreeSegment};

use super::df::survives;
use crate::align::Align;
use crate::opening::InPool;
use crate::output::{Human, Name, Output};
use crate::size::human;

/// Check a table of devices, and draw the stack below it.
///
/// A table is a text file whose name ends in `.table`. Its lines are those of `dmsetup`:
///
///     START LENGTH linear DEVICE START
///     START LENGTH striped COUNT CHUNK DEVICE START DEVICE START ...
///     START LENGTH delay DEVICE START MILLISECONDS
///     START LENGTH log-writes DEVICE LOG
///     START LENGTH error
///     START LENGTH zero
///
/// Sizes are sectors of 512 bytes, or have a unit (4KiB, 2MiB, 1G). What follows `#` is a comment. A
/// device is a file or a device node, beside the table; one whose name ends in `.table` is another
/// table. A delay is one minute at most. Nothing is changed, and the devices may be in use.
///
/// The table is checked for a pool, which takes folios of any size. `--align` checks it for
/// `udax dev`, where a line may not divide a folio.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  printf '0 1GiB linear a.img 0\\n1GiB 1GiB linear b.img 0\\n' > pool.table
  udax table pool.table
  udax create --table pool.table
  udax table --align 2M pool.table && udax dev --align 2M pool.table
  udax table --json pool.table | jq .lines[].segments[].largest_folio"
)]
pub(crate) struct TableArgs {
    /// The table.
    table: PathBuf,

    /// Check it for a device of folios of just this size, as `udax dev` maps one.
    #[arg(long, value_enum)]
    align: Option<Align>,
}

/// A table and what is below it; sizes in bytes.
#[derive(Debug, Serialize)]
struct TableFacts {
    #[serde(flatten)]
    path: Name,
    size: u64,
    dax: bool,
    /// Why there is no direct access.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_dax: Option<String>,
    host_page: usize,
    survives: &'static str,
    registrable: bool,
    lines: Vec<LineFacts>,
}

#[derive(Debug, Serialize)]
struct LineFacts {
    start: u64,
    length: u64,
    target: &'static str,
    /// Its memory, in order: adjacent segments differ.
    segments: Vec<SegmentFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
    devices: Vec<DeviceFacts>,
}

#[derive(Debug, Serialize)]
struct SegmentFacts {
    start: u64,
    length: u64,
    /// Bytes to which it and the memory below are aligned alike.
    alignment: Option<u64>,
    /// Bytes of the largest folio that fits.
    largest_folio: Option<u64>,
}

#[derive(Debug, Serialize)]
struct DeviceFacts {
    device: String,
    from: u64,
    length: u64,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<TableFacts>,
}

impl TableArgs {
    /// Draws the stack.
    ///
    /// # Errors
    ///
    /// Returns line and column of what is wrong with the table.
    pub(crate) fn run(&self, out: &mut Output) -> anyhow::Result<()> {
        check_name(&self.table)?;
        let tree = match self.align {
            None => TableTree::open(&self.table),
            Some(align) => TableTree::open_aligned(&self.table, align.order()),
        };
        let tree = tree.of(&self.table)?;
        Ok(out.facts(&TableFacts::of(&tree))?)
    }
}

/// Refuses a table whose name is not that of one, because a pool on it could not be found again.
///
/// # Errors
///
/// Says what it should be called.
pub(crate) fn check_name(path: &Path) -> anyhow::Result<()> {
    if path.extension().is_some_and(|extension| extension == "table") {
        return Ok(());
    }
    let better = path.with_extension("table");
    anyhow::bail!(
        "{}: the name of a table ends in `.table`; call it {}",
        path.display(),
        better.display()
    )
}

impl TableFacts {
    fn of(tree: &TableTree) -> TableFacts {
        TableFacts {
            path: Name::new(tree.path.as_os_str()),
            size: tree.len,
            dax: tree.no_dax.is_none(),
            no_dax: tree.no_dax.clone(),
            host_page: tree.facts.host_page,
            survives: survives(tree.facts.persistence),
            registrable: tree.facts.is_registrable,
            lines: tree.lines.iter().map(LineFacts::of).collect(),
        }
    }

    /// The lines and what is below them, with `indent` before each.
    fn draw(&self, out: &mut dyn Write, indent: &str) -> io::Result<()> {
        for (number, line) in self.lines.iter().enumerate() {
            let is_last = number + 1 == self.lines.len();
            let (branch, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            write!(out, "{indent}{branch}")?;
            line.draw(out, &format!("{indent}{below}"))?;
        }
        Ok(())
    }

    /// What holds for all of it.
    fn properties(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{}; ", human(self.size))?;
        match &self.no_dax {
            None => write!(out, "direct access")?,
            Some(why) => write!(out, "no direct access: {why}")?,
        }
        writeln!(out, "; {}", self.survives)
    }
}

impl LineFacts {
    fn of(line: &TreeLine) -> LineFacts {
        LineFacts {
            start: line.start,
            length: line.len,
            target: line.target,
            segments: line.segments.iter().map(SegmentFacts::of).collect(),
            advice: line.advice.as_ref().map(ToString::to_string),
            devices: line.members.iter().map(DeviceFacts::of).collect(),
        }
    }

    fn draw(&self, out: &mut dyn Write, indent: &str) -> io::Result<()> {
        write!(out, "{} +{}  {}", human(self.start), human(self.length), self.target)?;
        if let [one] = &self.segments[..] {
            one.draw(out)?;
        } else {
            for segment in &self.segments {
                let (start, length) = (human(segment.start), human(segment.length));
                write!(out, "\n{indent}· {start} +{length}")?;
                segment.draw(out)?;
            }
        }
        writeln!(out)?;
        if let Some(advice) = &self.advice {
            writeln!(out, "{indent}! {advice}")?;
        }
        for (number, device) in self.devices.iter().enumerate() {
            let is_last = number + 1 == self.devices.len();
            let (branch, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            write!(out, "{indent}{branch}")?;
            device.draw(out, &format!("{indent}{below}"))?;
        }
        Ok(())
    }
}

impl SegmentFacts {
    fn of(segment: &TreeSegment) -> SegmentFacts {
        let bytes = |order: Order| order.pages().bytes();
        SegmentFacts {
            start: segment.start,
            length: segment.len,
            alignment: segment.alignment.map(bytes),
            largest_folio: segment.largest_folio.map(bytes),
        }
    }

    fn draw(&self, out: &mut dyn Write) -> io::Result<()> {
        if let (Some(alignment), Some(folio)) = (self.alignment, self.largest_folio) {
            write!(out, ", aligned to {}, folios of {} at most", human(alignment), human(folio))?;
        }
        Ok(())
    }
}

impl DeviceFacts {
    fn of(member: &TreeMember) -> DeviceFacts {
        DeviceFacts {
            device: member.name.clone(),
            from: member.from,
            length: member.len,
            size: member.size,
            table: member.below.as_deref().map(TableFacts::of),
        }
    }

    fn draw(&self, out: &mut dyn Write, indent: &str) -> io::Result<()> {
        write!(out, "{} +{} of {}", human(self.from), human(self.length), self.device)?;
        match &self.table {
            None => writeln!(out, " ({})", human(self.size)),
            Some(table) => {
                write!(out, ": ")?;
                table.properties(out)?;
                table.draw(out, indent)
            }
        }
    }
}

impl Human for TableFacts {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        self.path.write(out)?;
        write!(out, ": ")?;
        self.properties(out)?;
        self.draw(out, "")
    }
}
