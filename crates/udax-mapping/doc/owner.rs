// What the examples of this crate stand on: a file of a few pages, and its owner.

use std::ops::Range;
use udax_dev::{DaxDevice, DaxSpan, PgmapDevice};
use udax_mapping::{Iomap, IomapError, IomapOps, Mapping};
use udax_mm::media::FileMedia;
use udax_mm::sync::{Arc, Weak};
use udax_mm::{Access, DeviceOff, FileIndex, MediaRange, MemoryType, Pages, Pgmap};

/// A file that is a whole device: page n of the file is page n of the device.
pub struct WholeDevice {
    pub device: Arc<dyn DaxDevice>,
    pub mapping: Arc<Mapping>,
}

impl WholeDevice {
    pub fn new(pages: Pages) -> Result<Arc<WholeDevice>, Box<dyn std::error::Error>> {
        let media = Arc::new(FileMedia::memfd("example", pages.bytes())?);
        let range = MediaRange { media, start: 0, pages };
        let device = Arc::new(PgmapDevice::new(Pgmap::new(vec![range], MemoryType::FsDax)?));
        Ok(Arc::new_cyclic(|owner: &Weak<WholeDevice>| WholeDevice {
            device,
            mapping: Mapping::new(owner.clone(), None),
        }))
    }

    fn span(&self, at: DeviceOff, max: Pages) -> Result<DaxSpan, IomapError> {
        self.device.direct_access(at, max).map_err(|error| IomapError(error.into()))
    }
}

impl IomapOps for WholeDevice {
    fn iomap(&self, index: FileIndex, _access: Access) -> Result<Iomap, IomapError> {
        if index.0 >= self.device.size().0 {
            return Ok(Iomap::PastEnd);
        }
        let span = self.span(DeviceOff(0), self.device.size())?;
        Ok(Iomap::Data { span, start: FileIndex(0) })
    }

    fn spans(&self, range: Range<FileIndex>) -> Result<Vec<(FileIndex, DaxSpan)>, IomapError> {
        let end = range.end.0.min(self.device.size().0);
        if range.start.0 >= end {
            return Ok(Vec::new());
        }
        let span = self.span(DeviceOff(range.start.0), Pages(end - range.start.0))?;
        Ok(vec![(range.start, span)])
    }
}
