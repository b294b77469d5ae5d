//! The walk that checks a page map against its invariants.
//!
//! It owns no state. It is meant for moments when no other thread changes the words; the errors
//! name the invariant (`docs/invariants.md`) that does not hold.

use crate::block::Block;
use crate::pgmap::Pgmap;
use crate::table::Table;
use crate::units::{Order, PgmapOff};
use crate::value::Value;
use std::collections::BTreeMap;

pub(crate) fn verify(pgmap: &Pgmap) -> Result<(), String> {
    check_levels(pgmap.table())?;
    let leaves: Vec<_> = pgmap.table().leaves(PgmapOff(0)..PgmapOff(pgmap.size().0)).collect();
    leaves.iter().try_for_each(|&(leaf, value)| check_leaf(pgmap, leaf, value))?;
    check_pins(pgmap, &leaves)?;
    check_limbo(pgmap)?;
    check_poison(pgmap.table(), &leaves)
}

/// I-19, rule 4: a split block counts the words below it that are not idle; below any other block
/// every word is idle.
fn check_levels(table: &Table) -> Result<(), String> {
    for order in [Order::Pud, Order::Pmd] {
        for block in blocks(table, order) {
            let value = table.word(block).load();
            let below = block.children().filter(|child| child.head().0 < table.size().0);
            let busy = below.filter(|&child| !table.word(child).load().is_idle()).count();
            if u64::try_from(busy) != Ok(value.children()) {
                return Err(format!(
                    "I-19: {busy} words below {block:?} are busy, it has {value:?}"
                ));
            }
        }
    }
    Ok(())
}

fn blocks(table: &Table, order: Order) -> impl Iterator<Item = Block> {
    let count = table.size().0.div_ceil(order.pages().0);
    (0..count).map(move |n| Block::covering(PgmapOff(n * order.pages().0), order))
}

fn check_leaf(pgmap: &Pgmap, leaf: Block, value: Value) -> Result<(), String> {
    if let Some(rule) = value.broken_rule() {
        return Err(format!("{rule}: {leaf:?} has {value:?}"));
    }
    if value.is_idle() {
        return Ok(());
    }
    if pgmap.is_dead() && !value.is_only_poisoned() {
        return Err(format!("I-04: {leaf:?} of a dead pgmap has {value:?}"));
    }
    if value.is_only_poisoned() && leaf.order() != Order::Base {
        return Err(format!("I-10: nobody holds {leaf:?}, which has {value:?}"));
    }
    let room = pgmap.ranges().contiguous(leaf.head());
    if leaf.pages().end.0 > pgmap.size().0 || room < leaf.order().pages() {
        return Err(format!("I-07: {leaf:?} reaches out of its range"));
    }
    Ok(())
}

/// I-11, I-58: the pins that are listed are those that the words count: each pin once on every
/// folio of its pages, which are whole folios.
fn check_pins(pgmap: &Pgmap, leaves: &[(Block, Value)]) -> Result<(), String> {
    let mut listed: BTreeMap<PgmapOff, u64> = BTreeMap::new();
    for pin in pgmap.pins() {
        let covered = pgmap.table().leaves(pin.pages.clone());
        let (head, end) = covered.fold((None, pin.pages.start), |(head, _), (leaf, _)| {
            *listed.entry(leaf.head()).or_insert(0) += 1;
            (head.or(Some(leaf.head())), leaf.end())
        });
        let is_none = pin.pages.is_empty();
        if !is_none && (head, end) != (Some(pin.pages.start), pin.pages.end) {
            return Err(format!("I-58: the pin {pin} does not cover whole folios"));
        }
    }
    for (leaf, value) in leaves.iter().filter(|(_, value)| value.pins() > 0) {
        if listed.remove(&leaf.head()) != Some(value.pins()) {
            return Err(format!("I-58: {leaf:?} has {value:?}, its pins are listed differently"));
        }
    }
    match listed.first_key_value() {
        Some((head, _)) => Err(format!("I-58: a pin of page {head} is listed, and not counted")),
        None => Ok(()),
    }
}

/// Every deferred range lies in one folio, whose last put looks for it.
fn check_limbo(pgmap: &Pgmap) -> Result<(), String> {
    for range in pgmap.limbo().ranges() {
        let (leaf, value) = pgmap.table().leaf(range.start);
        if !value.is_in_limbo() || leaf.pages().end < range.end {
            return Err(format!("I-14: {range:?} is in limbo, and {leaf:?} has {value:?}"));
        }
    }
    Ok(())
}

/// Every poisoned page is marked, so it is not idle; and no other page stays behind with a mark.
fn check_poison(table: &Table, leaves: &[(Block, Value)]) -> Result<(), String> {
    let poisoned = table.poisoned();
    for &page in &poisoned {
        let (leaf, value) = table.leaf(page);
        if !value.is_poisoned() {
            return Err(format!("poison: page {page} is poisoned, and {leaf:?} has {value:?}"));
        }
    }
    let stale = |(leaf, value): &&(Block, Value)| {
        let page = leaf.order() == Order::Base;
        page && value.is_poisoned() && poisoned.binary_search(&leaf.head()).is_err()
    };
    match leaves.iter().find(stale) {
        Some((leaf, value)) => Err(format!("poison: {leaf:?} has {value:?} without poison")),
        None => Ok(()),
    }
}
