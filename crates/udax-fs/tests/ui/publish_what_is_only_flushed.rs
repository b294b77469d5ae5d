//! A slot is published to what a fence made durable, not to what was only flushed.

use udax_fs::proof::{Flushed, Graft, Stored, Txn};

fn publish(txn: &mut Txn<'_>, graft: Stored<Graft, Flushed>) {
    let _ = txn.publish(graft);
}

fn main() {}
