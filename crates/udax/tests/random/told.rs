//! What a file says of its pages: which are data, where that is, and what counts as shared.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use udax::File;

use crate::model::{HUGE, PAGE};

/// Blocks of 2 MiB of the device, of which somebody pins a page, and perhaps all.
pub(crate) type Blocks = BTreeSet<u64>;

/// The pages of a file that are data.
pub(crate) struct Told(BTreeMap<u64, Data>);

struct Data {
    block: u64,
    is_shared: bool,
}

impl Told {
    pub(crate) fn by(file: &File) -> Told {
        let extents = file.extents().unwrap().into_iter();
        let pages = extents.flat_map(|extent| {
            let data = move |page: u64| Data {
                block: (extent.device.0 + page) / (HUGE / PAGE),
                is_shared: extent.is_shared,
            };
            (0..extent.pages.0).map(move |page| (extent.index.0 + page, data(page)))
        });
        Told(pages.collect())
    }

    pub(crate) fn is_data(&self, index: u64) -> bool {
        self.0.contains_key(&index)
    }

    pub(crate) fn is_shared(&self, index: u64) -> bool {
        self.0.get(&index).is_some_and(|data| data.is_shared)
    }

    /// Whether a page lies in one of `blocks`.
    pub(crate) fn is_in(&self, index: u64, blocks: &Blocks) -> bool {
        self.0.get(&index).is_some_and(|data| blocks.contains(&data.block))
    }

    /// The blocks in which pages of the file lie.
    pub(crate) fn blocks(&self, pages: Range<u64>) -> Blocks {
        self.0.range(pages).map(|(_, data)| data.block).collect()
    }
}
