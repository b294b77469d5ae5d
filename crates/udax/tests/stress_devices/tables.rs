//! The stack: leaves, the tables that are drawn for it, and where its pages are.

use crate::actor::{ALL, PAGES};
use crate::rng::Rng;
use std::time::Duration;
use udax_dev::{
    DaxDevice, Delay, Line, Linear, LogWrites, Mapped, Member, PgmapDevice, Striped, Table, Target,
};
use udax_mm::media::FileMedia;
use udax_mm::recorder::Event;
use udax_mm::sync::{Arc, Mutex};
use udax_mm::{DeviceOff, Media, MediaRange, MemoryType, Order, Pages, Pgmap, PgmapOff, Wait};

/// Pages of the striped part, of which two leaves have a half each, and of one chunk.
const STRIPED: u64 = 192;
const CHUNK: u64 = 8;

/// A device over stripes of two leaves, a third leaf behind them, and one of two behind that.
pub(crate) struct Stack {
    media: Vec<Arc<FileMedia>>,
    leaves: Vec<Arc<dyn DaxDevice>>,
    /// Stripes, which follow a table of their own.
    lower: Arc<dyn DaxDevice>,
    pub(crate) top: Arc<dyn DaxDevice>,
}

impl Stack {
    pub(crate) fn new() -> Stack {
        let media: Vec<_> = [STRIPED / 2, STRIPED / 2, PAGES - STRIPED, ALL - PAGES, ALL - PAGES]
            .into_iter()
            .map(|pages| Arc::new(FileMedia::memfd("leaf", Pages(pages).bytes()).unwrap()))
            .collect();
        let leaf = |media: &Arc<FileMedia>| -> Arc<dyn DaxDevice> {
            let pages = Pages::holding(media.len());
            let range = MediaRange { media: media.clone(), start: 0, pages };
            let pgmap = Pgmap::new(vec![range], MemoryType::Generic(Order::Base)).unwrap();
            Arc::new(PgmapDevice::new(pgmap))
        };
        let leaves: Vec<_> = media.iter().map(leaf).collect();
        let lower: Arc<dyn DaxDevice> = Arc::new(Mapped::new(stripes(&leaves)).unwrap());
        let whole = whole(&lower, &leaves[2], &leaves[3]);
        Stack { media, leaves, lower, top: Arc::new(Mapped::new(whole).unwrap()) }
    }

    /// Puts another table in use, of one layer or the other.
    pub(crate) fn change(&self, rng: &mut Rng) {
        let (device, table) = if rng.once_in(4) {
            (&self.lower, stripes(&self.leaves))
        } else {
            (&self.top, self.drawn(rng))
        };
        let wait = if rng.once_in(2) { Wait::Forever } else { Wait::Never };
        let mapped = device.as_mapped().unwrap();
        let swapped = mapped.swap(table, wait).unwrap();
        assert!(wait == Wait::Never || swapped.is_drained);
        let is_spare = |device: &Arc<dyn DaxDevice>| {
            self.leaves[3..].iter().any(|leaf| Arc::ptr_eq(leaf, device))
        };
        let left = swapped.left.iter().all(|left| is_spare(&left.device));
        assert!(left, "every other device is in every table");
    }

    /// Lets a page fail whose bytes nobody counts on.
    pub(crate) fn fail(&self, rng: &mut Rng) {
        let leaf = if rng.once_in(2) { &self.leaves[3] } else { &self.leaves[4] };
        let page = PgmapOff(rng.below(ALL - PAGES));
        let pgmap = leaf.pgmaps()[0].try_get_live().expect("it is killed last");
        pgmap.memory_failure(page.span(Pages(1)));
    }

    pub(crate) fn restore(&self) {
        let table = whole(&self.lower, &self.leaves[2], &self.leaves[3]);
        let mapped = self.top.as_mapped().unwrap();
        assert!(mapped.swap(table, Wait::Forever).unwrap().is_drained);
    }

    /// Lines that leave every page in its place, or let it fail; the last pages are where they like.
    fn drawn(&self, rng: &mut Rng) -> Table {
        let mut lines = Vec::new();
        let mut at = 0;
        while at < PAGES {
            let (device, first, end) = if at < STRIPED {
                (&self.lower, 0, STRIPED)
            } else {
                (&self.leaves[2], STRIPED, PAGES)
            };
            let pages = 1 + rng.below((end - at).min(64));
            let from = DeviceOff(at - first);
            let device = Arc::clone(device);
            let is_whole = at == first && at + pages == end;
            let target = match rng.below(10) {
                0 => Target::Error,
                1 => Target::Delay(Delay::new(device, from, Duration::from_micros(20))),
                2 if is_whole || from.0 == 0 => {
                    let log: Arc<Mutex<Vec<Event>>> = Arc::default();
                    Target::LogWrites(LogWrites::new(device, log))
                }
                _ => Target::Linear(Linear::new(device, from)),
            };
            lines.push(Line { start: DeviceOff(at), pages: Pages(pages), target });
            at += pages;
        }
        // Each of these stays in the table, whatever is drawn.
        let has = |device: &Arc<dyn DaxDevice>| {
            let members = lines.iter().flat_map(|line| line.target.members());
            members.into_iter().any(|member| Arc::ptr_eq(&member.device, device))
        };
        let spare = if rng.once_in(2) { &self.leaves[3] } else { &self.leaves[4] };
        if !has(&self.lower) || !has(&self.leaves[2]) {
            return whole(&self.lower, &self.leaves[2], spare);
        }
        let target = match rng.below(4) {
            0 => Target::Error,
            _ => Target::Linear(Linear::new(Arc::clone(spare), DeviceOff(0))),
        };
        lines.push(Line { start: DeviceOff(PAGES), pages: Pages(ALL - PAGES), target });
        Table::new(lines).unwrap()
    }

    /// All bytes of the leaves that are killed, past every device and page map. One that has left may
    /// be pinned still: it is its own device.
    pub(crate) fn memory(&self) -> Vec<Vec<u8>> {
        let bytes = |media: &Arc<FileMedia>| {
            let mut bytes = vec![0; usize::try_from(media.len()).unwrap()];
            media.read(0, &mut bytes).unwrap();
            bytes
        };
        self.media[..4].iter().map(bytes).collect()
    }

    /// The word of an actor in a page of the whole, worked out by hand.
    pub(crate) fn word(memory: &[Vec<u8>], page: u64, actor: u64) -> u64 {
        let (leaf, below) = if page < STRIPED {
            (page / CHUNK % 2, page / CHUNK / 2 * CHUNK + page % CHUNK)
        } else {
            (2, page - STRIPED)
        };
        let at = usize::try_from(PgmapOff(below).byte() + 8 * actor).unwrap();
        let bytes = &memory[usize::try_from(leaf).unwrap()][at..at + 8];
        u64::from_le_bytes(bytes.try_into().unwrap())
    }

    pub(crate) fn verify(&self) {
        for pgmap in self.leaves.iter().flat_map(|leaf| leaf.pgmaps()) {
            pgmap.verify().unwrap();
            assert!(pgmap.busy().is_empty(), "I-04: nothing is in use");
        }
    }
}

fn stripes(leaves: &[Arc<dyn DaxDevice>]) -> Table {
    let member =
        |leaf: &Arc<dyn DaxDevice>| Member { device: Arc::clone(leaf), from: DeviceOff(0) };
    let members = leaves[..2].iter().map(member).collect();
    let target = Target::Striped(Striped::new(Pages(CHUNK), members));
    Table::new(vec![Line { start: DeviceOff(0), pages: Pages(STRIPED), target }]).unwrap()
}

fn whole(
    lower: &Arc<dyn DaxDevice>,
    tail: &Arc<dyn DaxDevice>,
    spare: &Arc<dyn DaxDevice>,
) -> Table {
    Table::concat([lower, tail, spare].map(Arc::clone).to_vec()).unwrap()
}
