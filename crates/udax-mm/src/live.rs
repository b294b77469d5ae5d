//! Whether a page map is live, and the wait for the last one who relies on it.
//!
//! The protocol of rule 3: a live reference is a shared [`Token`]; taking one and the end of the
//! page map are decided under one lock, so there is no moment between the check and the get (T-2).

use crate::pgmap::Pgmap;
use crate::sync::{Arc, Condvar, Mutex, Weak};
use crate::wait::Wait;
use std::time::Instant;

/// The state of one page map: I-01, Live -> Dying -> Dead.
#[derive(Debug)]
pub(crate) struct Live {
    state: Mutex<State>,
    drained: Condvar,
}

/// Keeps a page map from being dead. Shared by all references that were taken while one of them
/// existed, so that a clone costs one step.
pub(crate) struct Token {
    pgmap: Pgmap,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    tokens: u64,
    current: Weak<Token>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Live,
    /// No token is given out; those given out still count.
    Dying,
    Dead,
}

impl Live {
    pub(crate) fn new() -> Live {
        let state = State { phase: Phase::Live, tokens: 0, current: Weak::new() };
        Live { state: Mutex::new(state), drained: Condvar::new() }
    }

    /// A live reference of `pgmap`, whose state this is. None from `kill` onward (I-02).
    pub(crate) fn try_get(&self, pgmap: &Pgmap) -> Option<Arc<Token>> {
        let mut state = self.state.lock();
        if state.phase != Phase::Live {
            return None;
        }
        if let Some(token) = state.current.upgrade() {
            return Some(token);
        }
        let token = Arc::new(Token { pgmap: pgmap.clone() });
        state.current = Arc::downgrade(&token);
        state.tokens += 1;
        Some(token)
    }

    /// Refuses further tokens and waits until the last one is gone. Returns whether it is.
    pub(crate) fn kill(&self, wait: Wait) -> bool {
        let mut state = self.state.lock();
        if state.phase == Phase::Live {
            state.phase = Phase::Dying;
            state.die_if_drained();
        }
        while state.phase != Phase::Dead {
            state = match wait {
                Wait::Never => return false,
                Wait::Until(deadline) if Instant::now() >= deadline => return false,
                Wait::Until(deadline) => self.drained.wait_until(state, deadline).0,
                Wait::Forever => self.drained.wait(state),
            };
        }
        true
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state.lock().phase == Phase::Dead
    }

    fn token_dropped(&self) {
        let mut state = self.state.lock();
        state.tokens -= 1;
        if state.die_if_drained() {
            self.drained.notify_all();
        }
    }
}

impl State {
    fn die_if_drained(&mut self) -> bool {
        let drained = self.phase == Phase::Dying && self.tokens == 0;
        if drained {
            self.phase = Phase::Dead;
        }
        drained
    }
}

impl Token {
    pub(crate) fn pgmap(&self) -> &Pgmap {
        &self.pgmap
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.pgmap.live().token_dropped();
    }
}
