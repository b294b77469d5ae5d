//! Who may hold a page, and when: claims, folios, pins, limbo, poison, frozen pages and the end of
//! a page map, on volatile media.

mod activation;
mod bytes;
mod claim;
mod folio;
mod folio_span;
mod kill;
mod limbo;
mod memory;
mod model;
mod pin;
mod pinned_span;
mod poison;

use std::ops::Range;
use std::time::Instant;
use udax_mm::media::FileMedia;
use udax_mm::sync::Arc;
use udax_mm::{
    Media, MediaRange, MemoryType, Pages, Pgmap, PgmapOff, PgmapRef, PinInfo, PinKind, PinOwner,
    PinTerm,
};

/// The pages of a 2 MiB block.
const PMD: u64 = 512;
/// The pages of a 1 GiB block.
const PUD: u64 = PMD * PMD;

fn medium(pages: u64) -> Arc<dyn Media> {
    Arc::new(FileMedia::memfd("pages", Pages(pages).bytes()).expect("memfd works"))
}

fn range(media: &Arc<dyn Media>, start: u64, pages: u64) -> MediaRange {
    MediaRange { media: Arc::clone(media), start: Pages(start).bytes(), pages: Pages(pages) }
}

/// A page map over media of these sizes, one behind the other.
fn pgmap_of(sizes: &[u64]) -> Pgmap {
    let ranges = sizes.iter().map(|&pages| range(&medium(pages), 0, pages)).collect();
    Pgmap::new(ranges, MemoryType::FsDax).expect("the ranges are good")
}

fn live(pages: u64) -> PgmapRef {
    pgmap_of(&[pages]).try_get_live().expect("nobody killed it")
}

fn pages(range: Range<u64>) -> Range<PgmapOff> {
    PgmapOff(range.start)..PgmapOff(range.end)
}

fn pinned_by(label: &str) -> PinInfo {
    let owner = PinOwner { process: std::process::id(), connection: 0, label: label.into() };
    PinInfo { owner, since: Instant::now(), kind: PinKind::Write, term: PinTerm::Short }
}

/// Panics with the invariant that does not hold.
#[track_caller]
fn verify(pgmap: &PgmapRef) {
    assert_eq!(pgmap.pgmap().verify(), Ok(()));
}
