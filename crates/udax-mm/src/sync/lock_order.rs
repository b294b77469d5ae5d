//! Which lock was taken while which other was held: the edges of the lock order, as they happen.
//!
//! Locks are recorded in builds with debug assertions and with the feature `lock-order`; elsewhere
//! nothing is, and [`Held`] is empty. All locks around one type of value are one class, so a value
//! that is only there to be locked has a type of its own, never `()`. A cycle among the classes is
//! two threads that could wait for each other; it is found whether or not they ever met.
//!
//! A lock that was taken without waiting for it ([`Held::tried`]) cannot close a cycle.

#[cfg(all(any(debug_assertions, feature = "lock-order"), not(any(loom, shuttle))))]
pub use self::recorder::Held;
#[cfg(not(all(any(debug_assertions, feature = "lock-order"), not(any(loom, shuttle)))))]
pub use self::silent::Held;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::Location;

/// A lock of class `outer` was held while one of class `inner` was waited for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Edge {
    /// The type in the lock that was held, or the name of one that is not around a value.
    pub outer: &'static str,
    /// The same of the lock that was waited for.
    pub inner: &'static str,
    /// Where it was first seen to be waited for.
    pub site: &'static Location<'static>,
}

/// Every edge that any thread of this process has shown so far, each pair once.
pub fn edges() -> Vec<Edge> {
    #[cfg(all(any(debug_assertions, feature = "lock-order"), not(any(loom, shuttle))))]
    return recorder::edges();
    #[cfg(not(all(any(debug_assertions, feature = "lock-order"), not(any(loom, shuttle)))))]
    return Vec::new();
}

/// A way from a lock to itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cycle(Vec<Edge>);

/// Whether the classes have an order: nothing that is inside a lock is also outside of it. A class
/// in `nests` may be taken inside itself, because its locks have an order among themselves.
///
/// # Errors
///
/// The [`Cycle`] found.
pub fn check(edges: &[Edge], nests: &[&str]) -> Result<(), Cycle> {
    let mut inside: BTreeMap<&str, Vec<Edge>> = BTreeMap::new();
    for &edge in edges.iter().filter(|edge| edge.outer != edge.inner) {
        inside.entry(edge.outer).or_default().push(edge);
    }
    let nested = edges.iter().find(|edge| edge.outer == edge.inner && !nests.contains(&edge.outer));
    if let Some(&edge) = nested {
        return Err(Cycle(vec![edge]));
    }
    let mut done = BTreeSet::new();
    inside.keys().try_for_each(|class| descend(class, &inside, &mut done, &mut Vec::new()))
}

/// Walks to everything inside `class`; `way` is how it got there.
fn descend<'c>(
    class: &'c str,
    inside: &BTreeMap<&'c str, Vec<Edge>>,
    done: &mut BTreeSet<&'c str>,
    way: &mut Vec<Edge>,
) -> Result<(), Cycle> {
    if let Some(first) = way.iter().position(|edge| edge.outer == class) {
        return Err(Cycle(way.split_off(first)));
    }
    if !done.contains(class) {
        for edge in inside.get(class).into_iter().flatten() {
            way.push(*edge);
            descend(edge.inner, inside, done, way)?;
            way.pop();
        }
        done.insert(class);
    }
    Ok(())
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} ({})", self.outer, self.inner, self.site)
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|edge| writeln!(f, "{edge}"))
    }
}

#[cfg(not(all(any(debug_assertions, feature = "lock-order"), not(any(loom, shuttle)))))]
mod silent {
    use super::Location;

    /// A lock that this thread holds; nothing is recorded in this build.
    #[derive(Debug)]
    pub struct Held;

    impl Held {
        /// A lock of `class` that the thread is about to wait for, or has waited for.
        #[inline]
        pub fn new(_: &'static str, _: &'static Location<'static>) -> Held {
            Held
        }

        /// A lock of `class` that the thread got without waiting.
        #[inline]
        pub fn tried(_: &'static str) -> Held {
            Held
        }
    }
}

#[cfg(all(any(debug_assertions, feature = "lock-order"), not(any(loom, shuttle))))]
mod recorder {
    use super::super::{PoisonError, imp};
    use super::Edge;
    use std::cell::{Cell, RefCell};
    use std::collections::{BTreeMap, HashSet};
    use std::panic::Location;

    type Edges = BTreeMap<(&'static str, &'static str), &'static Location<'static>>;

    static EDGES: imp::Mutex<Edges> = imp::Mutex::new(Edges::new());

    thread_local! {
        /// The locks that the thread holds, oldest first.
        static HELD: RefCell<Vec<(u64, &'static str)>> = const { RefCell::new(Vec::new()) };
        static NEXT: Cell<u64> = const { Cell::new(0) };
        /// What this thread has recorded already, by the addresses of the two names.
        static KNOWN: RefCell<HashSet<(usize, usize)>> = RefCell::default();
    }

    /// A lock that this thread holds. Dropped by the same thread, when the lock is.
    #[derive(Debug)]
    pub struct Held {
        number: u64,
        class: &'static str,
        site: &'static Location<'static>,
    }

    impl Held {
        /// A lock of `class` that the thread is about to wait for, or has waited for.
        pub fn new(class: &'static str, site: &'static Location<'static>) -> Held {
            let held = Held::push(class, site);
            held.note_again();
            held
        }

        /// A lock of `class` that the thread got without waiting.
        #[track_caller]
        pub fn tried(class: &'static str) -> Held {
            Held::push(class, Location::caller())
        }

        /// The lock is given back for a while, and waited for inside everything else that is held.
        pub(in super::super) fn note_again(&self) {
            // A thread that ends may take locks when its own memory is gone already.
            let _ = HELD.try_with(|locks| {
                for (number, outer) in locks.borrow().iter() {
                    if *number != self.number {
                        record(outer, self.class, self.site);
                    }
                }
            });
        }

        fn push(class: &'static str, site: &'static Location<'static>) -> Held {
            let number = NEXT.try_with(|next| next.replace(next.get() + 1)).unwrap_or_default();
            let _ = HELD.try_with(|locks| locks.borrow_mut().push((number, class)));
            Held { number, class, site }
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            let _ = HELD.try_with(|locks| {
                let mut locks = locks.borrow_mut();
                if let Some(at) = locks.iter().rposition(|(number, _)| *number == self.number) {
                    locks.remove(at);
                }
            });
        }
    }

    fn record(outer: &'static str, inner: &'static str, site: &'static Location<'static>) {
        let pair = (outer.as_ptr().addr(), inner.as_ptr().addr());
        if KNOWN.try_with(|known| known.borrow_mut().insert(pair)).unwrap_or(false) {
            let mut edges = EDGES.lock().unwrap_or_else(PoisonError::into_inner);
            edges.entry((outer, inner)).or_insert(site);
        }
    }

    pub(super) fn edges() -> Vec<Edge> {
        let edges = EDGES.lock().unwrap_or_else(PoisonError::into_inner);
        edges.iter().map(|(&(outer, inner), &site)| Edge { outer, inner, site }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Edge, check, edges};
    use crate::sync::{Condvar, Mutex, RwLock};
    use std::panic::Location;

    fn edge(outer: &'static str, inner: &'static str) -> Edge {
        Edge { outer, inner, site: Location::caller() }
    }

    #[test]
    fn an_order_has_no_cycle_and_a_cycle_is_named() {
        let order = [edge("a", "b"), edge("b", "c"), edge("a", "c"), edge("d", "c")];
        assert_eq!(check(&order, &[]), Ok(()));

        let cycle = [edge("a", "b"), edge("x", "b"), edge("b", "c"), edge("c", "b")];
        let found = check(&cycle, &[]).unwrap_err();
        let names: Vec<_> = found.0.iter().map(|edge| (edge.outer, edge.inner)).collect();
        assert_eq!(names, [("b", "c"), ("c", "b")]);
    }

    #[test]
    fn a_class_inside_itself_is_a_cycle_unless_it_has_an_order() {
        let nested = [edge("a", "a")];
        assert!(check(&nested, &[]).is_err());
        assert_eq!(check(&nested, &["a"]), Ok(()));
    }

    #[cfg(all(debug_assertions, not(any(loom, shuttle))))]
    #[test]
    fn a_lock_that_is_taken_under_another_is_an_edge() {
        struct Outer;
        struct Inner;
        struct Later;
        let (outer, inner) = (RwLock::new(Outer), Mutex::new(Inner));

        let held = outer.read();
        drop(inner.lock());
        drop(held);
        drop(inner.lock());
        drop(Mutex::new(Later).lock());

        let edges = edges();
        let is = |name: &str, part: &str| name.ends_with(part);
        let inside = |part| edges.iter().filter(|edge| is(edge.inner, part)).count();
        let found = edges.iter().find(|edge| is(edge.inner, "::Inner")).expect("it was recorded");
        assert!(is(found.outer, "::Outer"), "{found}");
        assert_eq!((inside("::Inner"), inside("::Later")), (1, 0));
    }

    #[cfg(all(debug_assertions, not(any(loom, shuttle))))]
    #[test]
    fn a_lock_that_a_wait_takes_again_is_inside_what_is_held_meanwhile() {
        struct Waited(bool);
        struct Kept;
        let (waited, kept, changed) = (Mutex::new(Waited(true)), Mutex::new(Kept), Condvar::new());

        let guard = waited.lock();
        let held = kept.lock();
        let soon = std::time::Instant::now() + std::time::Duration::from_millis(1);
        let (guard, _) = changed.wait_until(guard, soon);
        assert!(guard.0);
        drop((guard, held));

        let found: Vec<_> = edges().into_iter().filter(|e| e.outer.ends_with("::Kept")).collect();
        assert!(found.iter().any(|edge| edge.inner.ends_with("::Waited")), "{found:?}");
        assert!(check(&found, &[]).is_ok(), "one way is no cycle");
        assert!(check(&edges(), &[]).is_err(), "both ways are");
    }
}
