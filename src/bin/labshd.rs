//! labsh
fn main() {}
