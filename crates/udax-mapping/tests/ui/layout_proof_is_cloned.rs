//! A proof that a layout is broken exists once.

use udax_mapping::{LayoutBroken, PinnedRange};

fn twice<'m>(broken: &LayoutBroken<'m>, pin: &PinnedRange) {
    let _ = LayoutBroken::clone(broken);
    let _ = PinnedRange::clone(pin);
}

fn main() {}
