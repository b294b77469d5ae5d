//! A thread that is stopped where the mapping says what it does, for the tests of this crate.

use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Metadata, Subscriber};
use udax_mm::sync::{Mutex, OnceLock, mpsc};

/// Stops its thread at the first span or event of a name, until it may go on.
pub(crate) struct Pause {
    at: &'static str,
    reached: Mutex<Option<mpsc::Sender<()>>>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Subscriber for Pause {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "udax_mapping"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.reach(span.metadata().name());
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.reach(event.metadata().name());
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// While there is one subscriber alone, `tracing` asks the thread that comes to a place first whether it
/// listens, and believes that of all. So there is always another one.
static OTHER: OnceLock<Dispatch> = OnceLock::new();

/// Listens, and does nothing.
struct Deaf;

impl Subscriber for Deaf {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "udax_mapping"
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, _event: &Event<'_>) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

impl Pause {
    /// With who hears that it was reached, and who lets it go on.
    pub(crate) fn at(at: &'static str) -> (Pause, mpsc::Receiver<()>, mpsc::Sender<()>) {
        OTHER.get_or_init(|| Dispatch::new(Deaf));
        let (reached, is_reached) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let (reached, may_go_on) = (Mutex::new(Some(reached)), Mutex::new(may_go_on));
        (Pause { at, reached, go_on: may_go_on }, is_reached, go_on)
    }

    fn reach(&self, name: &str) {
        if name != self.at {
            return;
        }
        let reached = self.reached.lock().take();
        if let Some(reached) = reached {
            reached.send(()).unwrap();
            self.go_on.lock().recv().unwrap();
        }
    }
}
