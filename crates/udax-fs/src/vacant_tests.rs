//! Pages that are freed while somebody uses them.

use super::*;
use crate::format::Ino;
use crate::graft::Piece;
use crate::replace::Content;
use crate::testing;
use crate::tree::{Run, Tree};
use crate::txn::Txn;
use udax_mm::{FileIndex, Folio, Order, Pages};

/// A file of eight pages of which somebody uses the third.
struct Used {
    store: Arc<Store>,
    tree: Tree,
    page: Extent,
    user: Option<Folio>,
}

impl Used {
    fn new() -> Used {
        let store = testing::store(Pages(1024));
        let tree = testing::insert(&store, &testing::tree(Ino(12)), 0..8);
        let data = testing::cut(&store, &tree, 2..3).freed()[0];
        let span = store.span(data).unwrap();
        let user = Some(span.pgmap().request_folio(span.at(), Order::Base).unwrap());
        Used { store, tree, page: data, user }
    }

    /// Cuts the whole file, as breaking the layout with deferral would prove it vacant.
    fn cut(&self) -> (Txn<'_>, Tree) {
        let cut = testing::cut(&self.store, &self.tree, 0..8);
        let sink: Arc<dyn LimboSink> = self.store.clone();
        let (mut idle, mut limbo) = (Vec::new(), Vec::new());
        for &extent in cut.freed() {
            let span = self.store.span(extent).unwrap();
            let (claims, deferred) = span.pgmap().claim_or_defer(span.range(), &sink).unwrap();
            idle.extend(claims.into_iter().flat_map(|claim| locate(&self.store, claim)));
            let pgmap = span.pgmap().pgmap();
            limbo.extend(deferred.into_iter().flat_map(|r| self.store.extents_of(pgmap, r)));
        }
        let vacant = Vacant { store: Arc::clone(&self.store), idle, limbo, failed: Vec::new() };
        let mut txn = Txn::new(&self.store);
        let tree = txn.cut(cut, vacant).unwrap();
        (txn, tree)
    }

    fn is_free(&self) -> bool {
        let free: Ranges = self.store.free_extents().into_iter().map(Extent::range).collect();
        free.covers(&self.page.range())
    }

    /// Whether somebody else could use the page, as part of the file.
    fn is_idle(&self) -> bool {
        let span = self.store.span(self.page).unwrap();
        span.pgmap().claim(span.range()).is_ok()
    }
}

#[test]
fn a_page_in_use_is_freed_with_its_last_put() {
    let mut used = Used::new();
    let before = used.store.free_pages();
    let (txn, tree) = used.cut();
    txn.commit().unwrap();
    assert!(tree.is_empty());
    // Eight pages of data and a node, less the one in use.
    assert_eq!(used.store.free_pages(), before + Pages(8));
    assert_eq!(used.store.limbo_pages(), Pages(1));
    assert!(!used.is_free() && !used.is_idle());

    used.user = None;
    assert!(used.is_free() && used.is_idle());
    assert_eq!(used.store.limbo_pages(), Pages(0));
}

#[test]
fn a_page_whose_last_put_comes_before_the_commit_is_freed_by_the_commit() {
    let mut used = Used::new();
    let user = used.user.take();
    let (txn, _) = {
        let cut = used.cut();
        drop(user);
        cut
    };
    assert!(!used.is_free() && !used.is_idle());
    txn.commit().unwrap();
    assert!(used.is_free() && used.is_idle());
    assert_eq!(used.store.limbo_pages(), Pages(0));
}

#[test]
fn a_page_stays_with_its_file_if_the_transaction_is_dropped() {
    let mut used = Used::new();
    drop(used.cut());
    assert!(!used.is_free());
    used.user = None;
    assert!(!used.is_free() && used.is_idle());
}

#[test]
fn a_page_whose_last_put_came_first_stays_with_its_file_if_the_transaction_is_dropped() {
    let mut used = Used::new();
    let user = used.user.take();
    let txn = used.cut();
    drop(user);
    drop(txn);
    assert!(!used.is_free() && used.is_idle());
}

#[test]
fn a_page_that_stayed_can_be_freed_later() {
    let mut used = Used::new();
    drop(used.cut());
    used.user = None;
    used.cut().0.commit().unwrap();
    assert!(used.is_free() && used.is_idle());
    assert_eq!(used.store.limbo_pages(), Pages(0));
}

#[test]
fn what_was_decided_last_holds_and_once_only() {
    let used = Used::new();
    let page = testing::cut(&used.store, &used.tree, 0..1).freed()[0];
    let claim = || {
        let span = used.store.span(page).unwrap();
        span.pgmap().claim(span.range()).unwrap()
    };
    let mut limbo = crate::limbo::Limbo::default();
    let _ = limbo.keep(&[page]);
    let _ = limbo.free(&[page]);
    assert_eq!(limbo.returned(vec![(page, claim())]).free, [page]);
    let decided = limbo.returned(vec![(page, claim())]);
    assert!(decided.claims.is_empty(), "nothing is known of the page any more");
}

#[test]
fn pages_that_come_back_together_are_told_apart() {
    let used = Used::new();
    let claim = |extent: Extent| {
        let span = used.store.span(extent).unwrap();
        span.pgmap().claim(span.range()).unwrap()
    };
    let data = testing::cut(&used.store, &used.tree, 3..8).freed().to_vec();
    let [all] = data[..] else { panic!("eight fresh pages are adjacent") };
    let first = Extent { start: all.start, pages: Pages(2) };
    let rest = Extent { start: first.end(), pages: Pages(3) };
    let mut limbo = crate::limbo::Limbo::default();
    let _ = limbo.free(&[first]);
    let decided = limbo.returned(vec![(all, claim(all))]);
    let freed: Ranges = decided.free.iter().map(|extent| extent.range()).collect();
    assert_eq!(freed.iter().collect::<Vec<_>>(), [first.range()]);
    let decided = limbo.keep(&[rest]);
    assert!(decided.free.is_empty() && !decided.claims.is_empty());
}

/// Two files that have the same eight pages.
struct Sharing {
    used: Used,
    other: Tree,
}

impl Sharing {
    fn new() -> Sharing {
        let mut used = Used::new();
        used.tree.may_share = true;
        let mut other = testing::tree(Ino(13));
        other.may_share = true;
        let runs = used.tree.runs(&used.store, FileIndex(0)..FileIndex(8)).unwrap();
        let piece = |run: &Run| Piece {
            index: run.index.0,
            extent: Extent { start: run.device, pages: run.pages },
        };
        let pieces = Content::Shared(runs.iter().map(piece).collect());
        let swap = other.replace(&used.store, FileIndex(0)..FileIndex(8), pieces).unwrap();
        let swap = swap.flush(&used.store).unwrap().fence(&used.store).unwrap();
        let mut txn = Txn::new(&used.store);
        let other = txn.cut(swap, Vacant::none(&used.store)).unwrap();
        txn.commit().unwrap();
        Sharing { used, other }
    }

    /// Cuts all of a file of which every page was shared when its layout was broken.
    fn cut(&self, tree: &Tree) -> Txn<'_> {
        let cut = testing::cut(&self.used.store, tree, 0..8);
        let mut txn = Txn::new(&self.used.store);
        let _ = txn.cut(cut, Vacant::none(&self.used.store)).unwrap();
        txn
    }
}

#[test]
fn a_page_is_freed_by_the_last_file_that_gives_it_up_whichever_that_is() {
    let mut sharing = Sharing::new();
    sharing.used.user = None;
    let before = sharing.used.store.free_pages();
    // Both break their layouts, and find the pages shared, before either commits.
    let (first, second) = (sharing.cut(&sharing.used.tree), sharing.cut(&sharing.other));
    second.commit().unwrap();
    assert!(!sharing.used.is_free());
    first.commit().unwrap();
    assert!(sharing.used.is_free() && sharing.used.is_idle());
    assert_eq!(sharing.used.store.free_pages(), before + Pages(10), "data and two nodes");
    assert_eq!(sharing.used.store.limbo_pages(), Pages(0));
}

#[test]
fn a_shared_page_in_use_is_freed_with_its_last_put_after_the_last_file_gave_it_up() {
    let mut sharing = Sharing::new();
    let (first, second) = (sharing.cut(&sharing.used.tree), sharing.cut(&sharing.other));
    first.commit().unwrap();
    assert_eq!(sharing.used.store.limbo_pages(), Pages(0));
    second.commit().unwrap();
    assert!(!sharing.used.is_free());
    assert_eq!(sharing.used.store.limbo_pages(), Pages(1));
    sharing.used.user = None;
    assert!(sharing.used.is_free() && sharing.used.is_idle());
    assert_eq!(sharing.used.store.limbo_pages(), Pages(0));
}

#[test]
fn a_proof_is_split_at_every_page() {
    let mut used = Used::new();
    used.user = None;
    let data = testing::cut(&used.store, &used.tree, 0..8).freed()[0].range();
    for part in [0..8, 0..3, 2..5, 7..8, 4..4] {
        let part = data.start + part.start..data.start + part.end;
        let mut whole = Vacant::claim(&used.store, &[Extent::of(data.clone())]).unwrap();
        let first = whole.split_off(&[Extent::of(part.clone())]);
        assert!(first.covers(&[Extent::of(part.clone())]));
        let outside = [data.start..part.start, part.end..data.end].map(Extent::of);
        assert!(whole.covers(&outside));
        assert!(part.is_empty() || !whole.covers(&[Extent::of(part)]));
    }
}
