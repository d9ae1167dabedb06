//! The client, joined with what it embeds.

use std::process::ExitCode;

fn main() -> ExitCode {
    labsh_client::cli::main(labsh_client::cli::Embedded { server: labsh_server::embedded::prepare })
}
