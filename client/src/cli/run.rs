//! `labsh run`.

use std::process::ExitCode;

use crate::cli::options::RunOptions;

/// Not built yet.
pub fn execute(_options: RunOptions) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`labsh run` is not built yet")
}
