//! Memory that fails: which pages of the device may in a round, and what has to follow of it.
//!
//! A page that fails while threads run lies where no layout changes in that round, so that it stays
//! what it is known to be. One that fails between rounds loses its bytes, too: nobody may ever see
//! what is left of them.

use crate::model::{PAGE, count, us};
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use udax::{File, Pool};
use udax_mm::sync::Mutex;
use udax_mm::{MediaError, Pgmap, PgmapOff, PgmapRef};

/// The most pages of the device that are bad at a time.
const MANY: usize = 24;

/// What is left of the bytes of a page that fails between rounds. No thread stores it.
const REST: u8 = 0x5a;

/// Which pages fail, and which are bad.
pub(crate) struct Failing {
    pgmap: Pgmap,
    /// Those that a thread may let fail in this round.
    candidates: Vec<u64>,
    /// Those that are bad when nobody runs.
    bad: BTreeSet<u64>,
    round: Mutex<Round>,
    /// How many pages were bad and are not any more.
    healed: u64,
    /// How many were bad and shared at a time.
    most_shared: usize,
}

/// What the threads of a round have done.
#[derive(Default)]
struct Round {
    failed: BTreeSet<u64>,
    /// Where a file had a page of which all bytes were written.
    overwritten: BTreeSet<u64>,
}

/// Where files have the pages of the device.
pub(crate) type Places = BTreeMap<u64, BTreeSet<(usize, u64)>>;

impl Failing {
    pub(crate) fn new(pool: &Pool) -> Failing {
        let pgmap = pool.filesystem().device().pgmaps().remove(0);
        let (candidates, bad, round) = (Vec::new(), BTreeSet::new(), Mutex::default());
        Failing { pgmap, candidates, bad, round, healed: 0, most_shared: 0 }
    }

    /// Lets the memory of a page fail, if one may. Returns whether one did.
    pub(crate) fn fail_one(&self, rng: &mut Rng) -> bool {
        if self.candidates.is_empty() {
            return false;
        }
        let page = self.candidates[rng.index(self.candidates.len())];
        self.round.lock().failed.insert(page);
        self.live().memory_failure(PgmapOff(page)..PgmapOff(page + 1));
        true
    }

    /// All bytes of page `index` of a file are about to be written.
    pub(crate) fn will_overwrite(&self, file: &File, index: u64) {
        let Some(page) = place_of(file, index) else { return };
        self.round.lock().overwritten.insert(page);
    }

    /// Lets pages of files fail between two rounds, and destroys their bytes.
    pub(crate) fn fail_at_rest(&mut self, files: &[File], rng: &mut Rng) {
        let places: Vec<u64> = places(files).into_keys().collect();
        if places.is_empty() || self.bad.len() >= MANY {
            return;
        }
        let live = self.live();
        for _ in 0..=rng.below(3) {
            let page = places[rng.index(places.len())];
            if self.bad.insert(page) {
                live.write(page * PAGE, &vec![REST; us(PAGE)]).unwrap();
                live.memory_failure(PgmapOff(page)..PgmapOff(page + 1));
            }
        }
    }

    /// Draws what may fail in the next round, and returns for each file which of its pages may be
    /// bad in it. `may_move` says which pages of a file may be given up.
    pub(crate) fn draw(
        &mut self,
        files: &[File],
        may_move: impl Fn(usize, u64) -> bool,
        rng: &mut Rng,
    ) -> [BTreeSet<u64>; 2] {
        let places = places(files);
        // From what is shared every file may move away, and then it is anybody's.
        let stays = |at: &BTreeSet<(usize, u64)>| {
            at.len() == 1 && !at.iter().any(|&(file, index)| may_move(file, index))
        };
        let firm: Vec<u64> =
            places.iter().filter(|(_, at)| stays(at)).map(|(&page, _)| page).collect();
        self.candidates.clear();
        if !firm.is_empty() && self.bad.len() < MANY && rng.once_in(2) {
            let one = |_| firm[rng.index(firm.len())];
            self.candidates = (0..4).map(one).collect();
        }
        let shared = |page: &&u64| places.get(page).is_some_and(|at| at.len() > 1);
        self.most_shared = self.most_shared.max(self.bad.iter().filter(shared).count());
        let mut failing = [BTreeSet::new(), BTreeSet::new()];
        for page in self.bad.iter().chain(&self.candidates) {
            for &(file, index) in places.get(page).into_iter().flatten() {
                failing[file].insert(index);
            }
        }
        failing
    }

    /// Learns what has happened in a round: a mark that came was asked for, and one that went was
    /// written over.
    pub(crate) fn settle(&mut self, round: u64) {
        let Round { failed, overwritten } = std::mem::take(&mut *self.round.lock());
        let marked = self.marked();
        let known: BTreeSet<u64> = self.bad.union(&failed).copied().collect();
        let strange: Vec<_> = marked.difference(&known).collect();
        assert!(strange.is_empty(), "round {round}: nobody let pages {strange:?} fail");
        let healed: Vec<_> = known.difference(&marked).collect();
        let strange: Vec<_> = healed.iter().filter(|page| !overwritten.contains(page)).collect();
        assert!(strange.is_empty(), "round {round}: nobody has healed pages {strange:?}");
        self.healed += count(healed.len());
        self.bad = marked;
    }

    /// Says what was seen.
    pub(crate) fn told(&self) -> String {
        let Failing { healed, most_shared, .. } = self;
        format!("bad pages: {healed} healed, at most {most_shared} shared at a time")
    }

    /// The pages of a file that are bad: what it says has to be what the device does.
    pub(crate) fn bad_pages(&self, file: &File) -> BTreeSet<u64> {
        let len = file.metadata().len();
        let of_file = runs(file).into_iter().flat_map(|(index, device)| {
            let start = device.start;
            self.bad.range(device).map(move |page| index + page - start)
        });
        let of_file: BTreeSet<u64> = of_file.filter(|index| index * PAGE < len).collect();
        let pages = |range: Range<u64>| range.start / PAGE..range.end.div_ceil(PAGE);
        let told: BTreeSet<u64> = file.bad_ranges().unwrap().into_iter().flat_map(pages).collect();
        assert_eq!(told, of_file, "a file lists what is bad of it");
        of_file
    }

    /// Gives bad pages that no file has new memory, but for those that somebody pins.
    pub(crate) fn mend(&mut self, files: &[File]) {
        let (places, live) = (places(files), self.live());
        self.bad.retain(|&page| {
            if places.contains_key(&page) {
                return true;
            }
            match live.recover(page * PAGE, &vec![0; us(PAGE)]) {
                Ok(()) => false,
                Err(MediaError::Pinned { .. }) => true,
                Err(error) => panic!("page {page}: {error}"),
            }
        });
    }

    fn marked(&self) -> BTreeSet<u64> {
        let live = self.live();
        let (end, mut from, mut marked) = (PgmapOff(live.size().0), PgmapOff(0), BTreeSet::new());
        while let Some(page) = live.first_poisoned(from..end) {
            marked.insert(page.0);
            from = PgmapOff(page.0 + 1);
        }
        marked
    }

    fn live(&self) -> PgmapRef {
        self.pgmap.try_get_live().unwrap()
    }
}

/// The runs of a file: first page, and the pages of the device.
fn runs(file: &File) -> Vec<(u64, Range<u64>)> {
    let extents = file.extents().unwrap().into_iter();
    let run = |extent: udax::FileExtent| {
        (extent.index.0, extent.device.0..extent.device.0 + extent.pages.0)
    };
    extents.map(run).collect()
}

fn place_of(file: &File, index: u64) -> Option<u64> {
    let place = |(first, device): (u64, Range<u64>)| {
        let page = device.start + index.checked_sub(first)?;
        device.contains(&page).then_some(page)
    };
    runs(file).into_iter().find_map(place)
}

fn places(files: &[File]) -> Places {
    let mut places = Places::new();
    for (at, file) in files.iter().enumerate() {
        for (index, device) in runs(file) {
            for page in device.clone() {
                places.entry(page).or_default().insert((at, index + page - device.start));
            }
        }
    }
    places
}

/// The pages of a file that it shares.
pub(crate) fn shared(file: &File) -> BTreeSet<u64> {
    let extents = file.extents().unwrap().into_iter().filter(|extent| extent.is_shared);
    extents.flat_map(|extent| extent.index.0..extent.index.0 + extent.pages.0).collect()
}

/// The stretches of a file of `len` bytes between its `bad` pages.
pub(crate) fn good_parts(len: u64, bad: &BTreeSet<u64>) -> Vec<Range<u64>> {
    let (mut parts, mut from) = (Vec::new(), 0);
    for page in bad.range(..len.div_ceil(PAGE)) {
        parts.push(from..page * PAGE);
        from = (page + 1) * PAGE;
    }
    parts.push(from..len);
    parts.retain(|part| part.start < part.end);
    parts
}
