//! The check of a mounted filesystem: what is on the medium against what is in memory.
//!
//! Random tests run it after every step. It takes for granted that nobody else uses the filesystem
//! meanwhile.

use udax_mm::DeviceOff;
use udax_mm::sync::Arc;

use crate::check::check_store;
use crate::num::to_u64;
use crate::store::Store;
use crate::{Filesystem, FsError, Inode, Kind};

impl Filesystem {
    /// Checks the filesystem, and that memory agrees with the medium: free space, limbo, the inodes
    /// and names in memory, mappings and page words.
    ///
    /// # Errors
    ///
    /// Says the first thing that is wrong.
    pub fn verify(&self) -> Result<(), String> {
        self.verify_checked().map_err(|error| error.to_string())?
    }

    fn verify_checked(&self) -> Result<Result<(), String>, FsError> {
        let core = self.core();
        core.check_open()?;
        let _names = core.namespace.write();
        let shadow =
            Store::new(Arc::clone(core.store.device()), *core.store.geometry(), self.uuid());
        let (report, pins) = check_store(&shadow)?;
        if let Some(problem) = report.problems.first() {
            return Ok(Err(format!("{}: {}", problem.object, problem.found)));
        }
        let on_medium = report.files + report.dirs + report.symlinks + report.orphans;
        if on_medium != core.itable.used() {
            return Ok(Err(format!("{on_medium} inodes, memory says {}", core.itable.used())));
        }
        let compared = self
            .compare_free(&shadow)
            .and_then(|()| self.compare_shares(&shadow))
            .and_then(|()| core.store.pins.verify(&pins));
        if let Err(found) = compared {
            return Ok(Err(found));
        }
        for inode in core.cache.all() {
            if let Err(found) = verify_inode(&inode)? {
                return Ok(Err(format!("inode {}: {found}", inode.ino().0)));
            }
        }
        Ok(self.verify_pages())
    }

    /// Unused on the medium is free, in limbo or withheld in memory, and no page is two of these.
    fn compare_free(&self, shadow: &Store) -> Result<(), String> {
        let store = &self.core().store;
        let (free, limbo) = (store.free_pages(), store.limbo_pages());
        let withheld = store.quarantine.withheld();
        if shadow.free_pages() != free + limbo + withheld {
            let medium = shadow.free_pages();
            return Err(format!(
                "{medium} pages free, memory says {free}, {limbo} in limbo and {withheld} withheld"
            ));
        }
        let unused = shadow.free_extents();
        for extent in store.free_extents() {
            let end: DeviceOff = extent.start + extent.pages;
            let holds = unused
                .iter()
                .any(|whole| whole.start <= extent.start && end <= whole.start + whole.pages);
            if !holds {
                return Err(format!("pages {}..{end} are free in memory only", extent.start));
            }
            if store.quarantine.covers_any(extent) {
                return Err(format!("pages {}..{end} are free and in quarantine", extent.start));
            }
        }
        Ok(())
    }

    /// The trees on the medium refer to each page as often as memory says (I-17).
    fn compare_shares(&self, shadow: &Store) -> Result<(), String> {
        let counted = |store: &Store| store.shares.lock().counted().collect::<Vec<_>>();
        let (medium, memory) = (counted(shadow), counted(&self.core().store));
        match medium.iter().zip(&memory).find(|(found, said)| found != said) {
            Some((found, said)) => Err(format!("shared: {found:?}, memory says {said:?}")),
            None if medium.len() == memory.len() => Ok(()),
            None => Err(format!("{} shared extents, memory says {}", medium.len(), memory.len())),
        }
    }

    fn verify_pages(&self) -> Result<(), String> {
        for pgmap in self.core().store.device().pgmaps() {
            pgmap.verify()?;
        }
        Ok(())
    }
}

/// Compares an inode in memory with its record, its directory and its mapping.
fn verify_inode(inode: &Arc<Inode>) -> Result<Result<(), String>, FsError> {
    let node = inode.node();
    let state = node.read().clone();
    let record = node.core.itable.read(&node.core.store, node.ino)?;
    if !state.has_lazy_times && record != state.record.sealed() {
        return Ok(Err("the record in memory differs".to_owned()));
    }
    if node.kind == Kind::Dir && state.record.links.get() > 0 {
        let read = node.load_index(&state)?;
        let differs = node.index.read().as_ref().is_some_and(|index| !index.agrees_with(&read));
        if differs {
            return Ok(Err(format!("{} pages of names differ", to_u64(read.pages()))));
        }
    }
    Ok(inode.mapping().verify())
}
