//! The allocator against a plain set of page numbers.

use super::*;
use proptest::prelude::*;

const DATA: Range<u64> = 37..512 * 6 + 100;

#[derive(Clone, Debug)]
enum Step {
    Allocate(u64),
    AllocateAt(u64, u64),
    Blocks(u64),
    Release(usize),
    Reserve(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![1..20_u64, 1..1500_u64].prop_map(Step::Allocate),
        2 => (DATA, 1..600_u64).prop_map(|(page, pages)| Step::AllocateAt(page, pages)),
        1 => (1..4_u64).prop_map(Step::Blocks),
        4 => any::<prop::sample::Index>().prop_map(|index| Step::Release(index.index(1 << 16))),
        1 => (DATA, 1..900_u64).prop_map(|(page, pages)| Step::Reserve(page, pages)),
    ]
}

struct Model {
    alloc: Allocator,
    free: BTreeSet<u64>,
    held: Vec<Extent>,
}

impl Model {
    fn new() -> Model {
        let alloc = Allocator::new(DeviceOff(DATA.start)..DeviceOff(DATA.end));
        Model { alloc, free: DATA.collect(), held: Vec::new() }
    }

    fn take(&mut self, extents: Vec<Extent>) -> u64 {
        for page in extents.iter().flat_map(|extent| extent.range()) {
            assert!(self.free.remove(&page), "page {page} was not free");
        }
        let pages = extents.iter().map(|extent| extent.pages.0).sum();
        self.held.extend(extents);
        pages
    }

    fn whole(&self) -> u64 {
        let is_whole = |block: &u64| {
            (block * BLOCK_PAGES..(block + 1) * BLOCK_PAGES).all(|page| self.free.contains(&page))
        };
        u64::try_from((0..DATA.end / BLOCK_PAGES).filter(is_whole).count()).unwrap()
    }

    fn allocate(&mut self, pages: u64, goal: Goal) {
        let free = self.alloc.free().0;
        match self.alloc.allocate(Pages(pages), goal) {
            Some(extents) => assert_eq!(self.take(extents), pages),
            None => assert!(pages > free, "refused {pages} of {free} pages"),
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Allocate(pages) => self.allocate(pages, Goal::Packed),
            Step::AllocateAt(page, pages) => self.allocate(pages, Goal::At(DeviceOff(page))),
            Step::Blocks(count) => {
                let whole = self.whole();
                let extents = self.alloc.allocate_blocks(count);
                assert!(extents.iter().all(|extent| extent.start.0 % BLOCK_PAGES == 0));
                assert_eq!(self.take(extents), count.min(whole) * BLOCK_PAGES);
            }
            Step::Release(index) if !self.held.is_empty() => {
                let extent = self.held.swap_remove(index % self.held.len());
                self.alloc.release(extent);
                self.free.extend(extent.range());
            }
            Step::Release(_) => {}
            Step::Reserve(page, pages) => self.reserve(Extent::of(page..page + pages)),
        }
    }

    fn reserve(&mut self, extent: Extent) {
        let taken = extent.range().find(|page| !self.free.contains(page));
        let result = self.alloc.reserve(extent);
        assert_eq!(result, taken.map_or(Ok(()), |page| Err(DoubleUse(DeviceOff(page)))));
        if taken.is_none() {
            self.take(vec![extent]);
        } else {
            // Pages before the clash stay taken; the model learns which.
            let free: Ranges = self.alloc.extents().into_iter().map(Extent::range).collect();
            self.free.retain(|&page| free.contains(page));
        }
    }

    fn verify(&self) {
        let free: Vec<u64> = self.alloc.extents().into_iter().flat_map(Extent::range).collect();
        assert_eq!(free, self.free.iter().copied().collect::<Vec<_>>());
        assert_eq!(self.alloc.free().0, u64::try_from(free.len()).unwrap());
        assert_eq!(self.alloc.huge_free(), self.whole());
    }
}

proptest! {
    #[test]
    fn the_allocator_is_a_set_of_pages(steps in prop::collection::vec(step(), 1..60)) {
        let mut model = Model::new();
        for step in &steps {
            model.run(step);
            model.verify();
        }
    }
}

#[test]
fn a_small_allocation_cuts_no_whole_block_while_a_cut_block_has_room() {
    let mut alloc = Allocator::new(DeviceOff(0)..DeviceOff(4 * BLOCK_PAGES));
    let first = alloc.allocate(Pages(1), Goal::Packed).unwrap();
    let all_in_one_block = (0..BLOCK_PAGES - 1).all(|_| {
        let page = alloc.allocate(Pages(1), Goal::Packed).unwrap()[0].start;
        page.0 / BLOCK_PAGES == first[0].start.0 / BLOCK_PAGES
    });
    assert!(all_in_one_block);
    assert_eq!(alloc.huge_free(), 3);
}

#[test]
fn adjacent_pages_are_preferred_to_scattered_ones() {
    let mut alloc = Allocator::new(DeviceOff(0)..DeviceOff(2 * BLOCK_PAGES));
    let taken = alloc.allocate(Pages(BLOCK_PAGES), Goal::Packed).unwrap();
    assert_eq!(taken.len(), 1);
    // Every second page of the first block, and 300 adjacent ones of the second.
    (0..BLOCK_PAGES).step_by(2).for_each(|page| alloc.release(Extent::of(page..page + 1)));
    alloc.reserve(Extent::of(BLOCK_PAGES..BLOCK_PAGES + 212)).unwrap();
    let taken = alloc.allocate(Pages(200), Goal::Packed).unwrap();
    assert_eq!(taken, [Extent::of(BLOCK_PAGES + 212..BLOCK_PAGES + 412)]);
}

#[test]
fn a_file_that_grows_stays_in_one_piece() {
    let mut alloc = Allocator::new(DeviceOff(0)..DeviceOff(BLOCK_PAGES));
    let first = alloc.allocate(Pages(3), Goal::Packed).unwrap()[0];
    alloc.reserve(Extent::of(100..101)).unwrap();
    let more = alloc.allocate(Pages(7), Goal::At(first.end())).unwrap();
    assert_eq!(more, [Extent { start: first.end(), pages: Pages(7) }]);
}

#[test]
fn a_whole_block_that_is_missed_is_counted() {
    let mut alloc = Allocator::new(DeviceOff(1)..DeviceOff(2 * BLOCK_PAGES - 1));
    assert!(alloc.allocate_blocks(1).is_empty());
    assert_eq!(alloc.huge_misses(), 1);
}
