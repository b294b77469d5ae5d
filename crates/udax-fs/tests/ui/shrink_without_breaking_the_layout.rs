//! A file shrinks only with the proof that its layout is broken.

use udax_fs::Inode;
use udax_fs::proof::Txn;

fn shrink(inode: &Inode, txn: Txn<'_>) {
    let _ = inode.shrink(txn, 0);
}

fn main() {}
