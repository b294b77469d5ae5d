//! A pin that a thread holds for more than one operation.

use crate::model::{Cells, PAGE, Zone, count, us};
use std::collections::BTreeSet;
use std::ops::Range;
use udax::{ErrorKind, File, Pin};

/// A pin of whole pages.
pub(crate) struct Held {
    pub(crate) pin: Pin,
    pub(crate) file: usize,
    pub(crate) can_store: bool,
    label: String,
    /// What its pages hold, as far as this thread knows; in order of the file.
    bytes: Vec<u8>,
    /// Pages that the file does not have any more, counted from the first.
    lost: Vec<u64>,
    /// Nothing of the pin may be left behind in this round.
    pub(crate) is_firm: bool,
}

impl Held {
    pub(crate) fn new(pin: Pin, file: usize, can_store: bool, label: String, zone: &Zone) -> Held {
        let is_firm = is_firm(&pin, can_store, zone);
        // Read when the next round begins; until then it says nothing.
        Held { pin, file, can_store, label, bytes: Vec::new(), lost: Vec::new(), is_firm }
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.pin.range()
    }

    pub(crate) fn begin(&mut self, zone: &Zone) {
        self.is_firm = self.lost.is_empty() && is_firm(&self.pin, self.can_store, zone);
    }

    /// Stores at byte `at` of the file, or where it was when the file had the page.
    pub(crate) fn store(&mut self, at: u64, bytes: &[u8]) -> Result<(), udax::Error> {
        let from = at - self.range().start;
        self.pin.write(bytes, from)?;
        if let Some(known) = self.bytes.get_mut(us(from)..us(from) + bytes.len()) {
            known.copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Compares it with the file, of which some pages are `bad`, when nobody runs.
    pub(crate) fn check(
        &mut self,
        file: &File,
        of_file: &[u8],
        bad: &BTreeSet<u64>,
        thread: u64,
        when: &str,
    ) {
        let range = self.range();
        let pins = file.pins();
        let kept: Vec<_> = pins.iter().filter(|pin| *pin.owner().label == *self.label).collect();
        let pages = (range.end - range.start) / PAGE;
        self.bytes.resize(us(pages * PAGE), 0);
        for page in 0..pages {
            let at = range.start + page * PAGE;
            let part = us(page * PAGE)..us((page + 1) * PAGE);
            let mut now = vec![0; us(PAGE)];
            let read = self.pin.read(&mut now, page * PAGE);
            if kept.iter().any(|pin| pin.range().contains(&at)) {
                assert!(!self.lost.contains(&page), "{when}: the file has page {page} again");
                let is_bad = bad.contains(&(at / PAGE));
                assert_eq!(is_bad, is_media(&read), "{when}: pinned byte {at} is {read:?}");
                // The file may end inside the page.
                let wanted = &of_file[us(at)..us(at + PAGE).min(of_file.len())];
                let is_same = now.starts_with(wanted);
                assert!(is_bad || is_same, "{when}: the pin has another page at byte {at}");
            } else {
                assert!(!self.is_firm, "{when}: the file lost pinned bytes {at}");
                if !self.lost.contains(&page) {
                    self.lost.push(page);
                } else if read.is_ok() {
                    self.check_lost(&part, &now, thread, when);
                } else {
                    assert!(is_media(&read), "{when}: lost byte {at} is {read:?}");
                }
            }
            self.bytes[part].copy_from_slice(&now);
        }
    }

    /// Nobody else has a page that was lost: what changes it is a stray store, but for ours.
    fn check_lost(&self, part: &Range<usize>, now: &[u8], thread: u64, when: &str) {
        let strange = part.clone().find(|place| now[place - part.start] != self.bytes[*place]);
        let is_ours = |place: &usize| Cells::owner(count(*place)) == thread;
        let is_ours = strange.as_ref().map(is_ours);
        assert_eq!(strange, None, "{when}: a lost page changed, ours: {is_ours:?}");
    }
}

/// Whether nothing of a pin can be left behind in a round. A pin for reading stays with data that
/// was shared.
fn is_firm(pin: &Pin, can_store: bool, zone: &Zone) -> bool {
    !zone.overlaps(&pin.range()) && (can_store || !zone.may_share(&pin.range()))
}

fn is_media(read: &Result<(), udax::Error>) -> bool {
    read.as_ref().is_err_and(|error| error.kind() == ErrorKind::Media)
}
