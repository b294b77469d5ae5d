//! What must not compile.

#[test]
fn handles_do_not_outlive_what_keeps_them_true() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
