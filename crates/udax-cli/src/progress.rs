//! A bar for copies that last: shown after a second, and only where stderr is a terminal.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long a copy may last before it shows a bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// The progress of one copy.
pub(crate) struct Progress {
    bar: ProgressBar,
    state: State,
}

enum State {
    /// stderr is no terminal.
    Never,
    /// The bar is not worth showing before this moment.
    From(Instant),
    Shown,
}

impl Progress {
    /// Starts; nothing is shown yet.
    pub(crate) fn start() -> Progress {
        let state = if io::stderr().is_terminal() {
            State::From(Instant::now() + PATIENCE)
        } else {
            State::Never
        };
        Progress { bar: ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()), state }
    }

    /// Whether somebody may see it, so that counting the whole in advance is worth the time.
    pub(crate) fn is_visible(&self) -> bool {
        !matches!(self.state, State::Never)
    }

    /// Says how many bytes there are in all.
    pub(crate) fn expect(&self, bytes: u64) {
        self.bar.set_length(bytes);
    }

    /// Counts `bytes` more as copied.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.bar.inc(bytes);
        if let State::From(moment) = self.state
            && Instant::now() >= moment
        {
            self.state = State::Shown;
            self.show();
        }
    }

    /// Writes a line above the bar, to stderr.
    pub(crate) fn note(&self, text: &str) {
        self.bar.suspend(|| crate::output::note(text));
    }

    fn show(&self) {
        let template = "{bytes:>10} of {total_bytes} [{bar:30}] {binary_bytes_per_sec}, {eta} left";
        let style = ProgressStyle::with_template(template).expect("the template is well-formed");
        self.bar.set_style(style.progress_chars("=> "));
        self.bar.set_draw_target(ProgressDrawTarget::stderr());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
