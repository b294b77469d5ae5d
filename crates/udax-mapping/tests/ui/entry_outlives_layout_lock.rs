//! An entry is locked under the layout lock, and no longer.

use udax_mapping::Mapping;
use udax_mm::FileIndex;

fn keep(mapping: &Mapping) {
    let faults = mapping.faults();
    let entry = faults.lock_entry(FileIndex(0));
    drop(faults);
    println!("{:?}", entry.range());
}

fn main() {}
