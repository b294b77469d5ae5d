//! Kinds of memory, and what the driver of each has to do for its page map.
//!
//! This file owns the callbacks. Every kind is activated by the same request, idles at zero and
//! keeps its page map from being dead while a page is in use; a kind differs in who gets the pages
//! back and whether the processor can address them.

use crate::folio::{Folio, FolioRef};
use crate::idle::IdleSpan;
use crate::media::MediaError;
use crate::pgmap::PgmapRef;
use crate::sync::Arc;
use crate::units::{Order, PgmapOff};
use std::fmt::Debug;
use std::io;
use std::ops::Range;

/// What kind of memory a page map describes (`enum memory_type` of Linux), with the callbacks that
/// the kind requires.
#[derive(Clone, Debug)]
pub enum MemoryType {
    /// Memory of a filesystem, which gives out folios of any order.
    FsDax,
    /// A device mapped as it is, in folios of this order only (`vmemmap_shift`, I-09).
    Generic(Order),
    /// Memory that only its device can address. Its bytes cannot be read or mapped: a page that the
    /// processor touches is brought to memory that it can address.
    Private(Arc<dyn PrivateMemory>),
    /// Memory of a device that the processor addresses like its own.
    Coherent(Arc<dyn DeviceMemory>),
    /// A window into a device, for transfers between devices.
    P2pdma(Arc<dyn DeviceMemory>),
}

/// The driver of memory that a device gives out.
///
/// ```
/// use udax_mm::sync::{Arc, Mutex};
/// use udax_mm::{DeviceMemory, IdleSpan, MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff};
///
/// /// Knows what is free.
/// #[derive(Debug, Default)]
/// struct Driver(Mutex<Vec<PgmapOff>>);
///
/// impl DeviceMemory for Driver {
///     fn folio_free(&self, pages: IdleSpan) {
///         self.0.lock().push(pages.pages().start);
///     }
/// }
///
/// # let media = Arc::new(udax_mm::media::FileMedia::memfd("example", 1 << 20)?);
/// # let range = MediaRange { media, start: 0, pages: Pages(256) };
/// let driver = Arc::new(Driver::default());
/// let pgmap = Pgmap::new(vec![range], MemoryType::Coherent(driver.clone()))?;
/// let live = pgmap.try_get_live().expect("nobody killed it");
///
/// let folio = live.request_folio(PgmapOff(3), Order::Base)?;
/// drop(folio.clone());
/// assert!(driver.0.lock().is_empty(), "somebody counts it still");
/// drop(folio);
/// assert_eq!(*driver.0.lock(), [PgmapOff(3)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait DeviceMemory: Send + Sync + Debug {
    /// Takes pages back with their last put (`folio_free`). Dropping the span makes them idle.
    ///
    /// Called by whoever puts the folio last, with no lock of this crate held. It must not block
    /// and must not panic. A driver that keeps the span keeps the page map from being dead.
    fn folio_free(&self, pages: IdleSpan);
}

/// The driver of memory that only its device can address.
pub trait PrivateMemory: DeviceMemory {
    /// Brings the bytes of `folio` to memory that the processor can address, and returns the folio
    /// of the same order that holds them there (`migrate_to_ram`).
    ///
    /// The caller keeps `folio` until this returns. Somebody else may ask for the same folio at the
    /// same time; the driver decides what to answer, so that all see the same bytes.
    ///
    /// # Errors
    ///
    /// A [`MigrateError`]; then the bytes stay where they are.
    fn migrate_to_ram(&self, folio: FolioRef<'_>) -> Result<Folio, MigrateError>;
}

/// Hears of memory that failed (`memory_failure`).
pub trait MemoryFailure: Send + Sync {
    /// These pages failed; they are marked already.
    ///
    /// Called by whoever found the failure, with no lock of this crate held.
    fn memory_failure(&self, pages: Range<PgmapOff>);
}

/// Why a folio could not be brought to addressable memory.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// There is no room for it.
    #[error("no addressable memory is free for a folio of order {0}")]
    NoMemory(Order),

    /// The device could not read it, or the memory not take it.
    #[error("the bytes could not be copied")]
    Media(#[from] MediaError),
}

impl MemoryType {
    /// Whether the processor can address the bytes.
    pub fn is_addressable(&self) -> bool {
        !matches!(self, MemoryType::Private(_))
    }

    /// The only order of its folios, if there is only one.
    #[inline]
    pub fn fixed_order(&self) -> Option<Order> {
        match self {
            MemoryType::Generic(order) => Some(*order),
            _ => None,
        }
    }

    /// Who gets pages back with their last put.
    pub(crate) fn device(&self) -> Option<&dyn DeviceMemory> {
        match self {
            MemoryType::FsDax | MemoryType::Generic(_) => None,
            MemoryType::Private(driver) => Some(&**driver),
            MemoryType::Coherent(driver) | MemoryType::P2pdma(driver) => Some(&**driver),
        }
    }
}

impl Folio {
    /// The folio that holds the same bytes in memory that the processor can address: this one, or
    /// for private memory the one that its driver brings them to.
    ///
    /// # Errors
    ///
    /// What the driver reports.
    ///
    /// # Panics
    ///
    /// Panics if the driver answers with a folio of another order, or of private memory.
    pub fn to_ram(&self) -> Result<Folio, MigrateError> {
        let MemoryType::Private(driver) = self.pgmap().pgmap().kind() else {
            return Ok(self.clone());
        };
        let folio = driver.migrate_to_ram(self.borrow())?;
        assert!(folio.order() == self.order(), "migrate_to_ram keeps the order");
        assert!(folio.pgmap().pgmap().kind().is_addressable(), "migrate_to_ram ends in memory");
        Ok(folio)
    }
}

/// Refuses to map what the processor must not touch: private memory, and pages that failed.
pub(crate) fn check_mappable(pgmap: &PgmapRef, pages: &Range<PgmapOff>) -> io::Result<()> {
    if !pgmap.pgmap().kind().is_addressable() {
        let first = pages.start;
        let message = format!("page {first} is private to its device: map what `to_ram` gives");
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    }
    match pgmap.first_poisoned(pages.clone()) {
        Some(page) => Err(io::Error::other(format!("page {page} is poisoned"))),
        None => Ok(()),
    }
}
