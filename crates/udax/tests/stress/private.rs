//! What one thread stores to private mappings: copies that only they show.

use crate::actor::{Actor, Done, ensure, may_fail};
use crate::known::Rules;
use crate::model::{Cells, PAGE, THREADS, us};
use crate::world::{Mapped, Shared};
use std::collections::BTreeMap;
use std::ops::Range;
use udax_mm::sync::Arc;

/// What this thread has stored to a private mapping.
#[derive(Default)]
pub(crate) struct Private {
    /// Which one.
    pub(crate) mapped: Option<Arc<Mapped>>,
    /// Own bytes of pages that were stored to.
    bytes: BTreeMap<u64, Option<u8>>,
}

impl Actor {
    pub(crate) fn private_store(
        &mut self,
        shared: &Shared,
        mapped: &Arc<Mapped>,
        at: &Range<u64>,
    ) -> Done {
        if at.start / PAGE % THREADS != self.thread {
            return Ok(());
        }
        let is_known = self.private.mapped.as_ref().is_some_and(|known| Arc::ptr_eq(known, mapped));
        if !is_known {
            self.private = Private { mapped: Some(Arc::clone(mapped)), bytes: BTreeMap::new() };
        }
        let bytes = self.rng.bytes(at.end - at.start);
        let done = mapped.map.write(&bytes, at.start - mapped.start);
        let page = at.start / PAGE;
        let is_open = is_open(&shared.rules, mapped.file, page);
        // The first store copies the page.
        if !self.private.bytes.contains_key(&Cells::cell(self.thread, page * PAGE)) {
            let of_file = self.known.file(mapped.file);
            for place in of_file.own(page * PAGE..(page + 1) * PAGE) {
                self.private.bytes.insert(place, self.known.get(mapped.file, place));
            }
        }
        if is_open || done.is_err() {
            self.private.forget(|other| other == page);
            return done.or_else(|error| may_fail(shared, mapped, at, &error));
        }
        self.private.bytes.extend((at.start..).zip(bytes.into_iter().map(Some)));
        Ok(())
    }

    pub(crate) fn private_load(
        &mut self,
        shared: &Shared,
        mapped: &Arc<Mapped>,
        at: &Range<u64>,
    ) -> Done {
        if at.start / PAGE % THREADS != self.thread {
            return Ok(());
        }
        let mut bytes = vec![0; us(at.end - at.start)];
        if let Err(error) = mapped.map.read(&mut bytes, at.start - mapped.start) {
            return may_fail(shared, mapped, at, &error);
        }
        let is_known = self.private.mapped.as_ref().is_some_and(|known| Arc::ptr_eq(known, mapped));
        if !is_known || is_open(&shared.rules, mapped.file, at.start / PAGE) {
            // Not copied, or not known whether.
            return Ok(());
        }
        for (place, &byte) in (at.start..).zip(&bytes) {
            let expected = self.private.bytes.get(&place).copied().flatten();
            let is_right = expected.is_none_or(|expected| expected == byte);
            ensure(is_right, || format!("private byte {place} is {byte}, not {expected:?}"))?;
        }
        Ok(())
    }
}

impl Private {
    /// Forgets what is known of some pages that were stored to. They may be copies still, or not any
    /// more.
    pub(crate) fn forget(&mut self, is_forgotten: impl Fn(u64) -> bool) {
        for (place, byte) in &mut self.bytes {
            if is_forgotten(place / PAGE) {
                *byte = None;
            }
        }
    }
}

/// Whether a page may become another one in this round, or get other bytes.
pub(crate) fn is_open(rules: &Rules, file: usize, page: u64) -> bool {
    let zone = &rules.zones[file];
    let is_target = rules.flows.leads_to((file, page));
    is_target || zone.pages.contains(&page) || zone.failing.contains(&page)
}
