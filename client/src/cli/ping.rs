//! `labsh ping`.

use std::process::ExitCode;

use crate::cli::options::PingOptions;

/// Not built yet.
pub fn execute(_options: PingOptions) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`labsh ping` is not built yet")
}
