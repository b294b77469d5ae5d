//! Pages that were published belong to a tree, and cannot be published again.

use udax_fs::proof::{Durable, Graft, Stored, Txn};

fn publish(txn: &mut Txn<'_>, graft: Stored<Graft, Durable>) {
    let _ = txn.publish(graft);
    let _ = txn.publish(graft);
}

fn main() {}
