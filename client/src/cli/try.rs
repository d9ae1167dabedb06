//! `labsh try`.

use std::process::ExitCode;

use crate::cli::Embedded;
use crate::cli::options::TryOptions;

/// Not built yet.
pub fn execute(_options: TryOptions, _embedded: &Embedded) -> anyhow::Result<ExitCode> {
    anyhow::bail!("`labsh try` is not built yet")
}
