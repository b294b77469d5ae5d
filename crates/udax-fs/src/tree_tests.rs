//! Trees against a map from file index to device page.

use super::*;
use crate::alloc::Extent;
use crate::ranges::Ranges;
use crate::stored::Object;
use crate::testing;
use crate::txn::Txn;
use proptest::prelude::*;
use std::collections::BTreeMap;
use udax_mm::sync::Arc;

const INO: Ino = Ino(12);

/// A file whose pages the model knows.
struct Model {
    store: Arc<Store>,
    tree: Tree,
    pages: BTreeMap<u64, u64>,
}

impl Model {
    fn new() -> Model {
        let store = testing::store(Pages(16 * 512));
        Model { store, tree: testing::tree(INO), pages: BTreeMap::new() }
    }

    /// Fills the holes of the range; the model learns where the pages lie.
    fn fill(&mut self, range: Range<u64>) {
        let mut holes: Ranges = [range.clone()].into_iter().collect();
        self.pages.range(range).for_each(|(&page, _)| drop(holes.take(&(page..page + 1))));
        for hole in holes.iter() {
            if hole.end - hole.start + 8 > self.store.free_pages().0 {
                return;
            }
            let data = testing::zeros(&self.store, hole);
            for (index, stored) in &data {
                let extent = stored.object().fresh()[0].extent();
                self.pages.extend((index.0..).zip(extent.range()));
            }
            let graft = self.tree.insert(&self.store, data).unwrap();
            let graft = graft.flush(&self.store).unwrap().fence(&self.store).unwrap();
            let mut txn = Txn::new(&self.store);
            self.tree = txn.publish(graft);
            txn.commit().unwrap();
        }
    }

    fn clear(&mut self, range: Range<u64>) {
        if self.store.free_pages() < Pages(8) {
            return;
        }
        self.tree = testing::clear(&self.store, &self.tree, range.clone());
        self.pages.retain(|page, _| !range.contains(page));
    }

    /// The tree finds what the model knows, and uses what the allocator does not have.
    fn verify(&self) {
        let end = FileIndex(1 << 30);
        let runs = self.tree.runs(&self.store, FileIndex(0)..end).unwrap();
        let found: BTreeMap<u64, u64> = runs
            .iter()
            .flat_map(|run| (run.index.0..).zip(run.device.0..run.device.0 + run.pages.0))
            .collect();
        assert_eq!(found, self.pages);

        let mut used = Ranges::default();
        let mut reserve = |start: DeviceOff, pages: Pages| {
            assert!(used.take(&(start.0..start.0 + pages.0)).is_empty(), "page {start} twice");
            used.insert(start.0..start.0 + pages.0);
        };
        let visit = &mut |visit: Visit| {
            match visit {
                Visit::Node(node) => reserve(node, Pages(1)),
                Visit::Data(run) => reserve(run.device, run.pages),
                Visit::Bad(error) => return Err(error),
            }
            Ok(())
        };
        self.tree.walk(&self.store, visit).unwrap();
        assert_eq!(used.count(), self.tree.pages.0);
        let geometry = self.store.geometry();
        let free = self.store.free_extents().into_iter().map(Extent::range);
        free.for_each(|range| used.insert(range));
        assert_eq!(used.first(), Some(geometry.data.0..geometry.end.0));
    }
}

fn range() -> impl Strategy<Value = Range<u64>> {
    let start = prop_oneof![
        0..40_u64,
        500..530_u64,
        (0..4_u64).prop_map(|block| block * 512),
        Just(512 * 512 - 3),
        Just(512 * 512 * 3),
    ];
    let pages = prop_oneof![1..20_u64, Just(512), Just(1024), 500..1100_u64];
    (start, pages).prop_map(|(start, pages)| start..start + pages)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_is_a_map_from_index_to_page(
        steps in prop::collection::vec((prop::bool::weighted(0.6), range()), 1..14)
    ) {
        let mut model = Model::new();
        for (is_fill, range) in steps {
            if is_fill { model.fill(range) } else { model.clear(range) }
            model.verify();
        }
        model.clear(0..1 << 30);
        prop_assert_eq!(model.tree, testing::tree(INO));
        model.verify();
    }
}

#[test]
fn a_tree_that_grows_by_two_levels_at_once_has_no_node_too_many() {
    let mut model = Model::new();
    model.fill(0..1);
    model.fill(100..1000);
    model.verify();
}

#[test]
fn a_whole_aligned_block_is_one_entry() {
    let store = testing::store(Pages(8 * 512));
    let tree = testing::insert(&store, &testing::tree(INO), 0..1024 + 3);
    // Two blocks, one node for the tail and one above; 1027 pages of data.
    assert_eq!(tree.pages, Pages(1027 + 2));
    let Lookup::Run(run) = tree.lookup(&store, FileIndex(700), index(512..1024)).unwrap() else {
        panic!("page 700 is data");
    };
    assert_eq!((run.index, run.pages, run.order), (FileIndex(512), Pages(512), Order::Pmd));
    assert!(run.device.is_aligned(Order::Pmd));
}

#[test]
fn punching_into_a_block_splits_it() {
    let store = testing::store(Pages(8 * 512));
    let tree = testing::insert(&store, &testing::tree(INO), 0..512);
    let free = store.free_pages();
    let tree = testing::clear(&store, &tree, 100..200);
    assert_eq!(store.free_pages(), free + Pages(100 - 1));
    assert_eq!(tree.pages, Pages(412 + 1));
    let runs = tree.runs(&store, index(0..512)).unwrap();
    let found: Vec<_> = runs.iter().map(|run| (run.index.0, run.pages.0)).collect();
    assert_eq!(found, [(0, 100), (200, 312)]);
}

#[test]
fn a_cut_through_adjacent_blocks_splits_the_first_and_the_last() {
    let store = testing::store(Pages(8 * 512));
    let tree = testing::insert(&store, &testing::tree(INO), 0..4 * 512);
    let Lookup::Run(run) = tree.lookup(&store, FileIndex(700), index(0..2048)).unwrap() else {
        panic!("page 700 is data");
    };
    assert_eq!((run.pages, run.order), (Pages(2048), Order::Pmd), "four entries are one run");
    let (free, end) = (store.free_pages(), 3 * 512 + 7);
    let tree = testing::clear(&store, &tree, 100..end);
    assert_eq!(store.free_pages(), free + Pages(end - 100 - 2));
    let runs = tree.runs(&store, index(0..2048)).unwrap();
    let found: Vec<_> = runs.iter().map(|run| (run.index.0, run.pages.0)).collect();
    assert_eq!(found, [(0, 100), (end, 2048 - end)]);
}

#[test]
fn a_lookup_stays_inside_the_range_asked_for() {
    let store = testing::store(Pages(8 * 512));
    let tree = testing::insert(&store, &testing::tree(INO), 10..30);
    let lookup = |at, within| tree.lookup(&store, FileIndex(at), index(within)).unwrap();
    let Lookup::Run(run) = lookup(20, 15..25) else { panic!("page 20 is data") };
    assert_eq!((run.index, run.pages), (FileIndex(15), Pages(10)));
    assert_eq!(lookup(3, 0..8), Lookup::Hole(Pages(5)));
    assert_eq!(lookup(3, 0..100), Lookup::Hole(Pages(7)));
    assert_eq!(lookup(1 << 40, index_end()), Lookup::Hole(Pages(5)));
}

/// A lookup reads the cache line of an entry first, eight of them.
#[test]
fn what_a_lookup_finds_does_not_end_with_a_cache_line() {
    let store = testing::store(Pages(8 * 512));
    let mut tree = testing::tree(INO);
    for data in [3..30, 40..48, 56..57, 63..64] {
        tree = testing::insert(&store, &tree, data);
    }
    tree = testing::clear(&store, &tree, 20..21);
    let found = |at| match tree.lookup(&store, FileIndex(at), index(0..100)).unwrap() {
        Lookup::Run(run) => (run.index.0, run.pages.0),
        Lookup::Hole(pages) => (at, pages.0),
    };
    for data in [3..20, 21..30, 40..48, 56..57, 63..64] {
        let all = (data.start, data.end - data.start);
        data.for_each(|at| assert_eq!(found(at), all, "page {at}"));
    }
    for hole in [0..3, 20..21, 30..40, 48..56, 57..63, 64..100] {
        hole.clone().for_each(|at| assert_eq!(found(at), (at, hole.end - at), "page {at}"));
    }
}

#[test]
fn a_bad_entry_is_met_and_named_and_the_rest_is_walked() {
    let store = testing::store(Pages(8 * 512));
    let tree = testing::insert(&store, &testing::tree(INO), 0..3);
    let Entry::Node(node) = tree.root(&store).unwrap() else { panic!("three pages need a node") };
    let raw = store.load_u64(entry_byte(node, 1)).unwrap();
    testing::bytes(&store).store_u64(entry_byte(node, 1), raw ^ 1).unwrap();

    let (mut good, mut bad) = (Vec::new(), Vec::new());
    tree.walk(&store, &mut |visit| {
        match visit {
            Visit::Node(_) => {}
            Visit::Data(run) => good.push(run.index.0),
            Visit::Bad(error) => bad.push(error.to_string()),
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(good, [0, 2]);
    assert!(bad[0].contains("inode 12") && bad[0].contains("page 1 at level 0"), "{bad:?}");
    assert!(tree.lookup(&store, FileIndex(1), index(0..3)).is_err());
}

#[test]
fn a_bad_entry_ends_what_is_found_beside_it() {
    for bit in [0, 40, 47, 48, 63] {
        let store = testing::store(Pages(8 * 512));
        let tree = testing::insert(&store, &testing::tree(INO), 0..30);
        let Entry::Node(node) = tree.root(&store).unwrap() else { panic!("30 pages need a node") };
        let raw = store.load_u64(entry_byte(node, 20)).unwrap();
        testing::bytes(&store).store_u64(entry_byte(node, 20), raw ^ 1 << bit).unwrap();

        let around = |at| tree.lookup(&store, FileIndex(at), index(0..100));
        let found = |at| match around(at).unwrap() {
            Lookup::Run(run) => (run.index.0, run.pages.0),
            Lookup::Hole(_) => panic!("page {at} is data"),
        };
        assert_eq!((found(3), found(25)), ((0, 20), (21, 9)), "bit {bit}");
        assert!(around(20).is_err(), "bit {bit}");
        assert!(tree.runs(&store, index(0..30)).is_err(), "bit {bit}");
        assert!(tree.clear(&store, index(0..30)).is_err(), "bit {bit}");
        assert!(tree.clear(&store, index(0..20)).is_ok(), "bit {bit}");
    }
}

#[test]
fn a_full_pool_undoes_an_insertion() {
    let store = testing::store(Pages(512));
    let tree = testing::tree(INO);
    let free = store.free_pages();
    // Pages enough for the data, none for the node.
    let data = testing::zeros(&store, 0..free.0);
    let error = tree.insert(&store, data).unwrap_err();
    assert!(matches!(error, FsError::NoSpace { .. }), "{error}");
    assert_eq!(store.free_pages(), free);
}

#[test]
fn a_file_past_the_largest_is_refused() {
    let store = testing::store(Pages(512));
    let data = testing::zeros(&store, 1 << 36..(1 << 36) + 1);
    let error = testing::tree(INO).insert(&store, data).unwrap_err();
    assert!(matches!(error, FsError::TooLarge { .. }), "{error}");
}

fn index(range: Range<u64>) -> Range<FileIndex> {
    FileIndex(range.start)..FileIndex(range.end)
}

fn index_end() -> Range<u64> {
    1 << 40..(1 << 40) + 5
}
