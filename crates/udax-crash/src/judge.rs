//! The judge: mounts one crash image and says whether it is acceptable.

use crate::compare::{Allowed, difference};
use crate::dump::dump;
use crate::enumerate::Outcome;
use crate::oracle::Tree;
use crate::probe::probe;
use crate::session::{DevicePages, device, mount, quarantine};
use crate::tails::check_tails;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use udax_fs::{Filesystem, FsError, Usage};
use udax_mm::Pages;
use udax_mm::image::{Image, ImageMedia};
use udax_mm::sync::Arc;

/// What must hold after a crash at some moment.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The trees that may be found.
    pub allowed: Allowed,
    /// Whether a process had the pool open for writing, which the crash must not hide.
    pub is_open: bool,
    /// Whether there may be no pool, because one is being made.
    pub may_be_none: bool,
    /// What the pool may use once everything is deleted.
    pub empty: Vec<Usage>,
    /// Which pages are in quarantine.
    pub quarantine: Quarantine,
}

/// The pages that a crash leaves in quarantine, as far as the moment says.
#[derive(Clone, Debug, Default)]
pub struct Quarantine {
    /// Those that a pin held from before the moment until after it.
    must: DevicePages,
    /// Those that one held before or after it.
    may: DevicePages,
}

impl Quarantine {
    /// What may be found between moments at which pins held these pages.
    pub fn between(pinned: &[Arc<DevicePages>]) -> Quarantine {
        let may: DevicePages = pinned.iter().flat_map(|pages| pages.iter().copied()).collect();
        let is_always = |page: &&u64| pinned.iter().all(|pages| pages.contains(page));
        Quarantine { must: may.iter().filter(is_always).copied().collect(), may }
    }

    /// Says what is wrong with pages that were found.
    fn check(&self, found: &DevicePages) -> Result<(), String> {
        if let Some(page) = self.must.difference(found).next() {
            return Err(format!("page {page} was pinned and is not in quarantine"));
        }
        match found.difference(&self.may).next() {
            Some(page) => Err(format!("page {page} is in quarantine and nobody pinned it")),
            None => Ok(()),
        }
    }
}

/// Judges images: each is mounted and compared, and some of each kind of recovery are used.
///
/// Most images of an epoch differ in bytes that recovery reads and rejects. Using the filesystem
/// afterwards costs several mounts and finds the same in all of these, so it is done for the first
/// few images that recover alike.
#[derive(Debug)]
pub struct Judge {
    /// How many images of each kind are used.
    uses: usize,
    /// How many of each kind were, since [`Judge::start_epoch`].
    used: HashMap<Kind, usize>,
}

/// What recovery had to do, and what it came to: whether it replayed, orphans, pages, inodes.
type Kind = (bool, u64, Pages, u64);

/// What was found of one image.
#[derive(Debug)]
pub struct Judged {
    /// For the enumerator.
    pub outcome: Outcome,
    /// Whether recovery had anything to do.
    pub has_recovered: bool,
}

impl Judge {
    /// A judge who uses the filesystem after the first `uses` images of each kind.
    pub fn new(uses: usize) -> Judge {
        Judge { uses, used: HashMap::new() }
    }

    /// Mounts `image` and compares its tree; for the first images of their kind also checks it,
    /// recovers it a second time, and changes and deletes everything.
    pub fn judge(&mut self, image: &Image, expected: &Expectation) -> Judged {
        let media = Arc::new(ImageMedia::new(image.clone()));
        let found = guard(|| first_mount(&media, expected));
        let mut judged = Judged {
            outcome: Outcome { media, is_used: false, problem: None },
            has_recovered: false,
        };
        match found {
            Err(problem) => judged.outcome.problem = Some(problem),
            Ok(None) => {}
            Ok(Some((tree, kind))) => {
                judged.has_recovered = kind.0 || kind.1 > 0;
                judged.outcome.is_used = self.is_wanted(kind);
                if judged.outcome.is_used {
                    let image = judged.outcome.media.image();
                    judged.outcome.problem = use_recovered(image, &tree, expected).err();
                }
            }
        }
        judged
    }

    /// Begins another epoch: its first images of each kind are used again.
    pub fn start_epoch(&mut self) {
        self.used.clear();
    }

    fn is_wanted(&mut self, kind: Kind) -> bool {
        let used = self.used.entry(kind).or_default();
        *used += 1;
        *used <= self.uses
    }
}

/// What a pool uses when everything in `image`, which no crash touched, is deleted.
///
/// # Errors
///
/// What did not work.
pub fn usage_when_emptied(image: &Image) -> Result<Usage, String> {
    guard(|| {
        let (fs, _) = mount(Arc::new(ImageMedia::new(image.clone()))).map_err(text("mount"))?;
        let tree = dump(&fs).map_err(text("reading"))?;
        probe(&fs, &tree)
    })
}

/// Runs `body`; a panic is a finding like any other.
///
/// # Errors
///
/// That of `body`, or the message of its panic.
pub fn guard<T>(body: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panicked: {}", message.unwrap_or("with no message")))
    })
}

/// What is found, or none where there is no pool and need not be.
fn first_mount(
    media: &Arc<ImageMedia>,
    expected: &Expectation,
) -> Result<Option<(Tree, Kind)>, String> {
    let (fs, recovered) = match mount(media.clone()) {
        Err(error) if expected.may_be_none && says_no_pool(&error) => return Ok(None),
        other => other.map_err(text("mount"))?,
    };
    let tree = dump(&fs).map_err(text("reading"))?;
    expected.allowed.check(&tree)?;
    check_tails(&fs, &tree)?;
    if expected.is_open && recovered.unclean.is_none() {
        return Err("the pool says it was closed".to_owned());
    }
    fs.verify().map_err(|what| format!("after recovery: {what}"))?;
    expected.quarantine.check(&quarantine(&fs))?;
    let usage = fs.usage();
    Ok(Some((tree, (recovered.replayed, recovered.orphans, usage.used, usage.inodes))))
}

/// Whether neither superblock is whole.
fn says_no_pool(error: &FsError) -> bool {
    match error {
        FsError::NotAPool => true,
        FsError::Corrupt { object, .. } => object == "the superblock",
        _ => false,
    }
}

fn use_recovered(image: Image, tree: &Tree, expected: &Expectation) -> Result<(), String> {
    guard(|| {
        check(image.clone(), "after recovery")?;
        second_mount(image, tree, expected)
    })
}

/// Recovery of what was recovered must find nothing to do and the same tree.
fn second_mount(image: Image, tree: &Tree, expected: &Expectation) -> Result<(), String> {
    let media = Arc::new(ImageMedia::new(image));
    let (fs, recovered) = mount(media.clone()).map_err(text("second mount"))?;
    if recovered.replayed || recovered.orphans > 0 || recovered.mirror_used {
        return Err(format!("a second recovery found something to do: {recovered:?}"));
    }
    let again = dump(&fs).map_err(text("reading again"))?;
    difference(tree, &again).map_err(|what| format!("a second recovery changed: {what}"))?;
    expected.quarantine.check(&quarantine(&fs)).map_err(|what| format!("second mount: {what}"))?;
    let usage = probe(&fs, tree)?;
    let empty = &expected.empty;
    if !empty.iter().any(|empty| is_same_usage(empty, &usage)) {
        return Err(format!("the emptied pool uses {usage:?}, without a crash {empty:?}"));
    }
    fs.unmount().map_err(text("unmount"))?;
    drop(fs);
    check(media.image(), "after the probe")
}

fn check(image: Image, when: &str) -> Result<(), String> {
    let report = Filesystem::check(device(Arc::new(ImageMedia::new(image))));
    let report = report.map_err(|error| format!("check {when}: {error}"))?;
    match report.problems.first() {
        None => Ok(()),
        Some(problem) => Err(format!("check {when}: {}: {}", problem.object, problem.found)),
    }
}

/// Whether nothing leaked; how the free pages lie does not matter.
fn is_same_usage(one: &Usage, other: &Usage) -> bool {
    let counts = |usage: &Usage| (usage.used, usage.free, usage.limbo, usage.inodes);
    counts(one) == counts(other)
}

fn text<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}
