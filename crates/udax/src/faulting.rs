//! When the pages of mappings are mapped: what serves first touches, and why nothing does.

use std::fmt;
use std::io;

use udax_mm::FaultService;
use udax_mm::sync::Arc;

/// Why the pages of a mapping are mapped when it is made, and not at their first touch.
///
/// # Examples
///
/// ```
/// use udax::{MapOptions, Pool, Populate, WhyEager};
///
/// let pool = Pool::create_in_memory("example", 8 << 20)?;
/// pool.write("/a", [7; 4096])?;
/// let map = pool.open_file("/a")?.map(0..4096, &MapOptions::new().populate(Populate::Eager))?;
/// assert!(matches!(map.why_eager(), Some(WhyEager::Asked)));
/// if let Some(why) = pool.why_eager() {
///     println!("no mapping of this pool is lazy: {why}");
/// }
/// # Ok::<(), udax::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum WhyEager {
    /// The mapping was asked to be, by [`Populate::Eager`](crate::Populate).
    Asked,
    /// The pool or device was opened with [`eager_mappings`](crate::OpenPool::eager_mappings).
    OpenedSo,
    /// The host gives this process no userfaultfd, which tells who touches what; the error says what
    /// would help.
    NoUserfaultfd(Arc<io::Error>),
}

impl WhyEager {
    /// A word for it, as tools print it: `asked`, `opened` or `userfaultfd`.
    pub fn code(&self) -> &'static str {
        match self {
            WhyEager::Asked => "asked",
            WhyEager::OpenedSo => "opened",
            WhyEager::NoUserfaultfd(_) => "userfaultfd",
        }
    }
}

impl fmt::Display for WhyEager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WhyEager::Asked => f.write_str("the mapping was asked to be"),
            WhyEager::OpenedSo => f.write_str("what it maps was opened with eager mappings"),
            WhyEager::NoUserfaultfd(error) => error.fmt(f),
        }
    }
}

/// What serves the faults of lazy mappings, or why nothing does. Not permitted is no error: the
/// mappings are then eager, and say so.
pub(crate) type Service = Result<Arc<FaultService>, WhyEager>;

/// Starts what serves faults, if it may.
pub(crate) fn service(is_eager: bool) -> Service {
    if is_eager {
        return Err(WhyEager::OpenedSo);
    }
    FaultService::new().map(Arc::new).map_err(|error| WhyEager::NoUserfaultfd(Arc::new(error)))
}
