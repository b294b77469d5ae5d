//! I-58: a pin is returned once.

fn two_unpins(pin: udax_mm::PinnedFolio) {
    drop(pin);
    drop(pin);
}

fn main() {}
