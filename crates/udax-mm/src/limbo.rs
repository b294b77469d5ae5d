//! Limbo: pages that are free already for their owner, and still in use by somebody else.
use crate::IdleSpan;
/// Takes pages back with their last put. Called without any lock of this crate held; must not block.
pub trait LimboSink: Send + Sync {
    /// The pages are idle and claimed.
    fn returned(&self, span: IdleSpan);
}
