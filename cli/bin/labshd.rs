//! The server.

use std::process::ExitCode;

fn main() -> ExitCode {
    labsh_cli::labshd()
}
