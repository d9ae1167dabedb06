//! `labsh rsh` as a program of its own, for tools that take only a path.

#[path = "../heap.rs"]
mod heap;

use std::process::ExitCode;

#[global_allocator]
static HEAP: heap::Spaced = heap::Spaced;

fn main() -> ExitCode {
    labsh_client::cli::rsh::main(std::env::args_os().skip(1))
}
