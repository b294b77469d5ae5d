//! The judge: mounts one crash image and says whether it is acceptable.

use crate::compare::{Allowed, difference};
use crate::dump::dump;
use crate::enumerate::Outcome;
use crate::oracle::Tree;
use crate::probe::probe;
use crate::session::{device, mount};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use udax_fs::{Filesystem, Recovered, Usage};
use udax_mm::image::{Image, ImageMedia};
use udax_mm::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What must hold after a crash at some moment.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The trees that may be found.
    pub allowed: Allowed,
    /// What the pool may use once everything is deleted.
    pub empty: Vec<Usage>,
}

/// Judges images, and remembers what it found after each distinct recovery.
#[derive(Debug, Default)]
pub struct Judge {
    recovered: HashMap<u64, Result<(), String>>,
}

/// What was found of one image.
#[derive(Debug)]
pub struct Judged {
    /// For the enumerator.
    pub outcome: Outcome,
    /// Whether recovery had anything to do.
    pub has_recovered: bool,
}

impl Judge {
    /// Mounts `image`, compares its tree, checks it, recovers it a second time, and uses it.
    pub fn judge(&mut self, image: &Image, expected: &Expectation) -> Judged {
        let media = Arc::new(ImageMedia::new(image.clone()));
        let mut has_recovered = false;
        let found = guard(|| {
            let (tree, recovered) = first_mount(&media, &expected.allowed)?;
            has_recovered = recovered.replayed || recovered.orphans > 0;
            Ok(tree)
        });
        let problem = found.and_then(|tree| self.judge_recovered(media.image(), &tree, expected));
        let problem = problem.err();
        Judged { outcome: Outcome { media, problem }, has_recovered }
    }

    /// Forgets what it found: the expectations of the next images are others.
    pub fn forget(&mut self) {
        self.recovered.clear();
    }

    fn judge_recovered(
        &mut self,
        image: Image,
        tree: &Tree,
        expected: &Expectation,
    ) -> Result<(), String> {
        let hash = hash(&image);
        if let Some(known) = self.recovered.get(&hash) {
            return known.clone();
        }
        let verdict = guard(|| {
            check(image.clone(), "after recovery")?;
            second_mount(image, tree, &expected.empty)
        });
        self.recovered.insert(hash, verdict.clone());
        verdict
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

fn first_mount(media: &Arc<ImageMedia>, allowed: &Allowed) -> Result<(Tree, Recovered), String> {
    let (fs, recovered) = mount(media.clone()).map_err(text("mount"))?;
    let tree = dump(&fs).map_err(text("reading"))?;
    allowed.check(&tree)?;
    fs.verify().map_err(|what| format!("after recovery: {what}"))?;
    Ok((tree, recovered))
}

/// Recovery of what was recovered must find nothing to do and the same tree.
fn second_mount(image: Image, tree: &Tree, empty: &[Usage]) -> Result<(), String> {
    let media = Arc::new(ImageMedia::new(image));
    let (fs, recovered) = mount(media.clone()).map_err(text("second mount"))?;
    if recovered.replayed || recovered.orphans > 0 || recovered.mirror_used {
        return Err(format!("a second recovery found something to do: {recovered:?}"));
    }
    let again = dump(&fs).map_err(text("reading again"))?;
    difference(tree, &again).map_err(|what| format!("a second recovery changed: {what}"))?;
    let usage = probe(&fs, tree)?;
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

fn hash(image: &Image) -> u64 {
    image.changed().fold(0, |hash, (page, bytes)| hash ^ xxh3_64_with_seed(bytes, page))
}
