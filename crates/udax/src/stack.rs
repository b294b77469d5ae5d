//! Devices by the names that they have on the host: a file or device node, or a table of them.
//!
//! Owns the way from names to devices: which file is a table, that a table is not below itself, that
//! a file is opened and locked once however often it is named. Logs are in `stack/log.rs`.

mod log;

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fs::File as HostFile;
use std::path::{Path, PathBuf};

use udax_dev::{
    Advice, DaxDevice, EventSink, Mapped, Opener, PgmapDevice, Table, TableText, TextError,
};
use udax_mm::media::{Durability, FileMedia};
use udax_mm::recorder::Event;
use udax_mm::sync::{Arc, Mutex};
use udax_mm::units::PAGE_BYTES;
use udax_mm::{Media, MediaError, MediaFacts, MediaRange, MemoryType, Order, Pages, Pgmap};

use crate::error::{Cause, Error, Result};
use crate::lock::{LockMode, PoolLock};
use log::{LogError, Logs};

/// How devices are opened.
#[derive(Clone, Debug)]
pub(crate) struct How {
    pub(crate) kind: MemoryType,
    pub(crate) durability: Durability,
    /// None: to look at only, whoever uses them.
    pub(crate) lock: Option<LockMode>,
    pub(crate) is_writable: bool,
}

/// A device, with what keeps others away from it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) device: Arc<dyn DaxDevice>,
    pub(crate) locks: Vec<PoolLock>,
}

/// A table as it was loaded, with the names of the devices: what `udax table` draws.
///
/// A table is a text file whose name ends in `.table`, in the notation of `dmsetup`; see
/// `udax table --help`. Names in it are relative to the directory of the table. One that ends in
/// `.table` is another table.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dir = tempfile::tempdir()?;
/// std::fs::File::create(dir.path().join("a.img"))?.set_len(8 << 20)?;
/// std::fs::write(dir.path().join("pool.table"), "0 4MiB linear a.img 0\n4MiB 2MiB linear a.img 6MiB")?;
/// let tree = udax::TableTree::open(dir.path().join("pool.table"))?;
/// assert_eq!(tree.len, 6 << 20);
/// assert_eq!(tree.lines[1].members[0].name, "a.img");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TableTree {
    /// The file.
    pub path: PathBuf,
    /// Bytes of all lines.
    pub len: u64,
    /// Why it has no direct access, if it has none.
    pub no_dax: Option<String>,
    /// What the memory below promises.
    pub facts: MediaFacts,
    /// The lines, in order.
    pub lines: Vec<TreeLine>,
}

/// One line of a [`TableTree`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TreeLine {
    /// Its first byte.
    pub start: u64,
    /// Its bytes.
    pub len: u64,
    /// The name of its target.
    pub target: &'static str,
    /// Its memory, in order: adjacent segments differ.
    pub segments: Vec<TreeSegment>,
    /// What keeps larger ones out, and what would help.
    pub advice: Option<Advice>,
    /// The devices below.
    pub members: Vec<TreeMember>,
}

/// Bytes of a line of a [`TableTree`] that lie in memory in one way.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TreeSegment {
    /// Its first byte on the device.
    pub start: u64,
    /// Its bytes.
    pub len: u64,
    /// The largest folio size to which it and the memory below are aligned alike; none without memory.
    pub alignment: Option<Order>,
    /// The largest folio that fits.
    pub largest_folio: Option<Order>,
}

/// A device below a line of a [`TableTree`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TreeMember {
    /// Its name, as it is written.
    pub name: String,
    /// Its first byte that the line takes.
    pub from: u64,
    /// How many bytes the line takes.
    pub len: u64,
    /// All its bytes.
    pub size: u64,
    /// The table, if it is one.
    pub below: Option<Arc<TableTree>>,
}

/// Why a device that a table names cannot be opened.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("the table is below itself: {0}; a stack has an end")]
    Loop(String),
    #[error("{0} bytes are no whole number of pages of 4 KiB; make the file {1} bytes long")]
    PartialPages(u64, u64),
    #[error("the file is empty; give it a size, as by `truncate -s 1G`")]
    Empty,
    #[error("this is a directory")]
    Directory,
    #[error(
        "more than {} tables are one below the other, and no stack needs so many",
        Walk::DEEPEST
    )]
    TooDeep,
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{0}")]
    Table(TextError),
    #[error(transparent)]
    Other(#[from] Cause),
}

type OpenedTable = (Arc<dyn DaxDevice>, Arc<TableTree>);
type Boxed = Box<dyn StdError + Send + Sync>;

/// Opens the devices of a stack.
struct Walk<'h> {
    how: &'h How,
    /// The tables on the way down.
    above: Vec<PathBuf>,
    devices: HashMap<PathBuf, Found>,
    logs: Logs,
    locks: Vec<PoolLock>,
}

/// Opens what one table names.
struct Level<'w, 'h> {
    walk: &'w mut Walk<'h>,
    dir: PathBuf,
    /// What each device is called here.
    names: Vec<(String, Found)>,
}

/// A device, with its tree if it is a table.
#[derive(Clone)]
struct Found {
    device: Arc<dyn DaxDevice>,
    tree: Option<Arc<TableTree>>,
}

impl TableTree {
    /// Reads the table at `path`, and what is below it. Nothing is claimed, locked or changed, so
    /// the devices may be in use.
    ///
    /// # Errors
    ///
    /// Of kind [`BadTable`](crate::ErrorKind::BadTable), with line and column, if the table is wrong;
    /// else why it cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Arc<TableTree>> {
        TableTree::look(path.as_ref(), MemoryType::FsDax)
    }

    /// The same for a [device](crate::DevDax) of folios of just one size, which no line may divide.
    ///
    /// # Errors
    ///
    /// As [`open`](TableTree::open), and for what would divide a folio.
    pub fn open_aligned(path: impl AsRef<Path>, alignment: Order) -> Result<Arc<TableTree>> {
        TableTree::look(path.as_ref(), MemoryType::Generic(alignment))
    }

    fn look(path: &Path, kind: MemoryType) -> Result<Arc<TableTree>> {
        let how = How { kind, durability: Durability::Process, lock: None, is_writable: false };
        let (_device, tree) = walk(path, &how)?.0;
        Ok(tree)
    }
}

/// Whether `path` names a table.
pub(crate) fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "table")
}

/// Opens the table at `path`.
pub(crate) fn open_table(path: &Path, how: &How) -> Result<Opened> {
    let ((device, _tree), locks) = walk(path, how)?;
    Ok(Opened { device, locks })
}

/// The device of a table with its tree, and the locks of what is below.
fn walk(path: &Path, how: &How) -> Result<(OpenedTable, Vec<PoolLock>)> {
    let (above, devices) = (Vec::new(), HashMap::new());
    let mut walk = Walk { how, above, devices, logs: Logs::default(), locks: Vec::new() };
    match walk.table(path) {
        Ok(opened) => Ok((opened, walk.locks)),
        Err(OpenError::Table(error)) => Err(Error::new(path, Cause::Table(error))),
        Err(OpenError::Other(cause)) => Err(Error::new(path, cause)),
        Err(other) => Err(Error::new(path, Cause::Host(std::io::Error::other(other)))),
    }
}

impl Walk<'_> {
    /// How many tables may be one below the other: each takes a part of the stack of this thread.
    const DEEPEST: usize = 64;

    /// The device `name`, relative to `dir`.
    fn device(&mut self, dir: &Path, name: &str) -> Result<Found, OpenError> {
        let path = dir.join(name);
        let canonical = path.canonicalize().map_err(Cause::from)?;
        if let Some(found) = self.devices.get(&canonical) {
            return Ok(found.clone());
        }
        let opened = if is_table(&path) {
            let (device, tree) = self.table(&path)?;
            Found { device, tree: Some(tree) }
        } else {
            Found { device: self.leaf(&path)?, tree: None }
        };
        self.devices.insert(canonical, opened.clone());
        Ok(opened)
    }

    fn table(&mut self, path: &Path) -> Result<OpenedTable, OpenError> {
        let canonical = path.canonicalize().map_err(Cause::from)?;
        if let Some(first) = self.above.iter().position(|above| *above == canonical) {
            let mut way: Vec<String> = self.above[first..].iter().map(|p| file_name(p)).collect();
            way.push(file_name(&canonical));
            return Err(OpenError::Loop(way.join(" -> ")));
        }
        if self.above.len() == Walk::DEEPEST {
            return Err(OpenError::TooDeep);
        }
        let text = std::fs::read(path).map_err(Cause::from)?;
        let text = TableText::parse(&text).map_err(OpenError::Table)?;
        let dir = canonical.parent().unwrap_or(Path::new("/")).to_owned();
        self.above.push(canonical);
        let mut level = Level { walk: self, dir, names: Vec::new() };
        let table = text.open(&mut level).map_err(OpenError::Table)?;
        let tree = Arc::new(tree(path, &table, &level.names));
        self.above.pop();
        let mapped = Mapped::new(table).map_err(|error| OpenError::Table(text.located(error)))?;
        Ok((Arc::new(mapped), tree))
    }

    /// A file or a device node.
    fn leaf(&mut self, path: &Path) -> Result<Arc<dyn DaxDevice>, OpenError> {
        let is_writable = self.how.is_writable;
        let host = HostFile::options().read(true).write(is_writable).open(path);
        let host = host.map_err(Cause::from)?;
        let metadata = host.metadata().map_err(Cause::from)?;
        if metadata.is_dir() {
            return Err(OpenError::Directory);
        }
        if let Some(mode) = self.how.lock {
            self.locks.push(PoolLock::acquire(&host, mode)?);
        }
        let media =
            FileMedia::from_file(host, self.how.durability).map_err(|error| match error {
                MediaError::Empty => OpenError::Empty,
                MediaError::PartialPage { len, page } => {
                    let page = u64::try_from(page).expect("a page fits 64 bits");
                    OpenError::PartialPages(len, len.next_multiple_of(page))
                }
                error => Cause::from(error).into(),
            })?;
        Ok(device(media, self.how.kind.clone())?)
    }
}

impl Opener for Level<'_, '_> {
    fn device(&mut self, name: &str) -> Result<Arc<dyn DaxDevice>, Boxed> {
        let found = self.walk.device(&self.dir, name)?;
        let device = Arc::clone(&found.device);
        self.names.push((name.to_owned(), found));
        Ok(device)
    }

    fn log(&mut self, name: &str) -> Result<Arc<dyn EventSink>, Boxed> {
        if !self.walk.how.is_writable {
            // To look at, or to read: there is nothing to record.
            let nowhere: Arc<Mutex<Vec<Event>>> = Arc::default();
            return Ok(nowhere);
        }
        let log = self.walk.logs.log(&self.dir.join(name)).map_err(OpenError::from)?;
        Ok(log)
    }
}

/// A device over all of a medium.
pub(crate) fn device(media: FileMedia, kind: MemoryType) -> Result<Arc<dyn DaxDevice>, Cause> {
    let pages = Pages(media.len() / PAGE_BYTES);
    let range = MediaRange { media: Arc::new(media), start: 0, pages };
    Ok(Arc::new(PgmapDevice::new(Pgmap::new(vec![range], kind)?)))
}

fn tree(path: &Path, table: &Table, names: &[(String, Found)]) -> TableTree {
    let mut advice = table.advice().into_iter().peekable();
    let mut layout = table.layout().into_iter();
    let member = |member: &udax_dev::Member, pages: Pages| {
        let named = names.iter().find(|(_, found)| Arc::ptr_eq(&found.device, &member.device));
        let (name, found) = named.expect("the table was made of what was named");
        TreeMember {
            name: name.clone(),
            from: member.from.byte(),
            len: pages.bytes(),
            size: member.device.size().bytes(),
            below: found.tree.clone(),
        }
    };
    let segment = |run: udax_dev::Run| TreeSegment {
        start: run.pages.start.byte(),
        len: run.pages.end.byte() - run.pages.start.byte(),
        alignment: run.alignment,
        largest_folio: run.largest,
    };
    let mut line = |(number, line): (usize, &udax_dev::Line)| TreeLine {
        start: line.start.byte(),
        len: line.pages.bytes(),
        target: line.target.name(),
        segments: layout.next().into_iter().flatten().map(segment).collect(),
        advice: advice.next_if(|advice| advice.line == number + 1),
        members: line.target.members().iter().map(|m| member(m, line.pages_below())).collect(),
    };
    TableTree {
        path: path.to_owned(),
        len: table.size().bytes(),
        no_dax: table.dax().err().map(|why| why.reason.to_string()),
        facts: table.facts(),
        lines: table.lines().iter().enumerate().map(&mut line).collect(),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
