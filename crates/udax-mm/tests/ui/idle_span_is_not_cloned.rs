//! Rule 1: a claim is exclusive.

fn two_claims(span: udax_mm::IdleSpan) -> [udax_mm::IdleSpan; 2] {
    [span.clone(), span]
}

fn main() {}
