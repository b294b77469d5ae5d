//! Memory that remembers what was made durable.

use std::os::fd::BorrowedFd;
use udax_mm::media::{FileMedia, Site};
use udax_mm::sync::atomic::{AtomicBool, Ordering};
use udax_mm::sync::{Arc, Mutex, mpsc};
use udax_mm::{Active, Media, MediaError, MediaFacts, Pages};

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Seen {
    /// First byte and length.
    Flush(u64, u64),
    Fence,
}

/// Memory that remembers flushes and fences, and can fail them. What was not flushed and then fenced
/// would be lost.
#[derive(Debug)]
pub(crate) struct Witness {
    memory: FileMedia,
    seen: Mutex<Vec<(Seen, Site)>>,
    pub(crate) fails_flush: AtomicBool,
    pub(crate) fails_fence: AtomicBool,
    /// What was flushed, as it was then, and where. Not fenced yet.
    on_the_way: Mutex<Vec<(u64, Vec<u8>)>>,
    durable: Mutex<Vec<u8>>,
    /// Stops the next fence: says that it was reached, and waits.
    gate: Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
}

impl Witness {
    pub(crate) fn new(pages: u64) -> Arc<Witness> {
        let memory = FileMedia::memfd("witness", Pages(pages).bytes());
        Arc::new(Witness {
            memory: memory.expect("memory for a test"),
            seen: Mutex::default(),
            fails_flush: AtomicBool::new(false),
            fails_fence: AtomicBool::new(false),
            on_the_way: Mutex::default(),
            durable: Mutex::new(vec![0; usize::try_from(Pages(pages).bytes()).expect("short")]),
            gate: Mutex::new(None),
        })
    }

    /// What a crash would leave of the byte.
    pub(crate) fn durable(&self, at: u64) -> u8 {
        self.durable.lock()[usize::try_from(at).expect("short")]
    }

    /// Stops the next fence. Returns who hears of it, and who lets it go on.
    pub(crate) fn stop_fence(&self) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (reached, is_reached) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        *self.gate.lock() = Some((reached, may_go_on));
        (is_reached, go_on)
    }

    pub(crate) fn take(&self) -> Vec<Seen> {
        self.take_sites().into_iter().map(|(seen, _)| seen).collect()
    }

    pub(crate) fn take_sites(&self) -> Vec<(Seen, Site)> {
        std::mem::take(&mut *self.seen.lock())
    }

    fn answer(&self, seen: Seen, site: Site, fails: &AtomicBool) -> Result<(), MediaError> {
        if fails.swap(false, Ordering::Relaxed) {
            return Err(MediaError::Fault { at: 0 });
        }
        self.seen.lock().push((seen, site));
        Ok(())
    }
}

impl Media for Witness {
    fn len(&self) -> u64 {
        self.memory.len()
    }

    fn facts(&self) -> MediaFacts {
        self.memory.facts()
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), MediaError> {
        self.memory.read(at, into)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), MediaError> {
        self.memory.write(at, bytes)
    }

    fn zero(&self, at: u64, len: u64) -> Result<(), MediaError> {
        self.memory.zero(at, len)
    }

    fn load_u64(&self, at: u64) -> Result<u64, MediaError> {
        self.memory.load_u64(at)
    }

    fn store_u64(&self, at: u64, value: u64) -> Result<(), MediaError> {
        self.memory.store_u64(at, value)
    }

    fn flush(&self, at: u64, len: u64, site: Site) -> Result<(), MediaError> {
        self.answer(Seen::Flush(at, len), site, &self.fails_flush)?;
        let mut bytes = vec![0; usize::try_from(len).expect("short")];
        self.memory.read(at, &mut bytes)?;
        self.on_the_way.lock().push((at, bytes));
        Ok(())
    }

    fn fence(&self, site: Site) -> Result<(), MediaError> {
        let flushed = std::mem::take(&mut *self.on_the_way.lock());
        let gate = self.gate.lock().take();
        if let Some((reached, may_go_on)) = gate {
            reached.send(()).expect("the test waits for it");
            may_go_on.recv().expect("the test lets it go on");
        }
        self.answer(Seen::Fence, site, &self.fails_fence)?;
        for (at, bytes) in flushed {
            let at = usize::try_from(at).expect("short");
            self.durable.lock()[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn backing(&self) -> Option<(BorrowedFd<'_>, u64)> {
        self.memory.backing()
    }

    fn active(&self) -> &Active {
        self.memory.active()
    }
}
