//! Random operations on one file against a model of its bytes, with `verify` after each.
//!
//! A failing run names its seed; `check(SEED, ..)` repeats it.

mod common;

use common::witness::Witness;
use common::{PAGE, TestFile, fault_service, info, mode, range};
use udax_mapping::{PinnedFolios, Populate, UserMapping};
use udax_mm::sync::Arc;
use udax_mm::{Access, FileIndex, Pages, PinKind, Wait};

/// Pages that the file has at most. More than a block of 2 MiB, so that both orders occur.
const MAX_PAGES: u64 = 1100;
const STEPS: u32 = 400;
/// Pages of the device.
const BLOCKS: u64 = 4096;

/// What the first byte of each page is: holes and fresh pages are zero.
type Model = Vec<u8>;

struct Run {
    file: Arc<TestFile>,
    media: Arc<Witness>,
    model: Model,
    /// The page that was stored to last.
    stored: u64,
    how: Populate,
    mapped: Vec<UserMapping>,
    pins: Vec<Pinned>,
    random: Random,
}

struct Pinned {
    pin: PinnedFolios,
    /// The block of each page when it was pinned.
    blocks: Vec<Option<u64>>,
    /// What each page held when it was pinned or last stored to.
    held: Vec<u8>,
}

/// A small generator (xorshift64*), so that a seed means the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

fn check(seed: u64, how: Populate) {
    let pages = vec![None; 600];
    let service = match how {
        Populate::Lazy => match fault_service() {
            None => return,
            service => service,
        },
        Populate::Eager => None,
    };
    let media = Witness::new(BLOCKS);
    let file = TestFile::on(media.clone(), &pages, service);
    let (mapped, pins, random) = (Vec::new(), Vec::new(), Random(seed));
    let mut run = Run { file, media, model: vec![0; 600], stored: 0, how, mapped, pins, random };
    for step in 0..STEPS {
        let what = run.step();
        let checked = run.file.mapping.verify().and_then(|()| run.file.pgmap().verify());
        assert_eq!(checked, Ok(()), "seed {seed}, step {step}, {what}");
        run.compare(&format!("seed {seed}, step {step}, {what}"));
    }
    run.finish();
}

impl Run {
    fn step(&mut self) -> &'static str {
        match self.random.below(14) {
            0 => self.map(),
            1 => self.unmap(),
            2..=4 => self.store(),
            5 => self.pin(),
            6 => self.unpin(),
            7 => self.truncate(),
            8 => self.truncate_deferred(),
            9 => self.punch(),
            10 => self.grow(),
            11 => self.writeback(),
            12 => self.flush(),
            _ => self.allocate_run(),
        }
    }

    fn map(&mut self) -> &'static str {
        if self.mapped.len() == 4 {
            return "map: enough";
        }
        let from = self.random.below(MAX_PAGES - 1);
        // Half of the mappings start where a 2 MiB page can.
        let from = if self.random.below(2) == 0 { from & !511 } else { from };
        let pages = 1 + self.random.below(MAX_PAGES - from);
        // An eager mapping for writing would allocate every hole.
        let writes = self.how == Populate::Lazy && self.random.below(2) == 0;
        let access = if writes { Access::Write } else { Access::Read };
        let mapped = self.file.mapping.map(FileIndex(from), Pages(pages), mode(access, self.how));
        self.mapped.push(mapped.expect("mapping does not fail"));
        "map"
    }

    fn unmap(&mut self) -> &'static str {
        if !self.mapped.is_empty() {
            let which = self.random.below(u64::try_from(self.mapped.len()).expect("few"));
            self.mapped.swap_remove(to_usize(which));
        }
        "unmap"
    }

    fn store(&mut self) -> &'static str {
        let byte = u8::try_from(1 + self.random.below(255)).expect("a byte");
        let at = self.random.below(MAX_PAGES);
        for mapped in &self.mapped {
            let shown = mapped.range();
            if mapped.access() == Access::Write && shown.contains(&FileIndex(at)) {
                let stored = mapped.vma().write((at - shown.start.0) * PAGE, &[byte]);
                let page = self.model.get_mut(to_usize(at));
                assert_eq!(stored.is_ok(), page.is_some(), "page {at}");
                if let Some(page) = page {
                    *page = byte;
                    self.stored = at;
                    note_store(&mut self.pins, &self.file, at, byte);
                }
                return "store";
            }
        }
        "store: not mapped"
    }

    fn pin(&mut self) -> &'static str {
        let len = u64::try_from(self.model.len()).expect("short");
        if self.pins.len() == 6 || len == 0 {
            return "pin: enough";
        }
        let from = self.random.below(len);
        let end = (from + 1 + self.random.below(20)).min(len);
        let kind = if self.random.below(2) == 0 { PinKind::Read } else { PinKind::Write };
        let pin = self.file.mapping.pin(range(from, end), info("random", kind));
        let pin = pin.expect("there is space");
        let held = self.model[to_usize(from)..to_usize(end)].to_vec();
        let blocks = self.file.blocks()[to_usize(from)..to_usize(end)].to_vec();
        self.pins.push(Pinned { pin, blocks, held });
        "pin"
    }

    fn unpin(&mut self) -> &'static str {
        if !self.pins.is_empty() {
            let which = self.random.below(u64::try_from(self.pins.len()).expect("few"));
            self.pins.swap_remove(to_usize(which));
            self.file.collect_limbo();
        }
        "unpin"
    }

    fn truncate(&mut self) -> &'static str {
        let pages = to_usize(self.random.below(MAX_PAGES));
        if pages < self.model.len() && self.file.truncate(pages, Wait::Never).is_ok() {
            self.model.truncate(pages);
            return "truncate";
        }
        "truncate: pinned"
    }

    fn truncate_deferred(&mut self) -> &'static str {
        let pages = to_usize(self.random.below(MAX_PAGES));
        if pages < self.model.len() {
            self.file.truncate_deferred(pages).expect("a deferred truncate does not fail");
            self.model.truncate(pages);
        }
        "truncate deferred"
    }

    fn punch(&mut self) -> &'static str {
        let len = u64::try_from(self.model.len()).expect("short");
        if len == 0 {
            return "punch: empty";
        }
        let from = self.random.below(len);
        let end = (from + 1 + self.random.below(10)).min(len);
        if self.file.punch(range(from, end), Wait::Never).is_ok() {
            self.model[to_usize(from)..to_usize(end)].fill(0);
            return "punch";
        }
        "punch: pinned"
    }

    fn grow(&mut self) -> &'static str {
        let pages = to_usize(self.random.below(MAX_PAGES));
        if pages > self.model.len() {
            self.file.grow(pages);
            self.model.resize(pages, 0);
        }
        "grow"
    }

    /// Gives a run of holes adjacent blocks, as a large write does.
    fn allocate_run(&mut self) -> &'static str {
        let len = u64::try_from(self.model.len()).expect("short");
        let block = self.random.below(2) * 512;
        if block + 512 <= len && self.file.allocate_huge(block) {
            return "allocate a 2 MiB block";
        }
        if len > 0 {
            let at = self.random.below(len);
            self.file.allocate(at);
        }
        "allocate"
    }

    fn writeback(&mut self) -> &'static str {
        let from = self.random.below(MAX_PAGES);
        let end = from + 1 + self.random.below(MAX_PAGES - from);
        self.file.mapping.writeback(range(from, end)).expect("the medium works");
        self.check_durable(from, end);
        "writeback"
    }

    fn flush(&mut self) -> &'static str {
        let page = self.stored;
        self.file.mapping.flush(page * PAGE..page * PAGE + 1).expect("the medium works");
        self.check_durable(page, page + 1);
        "flush"
    }

    /// What was stored through mappings is durable (I-41). Zeros are the owner's.
    fn check_durable(&self, from: u64, end: u64) {
        let blocks = self.file.blocks();
        for page in from..end.min(count(self.model.len())) {
            if let (Some(block), stored @ 1..) =
                (blocks[to_usize(page)], self.model[to_usize(page)])
            {
                assert_eq!(self.media.durable(block * PAGE), stored, "I-41: page {page}");
            }
        }
    }

    /// Compares a few pages of every mapping, and all pinned bytes, with the model.
    fn compare(&mut self, when: &str) {
        for mapped in &self.mapped {
            let shown = mapped.range();
            for _ in 0..3 {
                let page = self.random.below(mapped.vma().pages().0);
                let mut byte = [0];
                let loaded = mapped.vma().read(page * PAGE, &mut byte).ok().map(|()| byte[0]);
                let expected = self.model.get(to_usize(shown.start.0 + page)).copied();
                assert_eq!(loaded, expected, "{when}: page {page} of {shown:?}");
            }
        }
        for Pinned { pin, held, .. } in &self.pins {
            for (page, expected) in held.iter().enumerate() {
                let mut byte = [0];
                let at = u64::try_from(page).expect("short") * PAGE;
                pin.read(at, &mut byte).expect("pinned bytes stay");
                assert_eq!(byte[0], *expected, "{when}: page {page} of pin {:?}", pin.range());
            }
        }
    }

    fn finish(mut self) {
        self.mapped.clear();
        self.pins.clear();
        self.file.collect_limbo();
        self.file.truncate(0, Wait::Never).expect("nobody is left");
        assert_eq!(count(self.file.free_blocks()), BLOCKS, "every block came back");
        self.file.verify();
    }
}

/// A store to the file is also one to the pinned page, if the file still has it.
fn note_store(pins: &mut [Pinned], file: &TestFile, at: u64, byte: u8) {
    let block = file.blocks()[to_usize(at)];
    for pinned in pins {
        let pages = pinned.pin.range();
        if pages.contains(&FileIndex(at)) {
            let slot = to_usize(at - pages.start.0);
            if pinned.blocks[slot] == block {
                pinned.held[slot] = byte;
            }
        }
    }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).expect("short")
}

fn to_usize(index: u64) -> usize {
    usize::try_from(index).expect("a test file is short")
}

#[test]
fn lazy_mappings_agree_with_the_model() {
    (1..=20).for_each(|seed| check(seed, Populate::Lazy));
}

#[test]
fn eager_mappings_agree_with_the_model() {
    (101..=115).for_each(|seed| check(seed, Populate::Eager));
}
