//! Criterion benches of the kernels.
fn main() {}
