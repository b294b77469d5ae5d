//! The logs of `log-writes` lines: files to which events go, one line each.
//!
//! A file has one log, whatever it is called in however many tables of a stack, and an event is
//! written at once. So events of several lines follow one another in it, each of them whole.

use std::collections::HashMap;
use std::fs::File as HostFile;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use udax_dev::EventSink;
use udax_mm::recorder::Event;
use udax_mm::sync::{Arc, Mutex};

/// The logs of a stack of tables.
#[derive(Debug, Default)]
pub(super) struct Logs {
    /// By the place of the file, which need not be there.
    logs: HashMap<PathBuf, Arc<EventLog>>,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error("the file is there and is no log of a log-writes line; give the log another name")]
    NoLog,
    #[error(transparent)]
    Host(#[from] io::Error),
}

/// A file to which events go. It is made by the first event.
#[derive(Debug)]
pub(super) struct EventLog {
    state: Mutex<LogState>,
}

#[derive(Debug)]
enum LogState {
    Unopened(PathBuf),
    Open(HostFile),
    /// An event could not be written, and nothing follows it.
    Ended,
}

impl Logs {
    /// The log at `path`.
    pub(super) fn log(&mut self, path: &Path) -> Result<Arc<EventLog>, LogError> {
        check_log(path)?;
        let place = place(path)?;
        let new = || Arc::new(EventLog { state: Mutex::new(LogState::Unopened(path.to_owned())) });
        Ok(Arc::clone(self.logs.entry(place).or_insert_with(new)))
    }
}

impl LogState {
    fn append(&mut self, event: Event) -> io::Result<()> {
        if let LogState::Unopened(path) = self {
            let file = HostFile::options().create(true).append(true).open(path)?;
            *self = LogState::Open(file);
        }
        match self {
            LogState::Open(file) => write_event(file, event),
            LogState::Unopened(_) | LogState::Ended => Ok(()),
        }
    }
}

impl EventSink for EventLog {
    fn record(&self, event: Event) {
        let mut state = self.state.lock();
        // A full disk must not stop the pool; the log ends where it could not go on.
        if let Err(error) = state.append(event) {
            tracing::warn!(%error, "the log of a log-writes line ends here");
            *state = LogState::Ended;
        }
    }
}

/// Writes a line at once, because another process may append to the file, too.
fn write_event(to: &mut impl Write, event: Event) -> io::Result<()> {
    to.write_all(format!("{event}\n").as_bytes())
}

/// Where the file is that `path` names, or will be when it is made.
fn place(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => (),
        found => return found,
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    match path.read_link() {
        // A link to what is not there yet. Links that go round were an error of another kind.
        Ok(to) => place(&dir.join(to)),
        Err(_) => Ok(dir.canonicalize()?.join(path.file_name().unwrap_or_default())),
    }
}

/// Refuses a log to which nothing may be appended: what is there already is no log.
fn check_log(path: &Path) -> Result<(), LogError> {
    let start = match HostFile::options().read(true).append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => {
            let mut start = Vec::new();
            file?.take(6).read_to_end(&mut start)?;
            start
        }
    };
    let is_log = [&b"store "[..], b"flush ", b"fence "].contains(&&start[..]);
    if start.is_empty() || is_log { Ok(()) } else { Err(LogError::NoLog) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// Whatever a log is called, its lines are written under one lock.
    #[test]
    fn a_file_has_one_log_by_all_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("tables")).unwrap();
        symlink("../a.log", at("tables/link")).unwrap();
        symlink("link", at("tables/second")).unwrap();
        let mut logs = Logs::default();
        let first = logs.log(&at("a.log")).unwrap();
        let mut same = || {
            let names = ["./a.log", "tables/../a.log", "tables/link", "tables/second"];
            names.into_iter().all(|name| Arc::ptr_eq(&first, &logs.log(&at(name)).unwrap()))
        };

        assert!(same(), "before it is there");
        first.record(Event::Store { at: 8, value: 1 });
        assert!(at("a.log").exists() && same(), "and when it is");

        assert!(!Arc::ptr_eq(&first, &logs.log(&at("b.log")).unwrap()));
        logs.log(&at("nowhere/a.log")).expect_err("there is no such directory");
    }

    /// Counts what is written, and takes all of it.
    #[derive(Default)]
    struct Writes(Vec<Vec<u8>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_write() {
        let mut writes = Writes::default();

        write_event(&mut writes, Event::Store { at: 16, value: 3 }).unwrap();

        assert_eq!(writes.0, [b"store 16 0x0000000000000003\n"]);
    }
}
