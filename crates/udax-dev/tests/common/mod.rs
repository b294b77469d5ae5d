//! Devices for the tests: page maps over anonymous memory, and a medium that remembers what was
//! flushed.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::panic::Location;
use udax_dev::{DaxDevice, PgmapDevice};
use udax_mm::media::{FileMedia, Site};
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{Active, Media, MediaError, MediaFacts, MediaRange, MemoryType, Pages, Pgmap};

pub fn memory(pages: u64) -> Arc<dyn Media> {
    Arc::new(FileMedia::memfd("test", Pages(pages).bytes()).expect("memory for a test"))
}

/// A page map over one memory for each number of pages.
pub fn pgmap(sizes: &[u64]) -> Pgmap {
    let range = |&pages: &u64| MediaRange { media: memory(pages), start: 0, pages: Pages(pages) };
    Pgmap::new(sizes.iter().map(range).collect(), MemoryType::FsDax).expect("memory for a test")
}

pub fn device(pages: u64) -> Arc<dyn DaxDevice> {
    Arc::new(PgmapDevice::new(pgmap(&[pages])))
}

/// A flush of a byte range, or a fence, with the line that asked for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Seen {
    Flush(u64, u64, &'static Location<'static>),
    Fence(&'static Location<'static>),
}

/// Memory that remembers flushes and fences.
#[derive(Debug)]
pub struct Witness {
    memory: FileMedia,
    facts: MediaFacts,
    seen: Mutex<Vec<Seen>>,
}

impl Witness {
    pub fn new(pages: u64) -> Arc<Witness> {
        let memory = FileMedia::memfd("witness", Pages(pages).bytes()).expect("memory for a test");
        let facts = memory.facts();
        Arc::new(Witness { memory, facts, seen: Mutex::default() })
    }

    pub fn with_facts(pages: u64, change: impl FnOnce(&mut MediaFacts)) -> Arc<Witness> {
        let memory = FileMedia::memfd("witness", Pages(pages).bytes()).expect("memory for a test");
        let mut facts = memory.facts();
        change(&mut facts);
        Arc::new(Witness { memory, facts, seen: Mutex::default() })
    }

    pub fn device(self: &Arc<Self>) -> Arc<dyn DaxDevice> {
        let pages = Pages::holding(self.memory.len());
        let range = MediaRange { media: self.clone(), start: 0, pages };
        Arc::new(PgmapDevice::new(
            Pgmap::new(vec![range], MemoryType::FsDax).expect("memory for a test"),
        ))
    }

    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock())
    }
}

impl Media for Witness {
    fn len(&self) -> u64 {
        self.memory.len()
    }

    fn facts(&self) -> MediaFacts {
        self.facts
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
        self.seen.lock().push(Seen::Flush(at, len, site));
        Ok(())
    }

    fn fence(&self, site: Site) -> Result<(), MediaError> {
        self.seen.lock().push(Seen::Fence(site));
        Ok(())
    }

    fn active(&self) -> &Active {
        self.memory.active()
    }
}
