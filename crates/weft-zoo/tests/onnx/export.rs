//! placeholder for a compile
