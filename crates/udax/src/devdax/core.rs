//! A device as the one file that its mappings and pins are of: page n of the file is page n of the
//! device.
//!
//! Owns what is said to `udax-mapping` about it, and what is done when the device below fails, moves or
//! goes. The device keeps no strong reference of this.

use std::ops::Range;
use std::time::Instant;

use udax_dev::{AccessError, DaxBytes, DaxDevice, DaxSpan, Holder, IoError};
use udax_mapping::{Iomap, IomapError, IomapOps, Mapping, New};
use udax_mm::sync::{Arc, Mutex, Weak};
use udax_mm::{
    Access, DeviceOff, FaultService, FileIndex, Lease, Order, Pages, RecallEvent, RecallReason,
    StillBusy, Wait,
};

use super::refused::DevDaxError;

/// The file that is a whole device.
#[derive(Debug)]
pub(crate) struct Core {
    bytes: DaxBytes,
    order: Order,
    mapping: Arc<Mapping>,
    /// What could not be flushed when the table below changed, until somebody is told.
    unflushed: Mutex<Option<IoError>>,
    /// When whoever ends the device gives up.
    deadline: Mutex<Option<Instant>>,
}

impl Core {
    /// Nothing is mapped, and nobody holds the device yet.
    pub(super) fn new(
        device: Arc<dyn DaxDevice>,
        service: Option<Arc<FaultService>>,
    ) -> Result<Arc<Core>, DevDaxError> {
        let order = one_order(&device)?;
        check_host_page(device.facts().host_page, order)?;
        let bytes = DaxBytes::new(device);
        Ok(Arc::new_cyclic(|core: &Weak<Core>| {
            let owner: Weak<dyn IomapOps> = core.clone();
            let mapping = Mapping::new(owner, service);
            let (unflushed, deadline) = (Mutex::default(), Mutex::default());
            Core { bytes, order, mapping, unflushed, deadline }
        }))
    }

    pub(crate) fn device(&self) -> &Arc<dyn DaxDevice> {
        self.bytes.device()
    }

    pub(crate) fn order(&self) -> Order {
        self.order
    }

    pub(crate) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    pub(super) fn bytes(&self) -> &DaxBytes {
        &self.bytes
    }

    /// Flushes and fences what was stored into a range by mappings and pins.
    pub(crate) fn flush(&self, range: Range<u64>) -> Result<(), IoError> {
        self.check_live()?;
        self.mapping.flush(range)?;
        // Asked last: whoever looks up everything anew flushes before it says that it could not.
        self.unflushed.lock().take().map_or(Ok(()), Err)
    }

    pub(super) fn kill(&self, wait: Wait) -> Result<(), StillBusy> {
        if let Wait::Until(deadline) = wait {
            *self.deadline.lock() = Some(deadline);
        }
        self.device().kill(wait)
    }

    /// Where pages lie, good or not, in as many spans as it takes. What a table fails is nowhere.
    pub(super) fn spans_of(
        &self,
        pages: Range<DeviceOff>,
    ) -> Result<Vec<(DeviceOff, DaxSpan)>, AccessError> {
        let end = pages.end.min(DeviceOff(self.device().size().0));
        let (mut at, mut spans) = (pages.start, Vec::new());
        while at < end {
            let pages = match self.device().recovery_access(at, end.since(at)) {
                Ok(span) => {
                    let pages = span.pages();
                    spans.push((at, span));
                    pages
                }
                Err(AccessError::Failed { pages, .. }) => pages,
                Err(other) => return Err(other),
            };
            at = at + pages;
        }
        Ok(spans)
    }

    fn check_live(&self) -> Result<(), AccessError> {
        match self.device().route(DeviceOff(0), Pages(1)) {
            Err(AccessError::Dead) => Err(AccessError::Dead),
            _ => Ok(()),
        }
    }

    /// Asks the holder of every pin on the device to let go.
    fn recall_pins(&self) {
        let deadline = *self.deadline.lock();
        let mut told: Vec<Lease> = Vec::new();
        let pins = self.device().pgmaps().into_iter().flat_map(|pgmap| pgmap.pins());
        for lease in pins.filter_map(|pin| pin.lease) {
            if !told.iter().any(|other| other.is_same(&lease)) {
                let (range, why) = (lease.range(), RecallReason::Wait);
                lease.recall(&RecallEvent { range, deadline, why });
                told.push(lease);
            }
        }
    }
}

impl IomapOps for Core {
    /// Answers with the folio of `index` and what follows it: never with a part of one (I-68).
    fn iomap(&self, index: FileIndex, _access: Access) -> Result<Iomap, IomapError> {
        let size = self.device().size();
        if index.0 >= size.0 {
            return Ok(Iomap::PastEnd);
        }
        let head = DeviceOff(index.align_down(self.order).0);
        let span = self.device().recovery_access(head, size - Pages(head.0));
        let span = span.map_err(|error| IomapError(error.into()))?;
        let start = FileIndex(head.0);
        Ok(Iomap::Data { span, start, is_shared: false, new: New::Nothing })
    }

    fn end(&self) -> FileIndex {
        FileIndex(self.device().size().0)
    }

    fn spans(&self, range: Range<FileIndex>) -> Result<Vec<(FileIndex, DaxSpan)>, IomapError> {
        let pages = DeviceOff(range.start.0)..DeviceOff(range.end.0);
        let spans = self.spans_of(pages).map_err(|error| IomapError(error.into()))?;
        Ok(spans.into_iter().map(|(at, span)| (FileIndex(at.0), span)).collect())
    }
}

impl Holder for Core {
    fn removing(&self) {
        self.mapping.zap_all();
        // Nobody pins any more, so this finds all of them.
        self.recall_pins();
    }

    fn failed(&self, pages: Range<DeviceOff>) {
        // A device that is gone has taken everything back already.
        for (at, span) in self.spans_of(pages).unwrap_or_default() {
            self.mapping.poison(FileIndex(at.0), &span);
        }
    }

    /// Nothing is kept of where pages lie, but by pins, which stay with what they have.
    fn permits_move(&self) -> bool {
        true
    }

    fn suspended(&self, change: &mut dyn FnMut()) {
        if let Err(error) = self.mapping.suspended(change) {
            *self.unflushed.lock() = Some(error);
        }
    }
}

/// Refuses a device that the host maps in larger pages than its folios.
fn check_host_page(host_page: usize, alignment: Order) -> Result<(), DevDaxError> {
    if u64::try_from(host_page).is_ok_and(|page| page > alignment.pages().bytes()) {
        return Err(DevDaxError::HostPage { host_page, alignment });
    }
    Ok(())
}

/// The order of every folio of the device.
fn one_order(device: &Arc<dyn DaxDevice>) -> Result<Order, DevDaxError> {
    let orders: Vec<Option<Order>> = match device.as_mapped() {
        Some(mapped) => mapped.orders().iter().copied().collect(),
        None => device.pgmaps().iter().map(|pgmap| pgmap.kind().fixed_order()).collect(),
    };
    let mut orders = orders.into_iter();
    let first = orders.next().flatten().ok_or(DevDaxError::AnyOrder)?;
    for order in orders {
        match order {
            None => return Err(DevDaxError::AnyOrder),
            Some(other) if other != first => return Err(DevDaxError::Mixed { one: first, other }),
            Some(_) => (),
        }
    }
    Ok(first)
}
