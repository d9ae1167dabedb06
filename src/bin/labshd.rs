//! The server.

#[path = "../heap.rs"]
mod heap;

use std::process::ExitCode;

#[global_allocator]
static HEAP: heap::Spaced = heap::Spaced;

fn main() -> ExitCode {
    labsh_server::cli::main()
}
