//! Chores of the workspace. The house style is enforced by `tests/tidy.rs`; other chores will be added here.

fn main() {}
