//! `labsh rsh` as a program of its own, for tools that take only a path.

use std::process::ExitCode;

fn main() -> ExitCode {
    labsh_client::cli::rsh::main(std::env::args_os().skip(1))
}
