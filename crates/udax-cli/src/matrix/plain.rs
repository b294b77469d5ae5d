//! A mapping of a file of the host that is loaded from as programs do: a byte past the end of the
//! file is a SIGBUS, and the end of the process.

use std::fs::File;
use std::time::Instant;

use anyhow::Context;
use udax_mm::frozen::FrozenFolio;
use udax_mm::media::{Durability, FileMedia};
use udax_mm::sync::Arc;
use udax_mm::{
    FrozenBytes, Media, MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff, PgmapRef, PinInfo,
    PinKind, PinOwner, PinTerm,
};

/// Pages of a file, mapped.
pub(super) struct Plain {
    pgmap: PgmapRef,
    pages: u64,
    /// The host maps it in pages of this size.
    order: Order,
}

impl Plain {
    /// Maps all of `file`.
    pub(super) fn new(file: &File) -> anyhow::Result<Plain> {
        let media = FileMedia::from_file(file.try_clone()?, Durability::Process)?;
        let pages = Pages::holding(media.len());
        let is_huge = media.facts().host_page > udax::PAGE_SIZE;
        let order = if is_huge { Order::Pmd } else { Order::Base };
        let range = MediaRange { media: Arc::new(media), start: 0, pages };
        let pgmap = Pgmap::new(vec![range], MemoryType::FsDax)?;
        let pgmap = pgmap.try_get_live().context("the page map was just made")?;
        Ok(Plain { pgmap, pages: pages.0, order })
    }

    /// Loads a byte of the first page.
    ///
    /// Nobody stores to the file from here on: the bytes become a plain slice.
    pub(super) fn load(self, at: usize) -> anyhow::Result<u8> {
        let owner =
            PinOwner { process: std::process::id(), connection: 0, label: "matrix: load".into() };
        let (kind, term) = (PinKind::Read, PinTerm::Short);
        let info = PinInfo { owner, since: Instant::now(), kind, term };
        let claimed = self.pgmap.claim(PgmapOff(0)..PgmapOff(self.pages))?;
        let frozen = FrozenFolio::freeze(claimed, self.order, &info).map_err(|(_, e)| e)?;
        let bytes = FrozenBytes::map(frozen, at + 1)?;
        bytes.get(at).copied().context("it lies in the file")
    }
}
