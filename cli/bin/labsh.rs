//! The client.

use std::process::ExitCode;

fn main() -> ExitCode {
    labsh_cli::labsh()
}
