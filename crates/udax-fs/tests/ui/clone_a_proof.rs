//! A proof is used once: it proves nothing after the pages were freed.

use udax_fs::proof::Vacant;

fn twice(vacant: &Vacant) -> Vacant {
    vacant.clone()
}

fn main() {}
