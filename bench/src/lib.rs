//! Pieces of work of a fixed size: the micro-benchmarks time them, `bench/instructions.py` counts
//! their instructions.

pub mod codec;
pub mod handshake;
pub mod sets;
