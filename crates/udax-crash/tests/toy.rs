//! The enumerator against a protocol small enough to see through: two slots and a selector.
//!
//! A pair of equal words is updated by writing the other slot and then switching the selector. The
//! protocol needs both of its flushes and both of its fences; the enumerator must find nothing
//! with all of them, and notice when any one of them is left out.

use std::collections::BTreeSet;
use udax_crash::enumerate::{Bound, Outcome, Seen, explore};
use udax_crash::epoch::Phase;
use udax_crash::rng::Rng;
use udax_crash::trace::Trace;
use udax_mm::image::{Image, ImageMedia};
use udax_mm::media::Site;
use udax_mm::recorder::{LeftOut, Mark, Recorder};
use udax_mm::sync::Arc;
use udax_mm::{Media, MediaError};

/// The selector has a line of its own, and so has each word of each slot.
fn word(slot: u64, index: u64) -> u64 {
    64 * (1 + 2 * slot + index)
}

fn load(media: &dyn Media) -> Result<(u64, u64), MediaError> {
    let slot = media.load_u64(0)?;
    Ok((media.load_u64(word(slot, 0))?, media.load_u64(word(slot, 1))?))
}

fn update(media: &dyn Media, value: u64) -> Result<(), MediaError> {
    let slot = 1 - media.load_u64(0)?;
    media.store_u64(word(slot, 0), value)?;
    media.store_u64(word(slot, 1), value)?;
    media.flush(word(slot, 0), 128, here())?;
    media.fence(here())?;
    media.store_u64(0, slot)?;
    media.flush(0, 8, here())?;
    media.fence(here())
}

#[track_caller]
fn here() -> Site {
    std::panic::Location::caller()
}

fn record(left_out: Option<LeftOut>) -> Trace {
    let start = Image::zeroed(4096);
    let media = match left_out {
        Some(left_out) => Recorder::leaving_out(start.clone(), left_out),
        None => Recorder::new(start.clone()),
    };
    for op in 0..3 {
        media.mark(Mark::Begin(op));
        update(&media, value_after(op)).expect("the words lie inside");
        media.mark(Mark::End(op));
    }
    Trace { start, events: media.take_events() }
}

fn value_after(op: usize) -> u64 {
    u64::try_from(op).expect("a few operations") + 1
}

/// The images tried, and what is wrong with the first bad one.
fn enumerate(trace: &Trace) -> (u64, Option<String>) {
    let mut tried = 0;
    for epoch in trace.epochs(1) {
        let allowed = match epoch.phase {
            Phase::Start => vec![0],
            Phase::Running(op) => vec![value_after(op) - 1, value_after(op)],
            Phase::Ended(op) => vec![value_after(op)],
        };
        let judge = |image: &Image| {
            let media = Arc::new(ImageMedia::new(image.clone()));
            let (first, second) = load(&*media).expect("the words lie inside");
            let is_good = first == second && allowed.contains(&first);
            let problem = (!is_good).then(|| format!("{first} {second}, allowed {allowed:?}"));
            Outcome { media, is_used: false, problem }
        };
        let mut seen = Seen::default();
        let tally = explore(&epoch, &Bound::FULL, &mut Rng::new(1), &mut seen, judge);
        tried += tally.tried;
        assert!(tally.is_exhaustive);
        if let Some((lines, problem)) = tally.failure {
            return (tried, Some(format!("event {}: {lines}: {problem}", epoch.event)));
        }
    }
    (tried, None)
}

#[test]
fn a_correct_protocol_has_no_bad_image() {
    let (tried, problem) = enumerate(&record(None));
    assert_eq!(problem, None);
    assert!(tried > 20, "only {tried} images were tried");
}

#[test]
fn a_missing_flush_or_fence_is_noticed_wherever_it_is() {
    let sites = record(None).sites(0..3);
    assert_eq!(sites.len(), 4);
    let unnoticed: BTreeSet<_> =
        sites.into_iter().filter(|site| enumerate(&record(Some(*site))).1.is_none()).collect();
    assert_eq!(unnoticed, BTreeSet::new());
}

#[test]
fn a_line_that_no_extreme_image_reads_is_varied_once_an_image_reads_it() {
    // The selector is switched before the other slot is written, so the two extremes read slots 0
    // and 1 of the last update, and only a mixed image shows the words out of step.
    let start = Image::zeroed(4096);
    let media = Recorder::new(start.clone());
    media.mark(Mark::Begin(0));
    media.store_u64(0, 1).unwrap();
    media.store_u64(word(1, 0), 1).unwrap();
    media.store_u64(word(1, 1), 1).unwrap();
    media.store_u64(0, 0).unwrap();
    media.fence(here()).unwrap();
    let (_, problem) = enumerate(&Trace { start, events: media.take_events() });
    assert!(problem.is_some());
}
