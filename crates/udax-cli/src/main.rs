//! The udax tool.
fn main() {}
