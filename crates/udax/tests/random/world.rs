//! A pool and its model, side by side: each step does one thing to both and compares.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;

use tempfile::TempDir;
use udax::{
    Access, CreateOptions, Deferred, ErrorKind, File, FreePolicy, MapOptions, Mapping, OpenOptions,
    Pool, Populate, RenameMode, Result, Wait,
};

use crate::model::{HUGE, Model, PAGE, Page, us};
use crate::rng::Rng;
use crate::told::Told;

mod pins;
mod sharing;

use pins::Held;

const NAMES: [&str; 5] = ["/a", "/b", "/c", "/dir/a", "/dir/b"];

/// Bytes of the pool.
const SIZE: u64 = 32 << 20;

/// The largest file.
const MAX_LEN: u64 = 6 << 20;

/// Where most operations fall.
const NEAR: u64 = 40 * PAGE;

/// The most handles, mappings and pins at a time.
const MANY: usize = 12;

/// Free pages above which nothing may fail for want of space.
const ENOUGH: u64 = 1200;

type Shared = Rc<RefCell<Model>>;

pub(crate) struct World {
    // In the order of their end: nothing of the pool outlives it.
    pins: Vec<Held>,
    maps: Vec<Live>,
    pool: Option<Pool>,
    path: PathBuf,
    _dir: TempDir,
    names: BTreeMap<&'static str, Shared>,
    rng: Rng,
    log: VecDeque<String>,
    counts: BTreeMap<&'static str, u64>,
}

/// A mapping and what it shows.
struct Live {
    map: Mapping,
    model: Shared,
    start: u64,
    is_write: bool,
}

impl World {
    pub(crate) fn new(rng: Rng) -> World {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool.udax");
        let pool = Pool::create(&path, SIZE, &CreateOptions::new()).unwrap();
        pool.create_dir("/dir").unwrap();
        World {
            pins: Vec::new(),
            maps: Vec::new(),
            pool: Some(pool),
            path,
            _dir: dir,
            names: BTreeMap::new(),
            rng,
            log: VecDeque::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Does one random thing, and checks that all is as it should be.
    pub(crate) fn step(&mut self, step: u64) {
        let (word, told) = self.act();
        *self.counts.entry(word).or_default() += 1;
        self.log.push_back(format!("{step}: {word} {told}"));
        if self.log.len() > 60 {
            self.log.pop_front();
        }
        assert_eq!(self.pool().verify(), Ok(()), "step {step}: {word} {told}");
        if step.is_multiple_of(100) {
            self.compare_all();
        }
    }

    /// Compares everything once more, and says how often each operation was done.
    pub(crate) fn finish(mut self) -> String {
        self.compare_all();
        self.reopen();
        let counts = std::mem::take(&mut self.counts);
        counts.iter().map(|(word, count)| format!("{word} {count}")).collect::<Vec<_>>().join(", ")
    }

    fn act(&mut self) -> (&'static str, String) {
        match self.rng.below(220) {
            0..40 => ("write", self.write()),
            40..46 => ("append", self.append()),
            46..74 => ("read", self.read()),
            74..84 => ("map", self.map()),
            84..104 => ("map-store", self.map_store()),
            104..124 => ("map-load", self.map_load()),
            124..130 => ("unmap", self.unmap()),
            130..142 => ("truncate", self.truncate()),
            142..152 => ("punch", self.punch()),
            152..162 => ("pin", self.pin()),
            162..168 => ("pin-store", self.pin_store()),
            168..176 => ("pin-load", self.pin_load()),
            176..184 => ("unpin", self.unpin()),
            184..190 => ("unlink", self.unlink()),
            190..197 => ("rename", self.rename()),
            197..199 => ("sync", self.sync()),
            199..213 => ("clone", self.clone()),
            213..216 => ("dedupe", self.dedupe()),
            216..219 => ("unshare", self.unshare()),
            _ => ("reopen", self.reopen()),
        }
    }

    fn write(&mut self) -> String {
        let (name, file, model) = self.open();
        let (at, len) = self.place();
        let bytes = self.rng.bytes(len);
        let done = file.write_at(&bytes, at);
        match &done {
            Ok(written) => model.borrow_mut().write(at, &bytes[..*written]),
            Err(error) => {
                self.may_be_full(error);
                learn_moves(&file, &model);
            }
        }
        format!("{name} {at}+{len}: {done:?}")
    }

    fn append(&mut self) -> String {
        let (name, file, model) = self.open();
        let len = 1 + self.rng.below(3 * PAGE);
        if model.borrow().len() + len > MAX_LEN {
            return format!("{name}: long enough");
        }
        let bytes = self.rng.bytes(len);
        let done = file.append(&bytes);
        match &done {
            Ok(at) => {
                assert_eq!(*at, model.borrow().len());
                model.borrow_mut().write(*at, &bytes);
            }
            Err(error) => {
                self.may_be_full(error);
                learn_moves(&file, &model);
            }
        }
        format!("{name} {len}: {done:?}")
    }

    fn read(&mut self) -> String {
        let (name, file, model) = self.open();
        let (at, len) = self.place();
        compare_file(&file, &model.borrow(), at..at + len);
        format!("{name} {at}+{len}")
    }

    fn map(&mut self) -> String {
        if self.maps.len() >= MANY {
            return self.unmap();
        }
        let (name, file, model) = self.open();
        let start = self.rng.below(8) * 1000;
        let len = if self.rng.once_in(4) { MAX_LEN } else { 1 + self.rng.below(NEAR) };
        let is_write = !self.rng.once_in(4);
        let options = if is_write {
            MapOptions::new().access(Access::Write)
        } else if self.rng.once_in(2) {
            MapOptions::new().populate(Populate::Eager)
        } else {
            MapOptions::new()
        };
        let map = file.map(start..start + len, &options).unwrap();
        self.maps.push(Live { map, model, start, is_write });
        format!("{name} {start}+{len} {options:?}")
    }

    fn map_store(&mut self) -> String {
        let Some(at) = self.pick_map() else { return "nothing mapped".to_owned() };
        let Place { map, in_map, in_file, len } = at;
        let bytes = self.rng.bytes(len);
        let free = self.pool().usage().free.0;
        let live = &self.maps[map];
        let is_there = in_file < live.model.borrow().end_of_pages();
        if live.map.faulting() == Populate::Eager && live.model.borrow().is_hole(in_file) {
            return "a hole of an eager mapping".to_owned();
        }
        let done = if len == 8 && (in_file - live.start + live.start % PAGE).is_multiple_of(8) {
            let word = u64::from_le_bytes(bytes[..].try_into().unwrap());
            live.map.store(in_map, word)
        } else {
            live.map.write(&bytes, in_map)
        };
        match &done {
            Ok(()) => {
                assert!(live.is_write && is_there, "a store past the end succeeded");
                live.model.borrow_mut().store(in_file, &bytes);
            }
            Err(error) if !live.is_write => assert_eq!(error.kind(), ErrorKind::BadHandle),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Media);
                assert!(!is_there || free < ENOUGH, "{error} with {free} pages free");
            }
        }
        format!("map {map} file {in_file}+{len}: {done:?}")
    }

    fn map_load(&mut self) -> String {
        let Some(at) = self.pick_map() else { return "nothing mapped".to_owned() };
        let Place { map, in_map, in_file, len } = at;
        let live = &self.maps[map];
        let mut bytes = vec![0; us(len)];
        let done = live.map.read(&mut bytes, in_map);
        let model = live.model.borrow();
        if in_file < model.end_of_pages() {
            assert!(done.is_ok(), "map {map} file {in_file}+{len}: {done:?}");
            compare(&bytes, &model.bytes(in_file..in_file + len), in_file);
        } else {
            assert_eq!(done.as_ref().unwrap_err().kind(), ErrorKind::Media);
        }
        format!("map {map} file {in_file}+{len}: {done:?}")
    }

    fn unmap(&mut self) -> String {
        if self.maps.is_empty() {
            return "nothing mapped".to_owned();
        }
        let map = self.rng.index(self.maps.len());
        drop(self.maps.swap_remove(map));
        format!("map {map}")
    }

    fn truncate(&mut self) -> String {
        let (name, file, model) = self.open();
        let len = self.size();
        let policy = self.policy();
        let cut = len..model.borrow().end_of_pages().max(len);
        self.log.push_back(format!("truncating {name} from {} to {len}", model.borrow().len()));
        let done = file.set_len_with(len, policy);
        if self.check_freed(&done, policy, &model.borrow(), cut) {
            model.borrow_mut().set_len(len);
        } else {
            learn_moves(&file, &model);
        }
        format!("{name} to {len} {policy:?}: {done:?}")
    }

    fn punch(&mut self) -> String {
        let (name, file, model) = self.open();
        let (at, len) = self.place();
        let policy = self.policy();
        // A range that ends between the end of the file and that of its last page may free that
        // page or zero it; a pin would see the difference.
        let mut end = at + len;
        if (model.borrow().len()..model.borrow().end_of_pages()).contains(&end) {
            end = model.borrow().end_of_pages() + PAGE;
        }
        self.log.push_back(format!("punching {name} at {at}..{end} of {}", model.borrow().len()));
        let done = file.punch_hole_with(at..end, policy);
        if self.check_freed(&done, policy, &model.borrow(), at..end) {
            model.borrow_mut().punch(at..end);
        } else {
            learn_moves(&file, &model);
        }
        format!("{name} {at}..{end} {policy:?}: {done:?}")
    }

    fn unlink(&mut self) -> String {
        let name = NAMES[self.rng.index(NAMES.len())];
        let done = self.pool().remove_file(name);
        match self.names.remove(name) {
            Some(_) => done.unwrap(),
            None => assert_eq!(done.unwrap_err().kind(), ErrorKind::NotFound),
        }
        name.to_owned()
    }

    fn rename(&mut self) -> String {
        let (from, to) = (self.name(), self.name());
        let mode = match self.rng.below(4) {
            0 => RenameMode::NoReplace,
            1 => RenameMode::Exchange,
            _ => RenameMode::Replace,
        };
        let done = self.pool().rename_with(from, to, mode).map_err(|error| error.kind());
        let expected = match (self.names.contains_key(from), self.names.contains_key(to), mode) {
            (false, ..) | (true, false, RenameMode::Exchange) => Err(ErrorKind::NotFound),
            (true, true, RenameMode::NoReplace) => Err(ErrorKind::AlreadyExists),
            _ => Ok(()),
        };
        assert_eq!(done, expected, "rename {from} {to} {mode:?}");
        if done.is_ok() && from != to {
            let moved = self.names.remove(from).unwrap();
            let replaced = self.names.insert(to, moved);
            if let (RenameMode::Exchange, Some(other)) = (mode, replaced) {
                self.names.insert(from, other);
            }
        }
        format!("{from} {to} {mode:?}: {done:?}")
    }

    fn sync(&mut self) -> String {
        self.pool().sync().unwrap();
        String::new()
    }

    fn reopen(&mut self) -> String {
        self.maps.clear();
        self.pins.clear();
        let pool = self.pool.take().unwrap();
        assert_eq!(pool.usage().limbo.0, 0);
        pool.close().unwrap();
        let report = Pool::check(&self.path).unwrap();
        assert_eq!(report.problems, []);
        let pool = Pool::open(&self.path).unwrap();
        assert_eq!(pool.recovered().unclean, None);
        self.pool = Some(pool);
        self.compare_all();
        String::new()
    }

    fn pool(&self) -> &Pool {
        self.pool.as_ref().unwrap()
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.rng.index(NAMES.len())]
    }

    /// A file, created if its name is free.
    fn open(&mut self) -> (&'static str, File, Shared) {
        let name = self.name();
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).open(self.pool(), name);
        let file = file.unwrap_or_else(|error| panic!("{name}: {error}"));
        let model = Rc::clone(self.names.entry(name).or_default());
        (name, file, model)
    }

    /// A range: mostly small and near, sometimes large enough for a 2 MiB page.
    fn place(&mut self) -> (u64, u64) {
        match self.rng.below(60) {
            0 => ((self.rng.below(3)) << 21, (2 << 20) + self.rng.below(1 << 20)),
            1..4 => (self.rng.below(MAX_LEN - 2 * PAGE), 1 + self.rng.below(2 * PAGE)),
            4..20 => (self.rng.below(NEAR / PAGE) * PAGE, (1 + self.rng.below(6)) * PAGE),
            _ => (self.rng.below(NEAR), 1 + self.rng.below(3 * PAGE)),
        }
    }

    fn size(&mut self) -> u64 {
        match self.rng.below(12) {
            0 => 0,
            1 => self.rng.below(MAX_LEN),
            2..5 => self.rng.below(NEAR / PAGE) * PAGE,
            _ => self.rng.below(NEAR),
        }
    }

    fn policy(&mut self) -> FreePolicy<'static> {
        match self.rng.below(6) {
            0 => FreePolicy::Wait(Wait::Never),
            1 => FreePolicy::Fail,
            _ => FreePolicy::Defer,
        }
    }

    /// Checks whether freeing `range` should have succeeded, and says whether it did.
    fn check_freed(
        &self,
        done: &Result<Deferred>,
        policy: FreePolicy,
        model: &Model,
        range: Range<u64>,
    ) -> bool {
        // What others have too is not waited for.
        let is_held = |(page, is_own): &(Page, bool)| *is_own && self.is_pinned(page);
        let must_wait = model.whole_pages(range.clone()).iter().any(is_held);
        // A pin holds the folio of its page: the 2 MiB around it, if the file has them in one.
        let around = range.start / HUGE * HUGE..range.end.next_multiple_of(HUGE);
        let may_wait = model.whole_pages(around).iter().any(|(page, _)| self.is_pinned(page));
        match done {
            Ok(deferred) => {
                assert!(policy == FreePolicy::Defer || !must_wait, "freed pinned pages");
                assert!(!deferred.is_empty() || !must_wait, "a pin was deferred and not named");
                assert!(deferred.is_empty() || may_wait, "no pin is there that was deferred");
            }
            Err(error) if error.kind() == ErrorKind::Pinned => {
                assert!(policy != FreePolicy::Defer && may_wait, "{error}");
            }
            Err(error) => self.may_be_full(error),
        }
        done.is_ok()
    }

    #[track_caller]
    fn may_be_full(&self, error: &udax::Error) {
        let free = self.pool().usage().free.0;
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        assert!(free < ENOUGH, "{error} with {free} pages free");
    }

    /// A place in one page of a mapping.
    fn pick_map(&mut self) -> Option<Place> {
        if self.maps.is_empty() {
            return None;
        }
        let map = self.rng.index(self.maps.len());
        let Live { map: mapping, model, start, .. } = &self.maps[map];
        let (start, len) = (*start, mapping.len());
        let near = (model.borrow().end_of_pages() + PAGE).saturating_sub(start).clamp(1, len);
        let in_map = self.rng.below(near) & !7;
        let in_file = start + in_map;
        let room = (PAGE - in_file % PAGE).min(len - in_map);
        let len = if self.rng.once_in(2) { 8.min(room) } else { 1 + self.rng.below(room) };
        Some(Place { map, in_map, in_file, len })
    }

    /// Compares every file, and every pin.
    fn compare_all(&self) {
        for name in NAMES {
            assert_eq!(self.pool().exists(name).unwrap(), self.names.contains_key(name), "{name}");
        }
        for (name, model) in &self.names {
            let file = self.pool().open_file(name).unwrap();
            let model = model.borrow();
            assert_eq!(file.metadata().len(), model.len(), "{name}");
            compare_file(&file, &model, 0..model.len());
            let checked = model.check(&Told::by(&file), &self.pinned_blocks());
            checked.unwrap_or_else(|why| panic!("{name}: {why}"));
        }
        self.compare_pins();
    }
}

/// Where an access of a mapping falls.
struct Place {
    map: usize,
    in_map: u64,
    in_file: u64,
    len: u64,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the last operations:");
            for line in &self.log {
                println!("  {line}");
            }
        }
    }
}

/// Learns what of a file is its own after a call that failed: on its way it may have copied what the
/// file shared.
fn learn_moves(file: &File, model: &Shared) {
    model.borrow_mut().learn_moves(&Told::by(file));
}

fn compare_file(file: &File, model: &Model, range: Range<u64>) {
    let end = range.end.min(model.len()).max(range.start);
    let mut bytes = vec![0xee; us(range.end - range.start)];
    let read = file.read_at(&mut bytes, range.start).unwrap();
    assert_eq!(read, us(end - range.start), "{} {range:?}", file.path().display());
    let expected = if read == 0 { Vec::new() } else { model.bytes(range.start..end) };
    compare(&bytes[..read], &expected, range.start);
}

#[track_caller]
fn compare(found: &[u8], expected: &[Option<u8>], at: u64) {
    assert_eq!(found.len(), expected.len());
    let differs = |(&found, expected): (&u8, &Option<u8>)| expected.is_some_and(|e| e != found);
    if let Some(place) = found.iter().zip(expected).position(differs) {
        let byte = at + u64::try_from(place).unwrap();
        panic!("byte {byte} is {} and should be {:?}", found[place], expected[place]);
    }
}
