//! The life of the service, from its start to its end.

use crate::source::Source;

/// Serves until it is told to stop.
pub fn run(_source: Source) -> anyhow::Result<()> {
    anyhow::bail!("this build cannot serve yet")
}
