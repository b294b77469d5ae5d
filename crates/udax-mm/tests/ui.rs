//! What must not compile: the proofs of who holds a page cannot be copied, forged or outlived.

#![cfg(not(loom))]

#[test]
fn proofs_are_linear_and_borrowed() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
