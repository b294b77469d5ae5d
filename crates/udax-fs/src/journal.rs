//! The redo journal: one transaction at a time.

/// The journal of a store.
#[derive(Debug)]
pub(crate) struct Journal;
