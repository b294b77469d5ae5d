//! Free pages whose memory failed: withheld from the free space until their marks go.
//!
//! This file owns their way out of the free space and back. They wait in limbo, where their page
//! map hands them over with the end of the mark. Nothing of this is on the medium: the next opening
//! starts from what its page maps know, and finds again what else fails.

use std::ops::Range;

use udax_mm::sync::{Arc, Weak};
use udax_mm::{DeviceOff, IdleSpan, LimboSink};

use crate::alloc::Extent;
use crate::limbo::Decided;
use crate::store::Store;
use crate::vacant::locate;

/// The sink of withheld pages. It does not keep the store, which has the page map that has the sink.
#[derive(Debug)]
struct Withheld {
    store: Weak<Store>,
}

impl LimboSink for Withheld {
    fn returned(&self, span: IdleSpan) {
        match self.store.upgrade() {
            Some(store) => store.returned(span),
            None => drop(span),
        }
    }
}

impl Store {
    /// Takes what is free of these failed pages out of the free space.
    pub(crate) fn withhold(self: &Arc<Store>, failed: &Range<DeviceOff>) {
        // What is allocated ahead is free, too, and claimed until it is given back.
        self.ahead.forget_all();
        let mut alloc = self.alloc.lock();
        let clip = |free: Extent| {
            Extent::of(free.start.0.max(failed.start.0)..free.end().0.min(failed.end.0))
        };
        let overlaps = |free: &Extent| free.start < failed.end && failed.start < free.end();
        let free: Vec<Extent> = alloc.extents().into_iter().filter(overlaps).map(clip).collect();
        for &extent in &free {
            alloc.reserve(extent).expect("it is free, and the lock is held");
        }
        drop(alloc);
        for extent in free {
            self.set_aside(extent);
        }
    }

    /// Keeps failed pages that nobody has out of the free space until their marks go; what is good
    /// of them is free at once.
    pub(crate) fn set_aside(&self, failed: Extent) {
        let sink: Arc<dyn LimboSink> = Arc::new(Withheld { store: Weak::clone(self.itself()) });
        let Range { mut start, end } = failed.range();
        while start < end {
            // Of a device that is gone nothing is free or not.
            let Ok(span) = self.span(Extent::of(start..end)) else { return };
            start += span.pages().0;
            // What somebody has claimed all the same stays out until the pool is opened again.
            let Ok((idle, marked)) = span.pgmap().claim_or_defer(span.range(), &sink) else {
                continue;
            };
            let good: Vec<(Extent, IdleSpan)> =
                idle.into_iter().flat_map(|span| locate(self, span)).collect();
            let (free, claims) = good.into_iter().unzip();
            self.let_go(Decided { claims, free });
            let marked = marked.into_iter();
            let marked: Vec<Extent> =
                marked.flat_map(|pages| self.extents_of(span.pgmap().pgmap(), pages)).collect();
            let decided = self.limbo.lock().free(&marked);
            self.let_go(decided);
        }
    }
}
