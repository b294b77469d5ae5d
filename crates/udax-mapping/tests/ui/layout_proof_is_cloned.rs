//! A proof that a layout is broken exists once.

use udax_mapping::{LayoutBroken, PinnedFolios};

fn twice<'m>(broken: &LayoutBroken<'m>, pin: &PinnedFolios) {
    let _ = LayoutBroken::clone(broken);
    let _ = PinnedFolios::clone(pin);
}

fn main() {}
