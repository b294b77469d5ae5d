//! Pages are freed only with the proof that nobody uses them.

use udax_fs::proof::{Cut, Durable, Stored, Txn};

fn free(txn: &mut Txn<'_>, cut: Stored<Cut, Durable>) {
    let _ = txn.cut(cut);
}

fn main() {}
