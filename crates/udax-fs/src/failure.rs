//! Memory of the device that failed: which files have it, and what follows for each.
//!
//! This file owns the way from pages of the device to everything that uses them. Each file that has
//! a page takes it from whoever maps it; free pages are withheld; and where a structure of the
//! filesystem is hit, nothing more is written, because nobody can say what a change would rest on.
//! The marks were set before, so what is allocated, mapped or read from here on sees them; all that
//! this has to find is what was shown earlier.

use std::ops::Range;

use udax_mapping::FaultGuard;
use udax_mm::sync::Arc;
use udax_mm::{DeviceOff, Pages};

use crate::alloc::Extent;
use crate::core::Core;
use crate::inode::spans;
use crate::tree::{Run, Tree, Visit};
use crate::{Ino, Kind};

impl Core {
    /// Does what there is to do about pages whose memory failed. They are marked already.
    pub(crate) fn failed(self: &Arc<Core>, pages: &Range<DeviceOff>) {
        if self.check_open().is_err() {
            return;
        }
        self.store.withhold(pages);
        let geometry = self.store.geometry();
        if pages.start < geometry.data || geometry.end < pages.end {
            self.store.stop_for("the superblock, the journal, the pin table or the inode table");
        }
        if let Ok(tree) = self.itable.tree() {
            self.look_in_tree(tree, pages, |_| self.store.stop_for("the inode table"));
        }
        for ino in self.itable.in_use() {
            self.look_in_inode(ino, pages);
        }
    }

    /// Does what there is to do about pages that the page maps know to have failed: before this was
    /// mounted, under another use of the same device.
    pub(crate) fn failed_before(self: &Arc<Core>) {
        let device = self.store.device();
        for pgmap in device.pgmaps() {
            for page in pgmap.poisoned() {
                if let Some(page) = device.device_off(&pgmap, page) {
                    self.failed(&page.span(Pages(1)));
                }
            }
        }
    }

    fn look_in_inode(self: &Arc<Core>, ino: Ino, pages: &Range<DeviceOff>) {
        // What cannot be read shows nothing to anybody; but its tree may be hit.
        let Ok(inode) = self.inode(ino) else {
            let record = self.itable.read(&self.store, ino);
            if let Ok(tree) = record.and_then(|record| Tree::of(&record)) {
                self.look_in_tree(tree, pages, |_| ());
            }
            return;
        };
        // Until they are taken back, so that what is the file's alone stays where it is. A file that
        // leaves a shared page meanwhile takes back what it shows of it.
        let faults = inode.mapping().faults();
        let mut hit = Vec::new();
        inode.node().look(|state| self.look_in_tree(state.tree, pages, |run| hit.push(run)));
        for run in hit {
            match inode.kind() {
                Kind::File => self.take_back(&faults, run),
                Kind::Dir => self.store.stop_for("a directory"),
                Kind::Symlink => self.store.stop_for("a symbolic link"),
            }
        }
    }

    /// Takes pages of a file from whoever maps them.
    fn take_back(&self, faults: &FaultGuard<'_>, run: Run) {
        // A device that is gone has taken everything back already.
        for (index, span) in spans(&self.store, vec![run]).unwrap_or_default() {
            faults.poison(index, &span);
        }
    }

    /// Calls `hit` for the data in `pages`, and stops the store if a node lies there.
    fn look_in_tree(&self, tree: Tree, pages: &Range<DeviceOff>, mut hit: impl FnMut(Run)) {
        let walked = tree.walk(&self.store, &mut |visit| {
            match visit {
                Visit::Node(page) if pages.contains(&page) => {
                    self.store.stop_for(&format!("the block tree of inode {}", tree.ino.0));
                }
                Visit::Data(run) => clipped(run, pages).into_iter().for_each(&mut hit),
                // What hangs below a node that cannot be read is not reached by anybody else.
                Visit::Node(_) | Visit::Bad(_) => (),
            }
            Ok(())
        });
        walked.expect("nothing above ends the walk");
    }
}

/// The part of a run that lies in `pages`.
fn clipped(run: Run, pages: &Range<DeviceOff>) -> Option<Run> {
    let all = Extent { start: run.device, pages: run.pages };
    let (start, end) = (all.start.max(pages.start), all.end().min(pages.end));
    let index = |start: DeviceOff| run.index + start.since(all.start);
    let part = || Run { index: index(start), device: start, pages: end.since(start), ..run };
    (start < end).then(part)
}
