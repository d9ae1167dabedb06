//! `labsh rsh` as a program of its own, for tools that take only a path.

use std::process::ExitCode;

fn main() -> ExitCode {
    labsh_cli::labsh_rsh()
}
