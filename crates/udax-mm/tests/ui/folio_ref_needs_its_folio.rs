//! A borrowed folio is counted by its lender.

fn outlives(folio: udax_mm::Folio) -> udax_mm::Order {
    let borrowed = folio.borrow();
    drop(folio);
    borrowed.order()
}

fn main() {}
