//! What the types of the filesystem rule out: each file under `ui` is one wrong program, and beside
//! it stands what the compiler says.

#[test]
fn proofs_cannot_be_left_out_or_used_twice() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
