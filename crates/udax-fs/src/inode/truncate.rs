//! Changing the size of a file.

use udax_mapping::{BreakError, Deferred, FilePin, LayoutBroken};
use udax_mm::sync::Arc;
use udax_mm::{FileIndex, Interrupt, LimboSink, Pages, Patience, Wait};

use super::{END, Inode, Node, State, end_of};
use crate::FsError;
use crate::deferral::Deferral;
use crate::proof::{Txn, Vacant};
use crate::tree::Lookup;

/// What to do with pages that are pinned while their blocks are freed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FreePolicy<'i> {
    /// Recall the pins, and wait for them; when time runs out, nothing has changed and the error
    /// names them.
    Wait(Wait),
    /// The same, unless somebody raises the interrupt: nothing has changed then.
    WaitUnless(Wait, &'i Interrupt),
    /// Do not wait: the file loses the pages at once, and the blocks come back with the last put.
    /// The holders are told, and the call returns their pins.
    Defer,
    /// Do not wait, and change nothing if there is a pin: the error names the holders, who hear
    /// nothing of it.
    Fail,
}

impl<'i> FreePolicy<'i> {
    /// How long to wait for pins; `None` if their pages are deferred.
    pub(crate) fn patience(self) -> Option<Patience<'i>> {
        match self {
            FreePolicy::Wait(wait) => Some(wait.into()),
            FreePolicy::WaitUnless(wait, interrupt) => Some(wait.unless(interrupt)),
            FreePolicy::Defer => None,
            FreePolicy::Fail => Some(Wait::Never.into()),
        }
    }
}

impl Inode {
    /// Sets the size of the file. Bytes that come into being are zeros, also where a mapping wrote
    /// past the old end. Returns the pins that were deferred, each with the pages that it had of the
    /// range.
    ///
    /// # Blocking
    ///
    /// Shrinking waits for pins as `policy` says, and holds no lock of the file meanwhile: whoever
    /// holds the pin can read, write and fault.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::Layout`] with the first pinned index and its holders if the wait runs
    /// out; the file is unchanged then. Returns [`FsError::PartlyLost`] if it would end in a page that
    /// it shares and whose memory failed. Returns what [`Inode::write_at`] returns for files that
    /// cannot be written.
    pub fn truncate(&self, size: u64, policy: FreePolicy<'_>) -> Result<Vec<FilePin>, FsError> {
        self.check_can_write(size)?;
        loop {
            if self.node.read().size() <= size {
                let _writer = self.writer.lock();
                self.own_tail()?;
                if self.grow(size)? {
                    return Ok(Vec::new());
                }
            } else {
                self.own_page_of(size)?;
                let mut broken = self.break_layout(end_of(size), END, policy)?;
                let mut deferred = broken.take_deferred();
                if self.shrink_broken(size, broken, &mut deferred)? {
                    return Ok(deferred.tell());
                }
            }
            // The size has passed `size` meanwhile, so this is the other case, or the file has begun
            // to share the page in which it ends.
        }
    }

    /// Shrinks the file to `to` bytes: the pages of `broken` are freed with `txn`.
    ///
    /// The proof is held until the transaction has committed, so nobody can map, pin or add a page
    /// in the range before it is gone. False, and nothing has changed, if the file was not larger
    /// than `to`, or shares the page in which it would end: bytes of it have to be zeroed.
    ///
    /// # Errors
    ///
    /// Returns [`FsError::Frozen`], and [`FsError::Device`] if the device fails; nothing has
    /// changed then.
    ///
    /// # Panics
    ///
    /// Panics if the proof is one of another range.
    pub fn shrink(&self, txn: Txn<'_>, to: u64, broken: LayoutBroken<'_>) -> Result<bool, FsError> {
        let mut deferred = Deferred::default();
        let done = self.shrink_naming(txn, to, broken, &mut deferred)?;
        deferred.tell();
        Ok(done)
    }

    fn shrink_broken(
        &self,
        to: u64,
        broken: LayoutBroken<'_>,
        deferred: &mut Deferred,
    ) -> Result<bool, FsError> {
        self.shrink_naming(Txn::new(&self.node.core.store), to, broken, deferred)
    }

    /// As [`Inode::shrink`]; adds the pins of what was shared to those that are told.
    fn shrink_naming(
        &self,
        txn: Txn<'_>,
        to: u64,
        mut broken: LayoutBroken<'_>,
        deferred: &mut Deferred,
    ) -> Result<bool, FsError> {
        let store = &self.node.core.store;
        // Before anything may fail, so that pages which are not cut are known to stay.
        let vacant = Vacant::take(store, &mut broken);
        let mut state = self.node.write();
        state.check_not_frozen()?;
        if state.size() <= to {
            return Ok(false);
        }
        if self.node.shares_page_of(&state, to)? {
            self.node.flush_runs(&state, broken.range())?;
            return Ok(false);
        }
        assert!(
            broken.range().start <= end_of(to),
            "the layout is broken from the new end on (I-50)"
        );
        let given_up = self.node.maybe_shared(&state, broken.range())?;
        let done = self.node.shrink(&mut state, txn, to, vacant);
        if done.is_err() {
            // With the entries, the break removed the knowledge of what was stored to pages that
            // stay.
            self.node.flush_runs(&state, broken.range())?;
        }
        done?;
        store.add_pins_of(given_up, deferred);
        // What a reader of the last page sees past the end is zero for as long as nobody stores
        // there. Growing zeros it again, so a crash before these stores are durable does no harm.
        let zeroed = self.node.zero_tail(&state, u64::MAX);
        let may_be_copied = state.tree.may_share;
        drop(state);
        broken.give_up();
        broken.discard_private();
        drop(broken);
        if may_be_copied {
            self.show_zeroed(to)?;
        }
        zeroed?;
        Ok(true)
    }

    /// Takes back the protected copies that show the page of byte `at`, a part of which was zeroed in
    /// place: the page may have been shared, and is the file's own now. Not zeros of a hole (rule 12).
    pub(super) fn show_zeroed(&self, at: u64) -> Result<(), FsError> {
        let page = FileIndex::of_byte(at).span(Pages(1));
        let faults = self.mapping.faults();
        let store = &self.node.core.store;
        let found = self.node.look(|state| state.tree.lookup(store, page.start, page.clone()))?;
        if matches!(found, Lookup::Run(_)) {
            faults.invalidate_holes(page);
        }
        Ok(())
    }

    /// Takes back what an append could not complete. The caller holds the writer lock, and tells
    /// the holders of pins when it does not any more.
    pub(super) fn truncate_locked(&self, size: u64) -> Result<Deferred, FsError> {
        loop {
            self.own_page_of(size)?;
            let mut broken = self.break_layout(end_of(size), END, FreePolicy::Defer)?;
            let mut deferred = broken.take_deferred();
            if self.shrink_broken(size, broken, &mut deferred)? || self.node.read().size() <= size {
                return Ok(deferred);
            }
        }
    }

    /// Breaks the layout of pages `from..to`, as the policy says.
    pub(super) fn break_layout(
        &self,
        from: FileIndex,
        to: FileIndex,
        policy: FreePolicy<'_>,
    ) -> Result<LayoutBroken<'_>, BreakError> {
        if let Some(patience) = policy.patience() {
            return self.mapping.break_layout(from..to, patience);
        }
        let deferral = Deferral::new(&self.node.core.store);
        let sink: Arc<dyn LimboSink> = deferral.clone();
        let broken = self.mapping.break_layout_deferred(from..to, &sink);
        if broken.is_ok() {
            deferral.succeed();
        } else {
            deferral.fail();
        }
        broken
    }

    /// Grows the file to `size`, or leaves it. False if it is larger, or shares the page in which it
    /// ends. The caller holds the writer lock.
    fn grow(&self, size: u64) -> Result<bool, FsError> {
        let old = {
            let _faults = self.mapping.faults();
            let mut state = self.node.write();
            state.check_not_frozen()?;
            let old = state.size();
            if old > size || old < size && self.node.shares_page_of(&state, old)? {
                return Ok(false);
            }
            self.node.zero_tail(&state, size)?;
            self.node.publish(&mut state, None, size)?;
            old
        };
        self.show(FileIndex(0)..FileIndex(0), old..size);
        Ok(true)
    }
}

impl Node {
    /// Takes the pages past byte `to` out of the tree, and sets the size.
    #[track_caller]
    fn shrink(
        &self,
        state: &mut State,
        mut txn: Txn<'_>,
        to: u64,
        vacant: Vacant,
    ) -> Result<(), FsError> {
        let store = &self.core.store;
        let mut next = state.clone();
        let cut = state.tree.clear(store, end_of(to)..END)?.flush(store)?.fence(store)?;
        next.tree = txn.cut(cut, vacant)?;
        next.record.size.set(to);
        next.touch();
        self.commit(state, next, txn)
    }
}
