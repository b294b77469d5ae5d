//! Ctrl-C, SIGTERM and SIGHUP: the first asks for a clean end, the second ends at once.

use anyhow::Context;
use udax_mm::sync::{Arc, Condvar, Mutex};

/// Whether somebody asked for an end.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<Signal>);

#[derive(Debug)]
struct Signal {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Interrupt {
    /// Takes over the signals of the process; once in its life.
    ///
    /// # Errors
    ///
    /// Returns the error of the host if the handler cannot be installed.
    pub(crate) fn install() -> anyhow::Result<Interrupt> {
        let interrupt =
            Interrupt(Arc::new(Signal { is_set: Mutex::new(false), changed: Condvar::new() }));
        let handler = interrupt.clone();
        ctrlc::set_handler(move || handler.raise()).context("cannot handle Ctrl-C")?;
        Ok(interrupt)
    }

    /// One that was asked for.
    #[cfg(test)]
    pub(crate) fn raised() -> Interrupt {
        Interrupt(Arc::new(Signal { is_set: Mutex::new(true), changed: Condvar::new() }))
    }

    /// Whether the end was asked for.
    pub(crate) fn is_set(&self) -> bool {
        *self.0.is_set.lock()
    }

    /// Waits for it.
    ///
    /// # Blocking
    ///
    /// Returns when a signal came, or at once if one came before.
    pub(crate) fn wait(&self) {
        let mut is_set = self.0.is_set.lock();
        while !*is_set {
            is_set = self.0.changed.wait(is_set);
        }
    }

    fn raise(&self) {
        let was_set = std::mem::replace(&mut *self.0.is_set.lock(), true);
        if was_set {
            // Safe at any instruction: the pool recovers when it is opened again.
            crate::output::note("stopped at once; the pool recovers when it is next opened");
            std::process::exit(1);
        }
        self.0.changed.notify_all();
    }
}
