//! Memory that fails: which pages of the device may in a round, and what has to follow of it.
//!
//! A page fails while threads run, and while others take it from its file, share it or give it back.
//! Whoever lets it fail pins it meanwhile: so it is data of a file, or was a moment ago, and not a
//! structure of the filesystem. Where it may be found is where the file had it, and whatever that is
//! tied to: pages that share it when the round begins, and both sides of a flow. One that fails
//! between rounds loses its bytes, too: nobody may ever see what is left of them.

use crate::flow::{Flows, Place};
use crate::model::{COLD, FILES, PAGE, count, us};
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Instant;
use udax::{File, PinKind, PinOwner, PinTerm, Pool};
use udax_mm::sync::Mutex;
use udax_mm::{FileIndex, MediaError, Pgmap, PgmapOff, PgmapRef, PinInfo};

/// The most pages of the device that are bad at a time.
const MANY: usize = 24;

/// What is left of the bytes of a page that fails between rounds. No thread stores it.
const REST: u8 = 0x5a;

/// Which pages fail, and which are bad.
pub(crate) struct Failing {
    pgmap: Pgmap,
    /// Pages of files that a thread may let fail in this round, each with what it is tied to.
    candidates: Vec<(Place, BTreeSet<Place>)>,
    /// Where bad pages may be found in this round.
    ties: BTreeMap<u64, BTreeSet<Place>>,
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
    /// Each with where it may be found.
    failed: BTreeMap<u64, BTreeSet<Place>>,
    /// Pages of files of which all bytes were written.
    overwritten: BTreeSet<Place>,
}

/// Where files have the pages of the device.
pub(crate) type Places = BTreeMap<u64, BTreeSet<Place>>;

impl Failing {
    pub(crate) fn new(pool: &Pool) -> Failing {
        let pgmap = pool.filesystem().device().pgmaps().remove(0);
        let (candidates, ties) = (Vec::new(), BTreeMap::new());
        let (bad, round) = (BTreeSet::new(), Mutex::default());
        Failing { pgmap, candidates, ties, bad, round, healed: 0, most_shared: 0 }
    }

    /// Lets the memory of a page fail, if one may. Returns whether one did.
    pub(crate) fn fail_one(&self, files: &[File], rng: &mut Rng) -> bool {
        if self.candidates.is_empty() {
            return false;
        }
        let ((file, index), tied) = &self.candidates[rng.index(self.candidates.len())];
        let owner =
            PinOwner { process: std::process::id(), connection: 0, label: "failing".into() };
        let (kind, term) = (PinKind::Read, PinTerm::Short);
        let info = PinInfo { owner, since: Instant::now(), kind, term };
        let pages = FileIndex(*index)..FileIndex(index + 1);
        // The file may have no such page, and it may be bad.
        let Ok(pin) = files[*file].inode().pin(pages, info) else { return false };
        let (pgmap, pages) = pin.pages().next().unwrap();
        self.round.lock().failed.insert(pages.start.0, tied.clone());
        pgmap.memory_failure(pages);
        true
    }

    /// All bytes of a page of a file are about to be written.
    pub(crate) fn will_overwrite(&self, page: Place) {
        self.round.lock().overwritten.insert(page);
    }

    /// Lets pages of files fail between two rounds, and destroys their bytes.
    pub(crate) fn fail_at_rest(&mut self, files: &[File], rng: &mut Rng) {
        // Nobody gets a signal for a frozen slice.
        let is_warm = |at: &BTreeSet<Place>| at.iter().all(|&(file, _)| file != COLD);
        let places = places(files).into_iter().filter(|(_, at)| is_warm(at));
        let places: Vec<u64> = places.map(|(page, _)| page).collect();
        if places.is_empty() || self.bad.len() >= MANY {
            return;
        }
        let live = self.live();
        for _ in 0..=rng.below(3) {
            let page = places[rng.index(places.len())];
            if self.bad.contains(&page) {
                continue;
            }
            match live.write(page * PAGE, &vec![REST; us(PAGE)]) {
                // A slice is held of it, by way of a file that shared it.
                Err(MediaError::Frozen { .. }) => continue,
                written => written.unwrap(),
            }
            self.bad.insert(page);
            live.memory_failure(PgmapOff(page)..PgmapOff(page + 1));
        }
    }

    /// Draws what may fail in the next round, and returns for each file which of its pages may be
    /// bad in it.
    pub(crate) fn draw(
        &mut self,
        files: &[File],
        flows: &Flows,
        rng: &mut Rng,
    ) -> [BTreeSet<u64>; FILES] {
        let places = places(files);
        let all: Vec<Place> = places.values().flatten().copied().collect();
        self.candidates.clear();
        if !all.is_empty() && self.bad.len() < MANY && rng.once_in(2) {
            let one = |_| all[rng.index(all.len())];
            let drawn: Vec<Place> = (0..6).map(one).collect();
            let tied = drawn.into_iter().map(|page| (page, tied(page, &places, flows)));
            let is_warm = |tied: &BTreeSet<Place>| tied.iter().all(|&(file, _)| file != COLD);
            self.candidates = tied.filter(|(_, tied)| is_warm(tied)).collect();
        }
        let shared = |page: &&u64| places.get(page).is_some_and(|at| at.len() > 1);
        self.most_shared = self.most_shared.max(self.bad.iter().filter(shared).count());
        let found = |page: &u64| {
            let at = places.get(page).into_iter().flatten();
            at.flat_map(|&place| tied(place, &places, flows)).collect()
        };
        self.ties = self.bad.iter().map(|page| (*page, found(page))).collect();
        let mut failing: [BTreeSet<u64>; FILES] = Default::default();
        let tied = self.candidates.iter().map(|(_, tied)| tied).chain(self.ties.values());
        for &(file, index) in tied.flatten().filter(|&&(file, _)| file != COLD) {
            failing[file].insert(index);
        }
        failing
    }

    /// Learns what has happened in a round: a mark that came was asked for, and one that went was
    /// written over.
    pub(crate) fn settle(&mut self, round: u64) {
        let Round { failed, overwritten } = std::mem::take(&mut *self.round.lock());
        let marked = self.marked();
        let mut known = std::mem::take(&mut self.ties);
        known.extend(failed);
        let strange: Vec<_> = marked.iter().filter(|page| !known.contains_key(page)).collect();
        assert!(strange.is_empty(), "round {round}: nobody let pages {strange:?} fail");
        let healed = || known.iter().filter(|(page, _)| !marked.contains(page));
        let strange: Vec<_> = healed().filter(|(_, tied)| tied.is_disjoint(&overwritten)).collect();
        assert!(strange.is_empty(), "round {round}: nobody has healed pages {strange:?}");
        self.healed += count(healed().count());
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

/// Pages of files that may come to be the same page of the device as `page` while threads run.
fn tied(page: Place, places: &Places, flows: &Flows) -> BTreeSet<Place> {
    let (mut tied, mut next) = (BTreeSet::new(), vec![page]);
    while let Some(page) = next.pop() {
        if tied.insert(page) {
            let shared = places.values().filter(|at| at.contains(&page)).flatten().copied();
            let from = flows.leading_to(page).map(|flow| flow.source(page.1));
            next.extend(shared.chain(from).chain(flows.out_of(page)));
        }
    }
    tied
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
