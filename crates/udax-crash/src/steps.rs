//! Operations that are several steps: after a crash inside one, a number of its steps is done.

use std::ops::Range;

use udax_mm::sync::Arc;

use crate::oracle::{Content, Node, Tree};
use crate::pages::{PAGE, PageId, touched};
use crate::workload::{Op, pattern};

/// Pages that one step of a clone takes over, where none of them is part of an aligned 2 MiB.
const CLONE_STEP: u64 = 1024;

impl Tree {
    /// The trees between this one and the one after `op`, of which a crash may leave any.
    pub fn between(&self, op: &Op) -> Vec<Arc<Tree>> {
        let mut tree = self.clone();
        let mut between = Vec::new();
        for step in self.steps(op) {
            if tree.apply(&step).is_err() {
                return Vec::new();
            }
            between.push(Arc::new(tree.clone()));
        }
        // The last one is the tree after the operation.
        between.pop();
        between
    }

    /// The steps of an operation.
    fn steps(&self, op: &Op) -> Vec<Op> {
        match op {
            Op::Write { path, at, len, fill } => {
                let bytes = pattern(*fill, *len);
                let part = |range: Range<u64>| Op::Bytes {
                    path: path.clone(),
                    at: range.start,
                    bytes: bytes[crate::oracle::index(range.start - at)
                        ..crate::oracle::index(range.end - at)]
                        .to_vec(),
                };
                self.write_steps(path, *at..at + len).into_iter().map(part).collect()
            }
            Op::Clone { source, from, to, path, at } => {
                let starts = (*from..*to).step_by(crate::oracle::index(CLONE_STEP * PAGE));
                let part = |start| Op::Clone {
                    source: source.clone(),
                    from: start,
                    to: (start + CLONE_STEP * PAGE).min(*to),
                    path: path.clone(),
                    at: at + (start - from),
                };
                starts.map(part).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The parts of a write that are done one after the other: each run of shared data is copied by
    /// itself.
    fn write_steps(&self, path: &str, range: Range<u64>) -> Vec<Range<u64>> {
        let copied = |number| self.copied_by_write(path, &range, number);
        let goes_on = |number: u64| match (copied(number - 1), copied(number)) {
            (Some(before), Some(after)) => after.follows(before),
            (None, None) => true,
            _ => false,
        };
        let mut steps: Vec<Range<u64>> = Vec::new();
        for number in touched(&range) {
            let end = range.end.min((number + 1) * PAGE);
            match steps.last_mut() {
                Some(step) if goes_on(number) => step.end = end,
                Some(step) => {
                    let start = step.end;
                    steps.push(start..end);
                }
                None => steps.push(range.start..end),
            }
        }
        steps
    }

    /// The shared page that a write to `range` copies at a number, if it does. The page in which a
    /// growing file ends is its own before.
    pub(crate) fn copied_by_write(
        &self,
        path: &str,
        range: &Range<u64>,
        number: u64,
    ) -> Option<PageId> {
        let id = self.resolve(path).ok()?;
        let Node { content: Content::File { data, pages }, .. } = self.node(id) else {
            return None;
        };
        let size = crate::oracle::byte_count(data);
        let is_tail = range.end > size && !size.is_multiple_of(PAGE) && number == size / PAGE;
        pages.id(number).filter(|page| !is_tail && self.shared_pages().contains(page))
    }
}
