//! Freezing: a file whose bytes can never change again, and the bytes of one as a slice.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use udax_mapping::{BreakError, LayoutBroken};
use udax_mm::vma::FrozenBytes;
use udax_mm::{FileIndex, FrozenFolio, IdleSpan, Order, Pages, Patience, PgmapOff, PinInfo, Wait};

use super::iomap::spans;
use super::pair::is_held_up;
use super::{END, Inode};
use crate::FsError;
use crate::MountMode;
use crate::alloc::Extent;
use crate::format::{FLAG_FROZEN, MAX_FILE_BYTES};
use crate::num::to_usize;
use crate::proof::Txn;

/// For how long somebody may take who lets go of the folios of a file.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long it is until the next look.
const PAUSE: Duration = Duration::from_millis(1);

/// A folio, and those of its pages that are of the file.
type Part = (FrozenFolio, Range<PgmapOff>);

impl Inode {
    /// Makes the bytes of the file immutable, durably and for ever; it can still be removed.
    ///
    /// Holes are allocated, so that the bytes can be borrowed whole. Freezing a frozen file does
    /// nothing.
    ///
    /// # Blocking
    ///
    /// Waits as `wait` says for each [`WriteAccess`](super::WriteAccess), because who has it may have
    /// the bytes mapped elsewhere, and for the pins of the file, because a device might write through
    /// them. Meanwhile the file is written as ever, and can be opened for writing again.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::MappedForWriting`] with the mappings by which it can be written,
    /// [`FsError::OpenForWriting`] with the number of accesses if the wait runs out, or
    /// [`FsError::Interrupted`] if it was interrupted; [`FsError::Layout`] with the holders of pins,
    /// [`FsError::NoSpace`] if the holes do not fit, [`FsError::Quarantined`] if a device may
    /// still write for a holder that died, and [`FsError::Lost`] if memory of the file failed. The
    /// file is not frozen then.
    pub fn freeze<'i>(&self, wait: impl Into<Patience<'i>>) -> Result<(), FsError> {
        match self.freeze_thawed(wait.into()) {
            // By somebody else meanwhile, or before.
            Err(FsError::Frozen) => Ok(()),
            // What is in the way are the slices of a file that somebody else froze meanwhile.
            Err(FsError::Layout(_)) if self.node.read().record.is_frozen() => Ok(()),
            other => other,
        }
    }

    /// Freezes a file that is not frozen.
    fn freeze_thawed(&self, patience: Patience<'_>) -> Result<(), FsError> {
        loop {
            // Before the waits, which are of no use then.
            self.refuse_mapped()?;
            self.wait_writers_gone(patience)?;
            self.allocate_within(0..MAX_FILE_BYTES)?;
            self.own_tail()?;
            if self.freeze_unpinned(patience)? {
                return Ok(());
            }
            // Somebody opened it or punched a hole meanwhile, or the file has begun to share its last
            // page.
        }
    }

    /// Waits for pins and freezes the file. False if that has to be prepared again.
    fn freeze_unpinned(&self, patience: Patience<'_>) -> Result<bool, FsError> {
        loop {
            match self.freeze_at_once() {
                Err(error) if is_held_up(&error) && patience.wait() != Wait::Never => {
                    self.wait_unpinned(patience)?;
                }
                done => return done,
            }
        }
    }

    /// Freezes the file unless somebody pins it; as [`Inode::freeze_broken`]. Not between two steps of
    /// one write: the rest could not be written, nor what is done taken back.
    fn freeze_at_once(&self) -> Result<bool, FsError> {
        let _writer = self.writer.lock();
        let broken = self.mapping.break_layout(FileIndex(0)..END, Wait::Never)?;
        self.freeze_broken(&broken)
    }

    /// Sets the flag, while nobody maps or pins the file. False if it is open for writing, has a hole,
    /// or shares the page in which it ends, the rest of which is zeroed.
    ///
    /// All bytes are durable before the flag is, so a crash leaves no frozen file with others.
    fn freeze_broken(&self, broken: &LayoutBroken<'_>) -> Result<bool, FsError> {
        assert!(broken.range() == (FileIndex(0)..END), "all of the file is frozen");
        let store = &self.node.core.store;
        let mut state = self.node.write();
        state.check_not_frozen()?;
        let runs = state.tree.runs(store, FileIndex(0)..END)?;
        // With the entries, the break removed the knowledge of what was stored through mappings;
        // so also if the file cannot be frozen.
        for run in &runs {
            store.flush(run.device.byte(), run.pages.bytes())?;
        }
        store.fence_all()?;
        self.node.check_not_lost(&state.tree)?;
        for run in &runs {
            let extent = Extent { start: run.device, pages: run.pages };
            if let Some(label) = store.quarantine.writer_of(extent) {
                return Err(FsError::Quarantined { label });
            }
        }
        // Who maps or opens the file from here on finds it frozen.
        self.refuse_mapped()?;
        if self.writers.users() > 0 {
            return Ok(false);
        }
        let shares_tail = self.node.shares_page_of(&state, state.size())?;
        if !shares_tail {
            self.node.zero_tail(&state, u64::MAX)?;
        }
        store.fence_all()?;
        let filled: u64 = runs.iter().map(|run| run.pages.0).sum();
        if shares_tail || filled < state.end().0 {
            return Ok(false);
        }
        let mut next = state.clone();
        next.record.flags.set(next.record.flags.get() | FLAG_FROZEN);
        if self.mapping.take_stores() {
            // The last time that the bytes can have changed.
            next.touch();
        } else {
            next.touch_attributes();
        }
        self.node.commit(&mut state, next, Txn::new(store))?;
        Ok(true)
    }

    /// Refuses a file that somebody can write without a call.
    fn refuse_mapped(&self) -> Result<(), FsError> {
        match self.mapping.writable_mappings() {
            mappings if mappings.is_empty() => Ok(()),
            mappings => Err(FsError::MappedForWriting { mappings }),
        }
    }

    /// The bytes of a frozen file, without a copy. `info` says in whose name they are pinned.
    ///
    /// If all of the file is data of frozen files whose bytes are borrowed, it is borrowed from there.
    /// Else what it shares is copied first, as [`Inode::unshare`] does: the bytes must be nobody
    /// else's.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::NotFrozen`], and [`FsError::Layout`] if pages are pinned by something
    /// other than the bytes of a frozen file.
    pub fn frozen_bytes(&self, info: &PinInfo) -> Result<FrozenBytes, FsError> {
        self.node.core.check_open()?;
        self.check_file()?;
        if !self.node.read().record.is_frozen() {
            return Err(FsError::NotFrozen);
        }
        let parts = self.frozen_parts(info)?;
        let len = to_usize(self.node.read().size());
        FrozenBytes::map_parts(parts, len).map_err(FsError::Map)
    }

    /// Handles of all folios, which somebody froze before, or which are frozen now.
    fn frozen_parts(&self, info: &PinInfo) -> Result<Vec<Part>, FsError> {
        let (since, all) = (Instant::now(), FileIndex(0)..END);
        let mut may_change = true;
        loop {
            if let Some(parts) = self.frozen_before(all.clone(), info)? {
                return Ok(parts);
            }
            match self.freeze_folios(info) {
                // Somebody else froze them first, or is letting go of them, one after the other.
                Err(FsError::Layout(BreakError::Pinned { index, .. })) if may_change => {
                    let is_frozen = self.frozen_before(index.span(Pages(1)), info)?.is_some();
                    may_change = is_frozen && since.elapsed() < PATIENCE;
                    // Each attempt takes back what is shown of the file.
                    thread::sleep(PAUSE);
                }
                frozen => return Ok(frozen?.into_iter().map(whole).collect()),
            }
        }
    }

    /// More handles of folios that somebody froze before, with those of their pages that hold the
    /// data in `range`; `None` if a page of it is not frozen.
    ///
    /// A file that shares a part of the data of another finds it in a folio that reaches further.
    fn frozen_before(
        &self,
        range: Range<FileIndex>,
        info: &PinInfo,
    ) -> Result<Option<Vec<Part>>, FsError> {
        let _faults = self.mapping.faults();
        let store = &self.node.core.store;
        let tree = self.node.read().tree;
        let mut parts = Vec::new();
        for (_, span) in spans(store, tree.runs(store, range)?)? {
            let end = span.at() + span.pages();
            let mut at = span.at();
            while at < end {
                let Some(folio) = FrozenFolio::get(span.pgmap(), at, info.clone()) else {
                    return Ok(None);
                };
                let pages = at..folio.pages().end.min(end);
                at = pages.end;
                parts.push((folio, pages));
            }
        }
        Ok(Some(parts))
    }

    /// Takes every translation back and freezes the folios behind the file.
    fn freeze_folios(&self, info: &PinInfo) -> Result<Vec<FrozenFolio>, FsError> {
        let mut broken = loop {
            // Nobody stores to what is mounted read-only, shared or not.
            let is_shared = self.node.core.mode() == MountMode::ReadWrite
                && self.first_shared(FileIndex(0)..END)?.is_some();
            if is_shared {
                self.unshare(0..MAX_FILE_BYTES)?;
            }
            let broken = self.mapping.break_layout(FileIndex(0)..END, Wait::Never)?;
            let is_own = self.node.core.mode() == MountMode::ReadOnly
                || !self.node.shares(&self.node.read(), FileIndex(0)..END)?;
            if is_own {
                break broken;
            }
        };
        let tree = self.node.read().tree;
        self.node.check_not_lost(&tree)?;
        let mut folios = Vec::new();
        for span in broken.take_idle() {
            freeze_span(span, info, &mut folios)?;
        }
        drop(broken);
        Ok(folios)
    }
}

fn whole(folio: FrozenFolio) -> Part {
    let pages = folio.pages();
    (folio, pages)
}

/// Freezes a span in the largest folios that fit.
fn freeze_span(
    span: IdleSpan,
    info: &PinInfo,
    folios: &mut Vec<FrozenFolio>,
) -> Result<(), FsError> {
    let mut rest = Some(span);
    while let Some(span) = rest.take() {
        let pages = span.pages();
        let (order, end) = first_folios(pages.start, pages.end);
        let span = if end < pages.end {
            let (first, after) = span.split(end);
            rest = Some(after);
            first
        } else {
            span
        };
        match FrozenFolio::freeze(span, order, info) {
            Ok(frozen) => folios.extend(frozen),
            Err((_, error)) => return Err(udax_mapping::FaultError::from(error).into()),
        }
    }
    Ok(())
}

/// The order of the first folio of `start..end`, and how far folios of that order go.
fn first_folios(start: PgmapOff, end: PgmapOff) -> (Order, PgmapOff) {
    let huge = Order::Pmd.pages();
    let aligned = PgmapOff(start.0.next_multiple_of(huge.0));
    if start < aligned {
        return (Order::Base, aligned.min(end));
    }
    let whole = end.align_down(Order::Pmd);
    if whole > start { (Order::Pmd, whole) } else { (Order::Base, end) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_2_mib_freeze_as_one_folio() {
        let cases = [
            ((0, 512), (Order::Pmd, 512)),
            ((0, 1300), (Order::Pmd, 1024)),
            ((1024, 1300), (Order::Base, 1300)),
            ((3, 1300), (Order::Base, 512)),
            ((3, 100), (Order::Base, 100)),
        ];
        for ((start, end), (order, to)) in cases {
            assert_eq!(first_folios(PgmapOff(start), PgmapOff(end)), (order, PgmapOff(to)));
        }
    }
}
