//! The pool, its two files and three mappings, and what is done between rounds.

use crate::actor::{Actor, may_be_lost};
use crate::cold::{COLD_PAGES, Cold};
use crate::failing::{Failing, good_parts, shared};
use crate::flow::{Flows, Tick};
use crate::known::Rules;
use crate::model::{COLD, Cells, FILES, PAGE, PAGES, THREADS, Zone, count, us};
use crate::rng::Rng;
use crate::watch::Watch;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::thread;
use udax::{
    Access, Error, ErrorKind, File, MapOptions, Mapping, OpenOptions, Order, Pool, Populate, Wait,
};
use udax_mm::sync::{Arc, RwLock};

/// Bytes of the pool.
const SIZE: u64 = 64 << 20;

/// The files.
const NAMES: [&str; FILES] = ["/a", "/b", "/c"];

/// Operations of one thread in one round.
const ROUND: u64 = 250;

/// The kinds of mappings, one at a time of each.
pub(crate) const SLOTS: usize = 3;

/// What every thread sees.
pub(crate) struct Shared {
    pub(crate) files: [File; FILES],
    /// What may happen to them in this round.
    pub(crate) rules: Rules,
    pub(crate) cold: Cold,
    pub(crate) failing: Failing,
    slots: [RwLock<Arc<Mapped>>; SLOTS],
}

/// A mapping, and what it shows.
pub(crate) struct Mapped {
    pub(crate) map: Mapping,
    pub(crate) file: usize,
    /// First byte of the file.
    pub(crate) start: u64,
    pub(crate) can_store: bool,
    pub(crate) is_private: bool,
    /// It is shown by 2 MiB or not at all.
    pub(crate) has_floor: bool,
}

/// The file and the range that could not be mapped.
type Refused = (usize, Range<u64>, Error);

pub(crate) struct World {
    // In the order of their end: nothing of the pool outlives it.
    actors: Vec<Actor>,
    shared: Shared,
    pool: Pool,
    rng: Rng,
    watch: Watch,
    rounds: u64,
    clones: u64,
    /// What an empty pool has.
    free: u64,
    /// What the files hold, and what a mapping shows: kept, as they are large and needed often.
    buffers: [Vec<u8>; FILES],
    shown: Vec<u8>,
}

impl Shared {
    pub(crate) fn mapped(&self, slot: usize) -> Arc<Mapped> {
        Arc::clone(&self.slots[slot].read())
    }

    /// The moment at which something begins.
    pub(crate) fn now(&self) -> Tick {
        self.rules.flows.now()
    }

    /// Maps something else in the place of a mapping, which ends with its last user.
    /// An eager one of memory that may have failed may be refused, and leaves the other.
    pub(crate) fn remap(&self, slot: usize, rng: &mut Rng) -> Result<(), String> {
        let mapped = match Mapped::new(&self.files, slot, rng) {
            Ok(mapped) => Arc::new(mapped),
            Err((_, _, error)) if error.kind() == ErrorKind::TooFragmented => return Ok(()),
            Err((file, range, error)) => {
                return may_be_lost(&self.rules.zones[file], &range, &error);
            }
        };
        let before = std::mem::replace(&mut *self.slots[slot].write(), mapped);
        drop(before);
        Ok(())
    }
}

impl Mapped {
    fn new(files: &[File; FILES], slot: usize, rng: &mut Rng) -> Result<Mapped, Refused> {
        let file = rng.index(2);
        let start = if rng.once_in(2) { 0 } else { rng.below(20) * PAGE };
        let pages = if rng.once_in(2) { PAGES } else { 1 + rng.below(60) };
        let range = start..(start + pages * PAGE).min(PAGES * PAGE);
        let has_floor = slot == 2 && rng.once_in(3);
        let (range, options) = if has_floor {
            let blocks = Order::Pmd.pages().bytes();
            (0..blocks * (1 + rng.below(2)), MapOptions::new().floor(Order::Pmd))
        } else {
            (range, MapOptions::new())
        };
        let is_drawn = rng.once_in(2);
        let (options, can_store, is_private) = match slot {
            0 => (options.access(Access::Write), true, false),
            1 if is_drawn => (options.access(Access::Write).private(), true, true),
            1 => (options, false, false),
            _ if is_drawn => (options.access(Access::Write).populate(Populate::Eager), true, false),
            _ => (options.populate(Populate::Eager), false, false),
        };
        let map = files[file].map(range.clone(), &options);
        let map = map.map_err(|error| (file, range.clone(), error))?;
        Ok(Mapped { map, file, start: range.start, can_store, is_private, has_floor })
    }

    pub(crate) fn is_eager(&self) -> bool {
        self.map.faulting() == Populate::Eager
    }

    /// The bytes of the file that it shows.
    pub(crate) fn range(&self) -> Range<u64> {
        self.start..self.start + self.map.len()
    }
}

impl World {
    pub(crate) fn new(mut rng: Rng) -> World {
        let pool = Pool::create_in_memory("stress", SIZE).unwrap();
        // The directory keeps the room for its names.
        for name in NAMES {
            pool.write(name, b"").unwrap();
        }
        for name in NAMES {
            pool.remove_file(name).unwrap();
        }
        let free = pool.usage().free.0;
        let files = [0, 1, COLD].map(|file| create(&pool, file));
        // A floor may be refused.
        let mut map = |slot| (0..).find_map(|_| Mapped::new(&files, slot, &mut rng).ok()).unwrap();
        let slots = std::array::from_fn(|slot| RwLock::new(Arc::new(map(slot))));
        let failing = Failing::new(&pool);
        let shared =
            Shared { files, rules: Rules::default(), cold: Cold::default(), failing, slots };
        if shared.mapped(0).is_eager() {
            crate::watch::skipped("lazy mappings: userfaultfd is not permitted, all are eager");
        }
        let actors = (0..THREADS).map(|thread| Actor::new(thread, Rng::new(rng.next()))).collect();
        let buffer = || Vec::with_capacity(us(PAGES * PAGE));
        let (watch, buffers, shown) = (Watch::new(), [(); FILES].map(|()| buffer()), buffer());
        World { actors, shared, pool, rng, watch, rounds: 0, clones: 0, free, buffers, shown }
    }

    /// How many operations were done.
    pub(crate) fn steps(&self) -> u64 {
        self.rounds * ROUND * THREADS
    }

    /// Lets every thread work for a while, and checks everything.
    pub(crate) fn round(&mut self) {
        if self.rng.once_in(3) {
            self.share();
        }
        if self.rng.once_in(4) {
            self.shared.failing.fail_at_rest(&self.shared.files, &mut self.rng);
            self.verify();
            self.compare();
        }
        if self.shared.cold.is_frozen() && !self.rng.once_in(3) {
            self.thaw();
        }
        self.draw_rules();
        let shared = &self.shared;
        for actor in &mut self.actors {
            actor.begin(shared);
        }
        let round = self.rounds;
        thread::scope(|scope| {
            for actor in &mut self.actors {
                scope.spawn(move || (0..ROUND).for_each(|step| actor.step(shared, round, step)));
            }
        });
        self.shared.failing.settle(self.rounds);
        self.rounds += 1;
        self.verify();
        self.compare();
        self.shared.rules.flows = Flows::default();
        self.actors.iter_mut().for_each(|actor| actor.known.settle());
        if self.rng.once_in(4) {
            self.shared.failing.mend(&self.shared.files);
        }
        self.watch.sample();
    }

    /// Gives everything back, finds that nothing is missing, and says what was done.
    pub(crate) fn finish(mut self) -> String {
        let mut counts = BTreeMap::new();
        for actor in &mut self.actors {
            actor.let_go();
            for (word, times) in actor.counts() {
                *counts.entry(word).or_insert(0) += times;
            }
        }
        self.verify();
        let World { actors, shared, pool, watch, rounds, clones, free, .. } = self;
        let Shared { files, mut failing, slots, .. } = shared;
        drop((actors, files, slots));
        for name in NAMES {
            pool.remove_file(name).unwrap();
        }
        failing.mend(&[]);
        let told = failing.told();
        drop(failing);
        pool.sync().unwrap();
        assert_eq!(pool.verify(), Ok(()));
        let usage = pool.usage();
        assert_eq!((usage.free.0, usage.limbo.0), (free, 0), "all pages came back");
        pool.close().unwrap();
        let grown = watch.check().unwrap_or_else(|grown| panic!("after {rounds} rounds: {grown}"));
        let counts: Vec<_> = counts.iter().map(|(word, times)| format!("{word} {times}")).collect();
        format!("{rounds} rounds: {}, {clones} clones at rest\n{told}\n{grown}", counts.join(", "))
    }

    fn verify(&self) {
        let round = self.rounds;
        assert_eq!(self.pool.verify(), Ok(()), "after round {round}: {:?}", self.shared.rules);
    }

    /// Puts another file in the place of the frozen one.
    fn thaw(&mut self) {
        self.actors.iter_mut().for_each(Actor::let_cold_go);
        self.pool.remove_file(NAMES[COLD]).unwrap();
        self.shared.files[COLD] = create(&self.pool, COLD);
        self.shared.cold = Cold::default();
    }

    /// Gives one file pages of the other, or of itself, which they share until somebody stores.
    fn share(&mut self) {
        if self.rng.once_in(2) {
            // A pin is in the way of most of it.
            self.actors.iter_mut().for_each(Actor::unpin_all);
        }
        let (from, to) = (self.rng.index(2), self.rng.index(2));
        let files = &self.shared.files;
        let pages = |file: &File| file.metadata().len() / PAGE;
        let large = self.rng.once_in(3);
        let len = if large { Order::Pmd.pages().0 } else { 1 + self.rng.below(12) };
        let room = pages(&files[from]).min(pages(&files[to]));
        if room < len {
            return;
        }
        let near = (room - len + 1).min(if large { room } else { crate::model::NEAR });
        let (start, at) = (self.rng.below(near) * PAGE, self.rng.below(near) * PAGE);
        let len = len * PAGE;
        if from == to && start < at + len && at < start + len {
            return;
        }
        match files[from].clone_range(start..start + len, &files[to], at, Wait::Never) {
            Ok(cloned) => assert_eq!(cloned, len),
            Err(error) if error.kind() == ErrorKind::Pinned => return,
            Err(error) => panic!("round {}: {error}", self.rounds),
        }
        self.clones += 1;
        let bad = self.shared.failing.bad_pages(&files[from]);
        let pages = start / PAGE..(start + len) / PAGE;
        let bad = bad.range(pages).map(|page| page - start / PAGE).collect();
        let (mut bytes, good) = (vec![0; us(len)], good_parts(len, &bad));
        for part in &good {
            let into = &mut bytes[us(part.start)..us(part.end)];
            files[from].read_exact_at(into, start + part.start).unwrap();
        }
        for actor in &mut self.actors {
            actor.shared(to, at, &bytes, &good);
        }
        self.verify();
        self.compare();
    }

    /// Compares every way to the bytes of each file with what the threads know.
    fn compare(&mut self) {
        let mut buffers = std::mem::take(&mut self.buffers);
        let mut shown = std::mem::take(&mut self.shown);
        let bad = [0, 1, COLD].map(|file| self.read(file, &mut buffers[file]));
        let found = buffers.iter().zip(&bad);
        let (rules, round) = (&self.shared.rules, self.rounds);
        for (file, (bytes, bad)) in found.clone().enumerate() {
            for actor in &self.actors {
                let checked = actor.check_targets(rules, file, bytes, bad);
                checked.unwrap_or_else(|why| panic!("round {round}, file {file}: {why}"));
            }
        }
        for (at, (bytes, bad)) in found.enumerate() {
            for actor in &mut self.actors {
                let checked = actor.check(rules, at, bytes, bad);
                checked.unwrap_or_else(|why| panic!("round {round}, file {at}: {why}"));
                actor.check_pins(at, &self.shared.files[at], bytes, bad, round);
            }
            for mapped in (0..SLOTS).map(|slot| self.shared.mapped(slot)) {
                if mapped.file == at && !mapped.is_private {
                    self.compare_mapped(&mapped, bytes, bad, &mut shown);
                }
            }
        }
        (self.buffers, self.shown) = (buffers, shown);
    }

    /// Reads what a file holds. Returns which of its pages are bad, as it says itself.
    fn read(&self, at: usize, bytes: &mut Vec<u8>) -> BTreeSet<u64> {
        let file = &self.shared.files[at];
        let len = file.metadata().len();
        let bad = self.shared.failing.bad_pages(file);
        bytes.clear();
        bytes.resize(us(len), 0xee);
        for part in good_parts(len, &bad) {
            let into = &mut bytes[us(part.start)..us(part.end)];
            assert_eq!(file.read_at(into, part.start).unwrap(), us(part.end - part.start));
        }
        for page in &bad {
            let read = file.read_at(&mut [0], page * PAGE);
            let is_told = read.as_ref().is_err_and(|error| error.kind() == ErrorKind::Media);
            assert!(is_told, "round {}, file {at}: bad page {page}: {read:?}", self.rounds);
        }
        bad
    }

    fn compare_mapped(
        &self,
        mapped: &Mapped,
        bytes: &[u8],
        bad: &BTreeSet<u64>,
        shown: &mut Vec<u8>,
    ) {
        let range = mapped.range();
        let end = range.end.min(count(bytes.len())).max(range.start);
        let pages = range.start / PAGE..end.div_ceil(PAGE);
        for page in bad.range(pages) {
            let read = mapped.map.read(&mut [0], page * PAGE - range.start);
            let is_told = read.as_ref().is_err_and(|error| error.kind() == ErrorKind::Media);
            let (round, file, is_eager) = (self.rounds, mapped.file, mapped.is_eager());
            assert!(
                is_told,
                "round {round}, file {file}: bad page {page} shows as {read:?} (eager: {is_eager})"
            );
        }
        for part in good_parts(end, bad) {
            let part = part.start.max(range.start)..part.end;
            if part.start < part.end {
                self.compare_part(mapped, &part, bytes, shown);
            }
        }
        if end < range.end {
            let mut byte = [0];
            let (len, is_eager) = (bytes.len(), mapped.is_eager());
            let behind = count(len).next_multiple_of(PAGE).max(range.start);
            if behind >= range.end {
                return;
            }
            let read = mapped.map.read(&mut byte, behind - range.start);
            assert!(
                read.is_err(),
                "round {}, file {} of {len} bytes, mapped {range:?}: {byte:?} is shown past the end \
                 (eager: {is_eager}, stores: {})",
                self.rounds,
                mapped.file,
                mapped.can_store
            );
        }
    }

    fn compare_part(&self, mapped: &Mapped, part: &Range<u64>, bytes: &[u8], shown: &mut Vec<u8>) {
        shown.clear();
        shown.resize(us(part.end - part.start), 0);
        let read = mapped.map.read(&mut shown[..], part.start - mapped.start);
        let why = || mapped.map.last_fault_error();
        if read.is_err() && mapped.has_floor && part.end - part.start > PAGE {
            let pages = part.start / PAGE..part.end.div_ceil(PAGE);
            let page = |page| page * PAGE..part.end.min((page + 1) * PAGE);
            return pages.for_each(|at| self.compare_part(mapped, &page(at), bytes, shown));
        }
        if read.is_err() && mapped.has_floor && why().is_some() {
            // It cannot be shown by folios that large.
            return;
        }
        if read.is_err() {
            let touch = |page| mapped.map.read(&mut [0], page * PAGE - mapped.start);
            let pages = part.start / PAGE..part.end.div_ceil(PAGE);
            let lost: Vec<_> = pages.filter(|&page| touch(page).is_err()).collect();
            let (file, is_eager, why) = (mapped.file, mapped.is_eager(), why());
            let touched = lost.first().map(|&page| touch(page));
            panic!(
                "round {}, file {file}: pages {lost:?} show as {read:?} (eager: {is_eager}, stores: \
                 {}, floor: {}): {why:?}, again {touched:?}; {:?}; {:?}",
                self.rounds,
                mapped.can_store,
                mapped.has_floor,
                self.shared.rules,
                self.shared.files[file].extents().unwrap(),
            );
        }
        let wanted = &bytes[us(part.start)..us(part.end)];
        if let Some(place) = shown.iter().zip(wanted).position(|(found, wanted)| found != wanted) {
            let (byte, is_eager) = (part.start + count(place), mapped.is_eager());
            panic!(
                "round {}, file {}: byte {byte} (page {}) is {} and shows as {} (eager: {is_eager})",
                self.rounds,
                mapped.file,
                byte / PAGE,
                wanted[place],
                shown[place]
            );
        }
    }

    /// What may happen to the files next.
    fn draw_rules(&mut self) {
        let mut zones = [self.draw_layout(0), self.draw_layout(1), Zone::default()];
        let ends = [0, 1, COLD].map(|file| {
            let len = self.shared.files[file].metadata().len() / PAGE;
            if zones[file].is_tail { PAGES } else { len }
        });
        let flows = Flows::draw(&ends, &mut self.rng);
        // No thread stores it.
        let fill = 0x80 | u8::try_from(self.rng.below(0x40)).unwrap() << 1;
        let Shared { files, failing, .. } = &mut self.shared;
        let drawn = failing.draw(files, &flows, &mut self.rng);
        for (at, failing) in drawn.into_iter().enumerate() {
            let mut shared = shared(&files[at]);
            shared.extend(flows.touch(at));
            zones[at] = Zone { failing, fill, shared, ..zones[at].clone() };
        }
        self.shared.rules = Rules { zones, flows };
    }

    /// Where the layout of a file may change next.
    fn draw_layout(&mut self, file: usize) -> Zone {
        let len = self.shared.files[file].metadata().len() / PAGE;
        let start = if self.rng.once_in(2) { self.rng.below(PAGES) } else { self.rng.below(40) };
        let large = Order::Pmd.pages().0;
        let (pages, is_tail) = match self.rng.below(6) {
            0 => (0..0, false),
            // What lies between the end of the file and the zone would come into it with any growth.
            1 => (start.min(len)..PAGES, true),
            // The file is shorter than it could be: it may grow, and so it may end there.
            _ if len < PAGES => (start.min(len)..PAGES, true),
            2 => (start / large * large..PAGES.min(start + large), false),
            _ => (start..PAGES.min(start + 30), false),
        };
        Zone { pages, is_tail, ..Zone::default() }
    }
}

/// Creates a file, with holes only.
fn create(pool: &Pool, file: usize) -> File {
    let mut options = OpenOptions::new();
    let made = options.read(true).write(true).create(true).open(pool, NAMES[file]).unwrap();
    let pages = if file == COLD { COLD_PAGES } else { PAGES / 2 };
    made.set_len(pages * PAGE).unwrap();
    made
}

/// The bytes of all threads from `at` on, as one of them knows them.
pub(crate) fn own_cell(thread: u64, rng: &mut Rng, len: u64) -> Range<u64> {
    let pages = (len / PAGE).max(1);
    let page =
        if rng.once_in(4) { rng.below(pages) } else { rng.below(pages.min(crate::model::NEAR)) };
    let cell = Cells::cell(thread, page * PAGE + rng.below(PAGE));
    let from = rng.below(crate::model::CELL);
    let to = from + 1 + rng.below(crate::model::CELL - from);
    cell + from..cell + to
}
