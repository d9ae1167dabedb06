//! `labsh last`: shows the outcome of the last run on many hosts.

use std::process::ExitCode;

use clap::Args;
use labsh_client::terminal_text::escape;

use crate::console::print;
use crate::fleet::last_run::Last;

/// Show the outcome of the last run on many hosts; its hosts are the targets @last, @last:failed,
/// @last:ok, …
#[derive(Debug, Clone, Args)]
pub(crate) struct LastOptions {
    /// Print all that is known of it, with each host's outcome, as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Prints the last run.
pub(crate) fn execute(options: &LastOptions) -> anyhow::Result<ExitCode> {
    let last = Last::load()?;
    let text = if options.json {
        last.into_event()?.line()
    } else {
        let mut text = format!("{}: {}\n", escape(&last.when), escape(&last.command));
        for line in &last.summary {
            text += &format!("{}\n", escape(line));
        }
        text
    };
    print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
