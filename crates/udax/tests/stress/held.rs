//! A pin that a thread holds for more than one operation.

use crate::model::{Cells, PAGE, Zone, count, us};
use std::ops::Range;
use udax::{File, Pin};

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
        let is_firm = !zone.overlaps(&pin.range());
        // Read when the next round begins; until then it says nothing.
        Held { pin, file, can_store, label, bytes: Vec::new(), lost: Vec::new(), is_firm }
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.pin.range()
    }

    pub(crate) fn begin(&mut self, zone: &Zone) {
        self.is_firm = self.lost.is_empty() && !zone.overlaps(&self.range());
    }

    /// Stores at byte `at` of the file, or where it was when the file had the page.
    pub(crate) fn store(&mut self, at: u64, bytes: &[u8]) {
        let from = at - self.range().start;
        self.pin.write(bytes, from).unwrap();
        if let Some(known) = self.bytes.get_mut(us(from)..us(from) + bytes.len()) {
            known.copy_from_slice(bytes);
        }
    }

    /// Compares it with the file, when nobody runs.
    pub(crate) fn check(&mut self, file: &File, of_file: &[u8], thread: u64, when: &str) {
        let range = self.range();
        let mut now = vec![0; us(range.end - range.start)];
        self.pin.read(&mut now, 0).unwrap();
        let pins = file.pins();
        let kept: Vec<_> = pins.iter().filter(|pin| *pin.owner().label == *self.label).collect();
        let pages = count(now.len()) / PAGE;
        for page in 0..pages {
            let at = range.start + page * PAGE;
            let has_page = kept.iter().any(|pin| pin.range().contains(&at));
            let part = us(page * PAGE)..us((page + 1) * PAGE);
            if has_page {
                assert!(!self.lost.contains(&page), "{when}: the file has page {page} again");
                let wanted = &of_file[us(at)..us(at + PAGE)];
                assert!(now[part] == *wanted, "{when}: the pin has another page at byte {at}");
                continue;
            }
            assert!(!self.is_firm, "{when}: the file lost pinned bytes {at}");
            if self.lost.contains(&page) {
                // Nobody else has it: what changes it is a stray store, but for ours.
                let is_ours = |place: &usize| {
                    Cells::owner(count(*place)) == thread && now[*place] != self.bytes[*place]
                };
                let strange = part.clone().find(|place| now[*place] != self.bytes[*place]);
                assert_eq!(
                    strange,
                    None,
                    "{when}: a lost page changed, ours: {:?}",
                    strange.as_ref().map(is_ours)
                );
            } else {
                self.lost.push(page);
            }
        }
        self.bytes = now;
    }
}
