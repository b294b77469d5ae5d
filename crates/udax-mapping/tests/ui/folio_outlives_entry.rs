//! A folio that is borrowed from a locked entry ends with the lock.

use udax_dev::DaxSpan;
use udax_mapping::Mapping;
use udax_mm::{FileIndex, Order};

fn keep(mapping: &Mapping, at: &DaxSpan) {
    let faults = mapping.faults();
    let mut entry = faults.lock_entry(FileIndex(0));
    let folio = entry.fault(at, Order::Base).unwrap();
    drop(entry);
    println!("{}", folio.order());
}

fn main() {}
