//! One attempt to leave word on the pages of a file that somebody uses.
//!
//! This file owns what comes back of the attempt before it is known whether it succeeded. The word
//! of an attempt that fails halfway is withdrawn; what came back before that is let go. Only what
//! comes back of a whole attempt reaches the store.

use udax_mm::sync::{Arc, Mutex};
use udax_mm::{IdleSpan, LimboSink};

use crate::store::Store;

/// See the module. The sink of one attempt.
///
/// Nothing is called while its lock is held.
#[derive(Debug)]
pub(crate) struct Deferral {
    store: Arc<Store>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Nobody knows; these came back.
    Running(Vec<IdleSpan>),
    Succeeded,
    Failed,
}

impl Deferral {
    /// An attempt that begins.
    pub(crate) fn new(store: &Arc<Store>) -> Arc<Deferral> {
        let state = Mutex::new(State::Running(Vec::new()));
        Arc::new(Deferral { store: Arc::clone(store), state })
    }

    /// The store decides what becomes of the pages.
    pub(crate) fn succeed(&self) {
        for span in self.end(State::Succeeded) {
            self.store.returned(span);
        }
    }

    /// The pages stay with their file.
    pub(crate) fn fail(&self) {
        drop(self.end(State::Failed));
    }

    fn end(&self, state: State) -> Vec<IdleSpan> {
        match std::mem::replace(&mut *self.state.lock(), state) {
            State::Running(spans) => spans,
            State::Succeeded | State::Failed => Vec::new(),
        }
    }
}

impl LimboSink for Deferral {
    fn returned(&self, span: IdleSpan) {
        let mut state = self.state.lock();
        match &mut *state {
            State::Running(spans) => spans.push(span),
            State::Succeeded => {
                drop(state);
                self.store.returned(span);
            }
            // Let go after the lock.
            State::Failed => drop(state),
        }
    }
}
