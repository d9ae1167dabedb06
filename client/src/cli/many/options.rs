//! The options of `labsh run` that only many hosts have a use for.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// How many hosts are gone about, and how their output is shown.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Many hosts")]
pub struct ManyOptions {
    /// Leave these hosts out: a set like TARGET (repeatable)
    #[arg(short = 'x', long, value_name = "HOSTS")]
    pub exclude: Vec<String>,
    /// Only so many of them, chosen at random
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub pick: Option<u32>,
    /// Show hosts with the same output together, when all are over
    #[arg(long, group = "shape")]
    pub gather: bool,
    /// Show the most common output, and how the others differ from it
    #[arg(long, group = "shape")]
    pub diff: bool,
    /// Show no output, only how it ended
    #[arg(short, long, group = "shape")]
    pub quiet: bool,
    /// Write each host's output to DIR/HOST.stdout and DIR/HOST.stderr, byte for byte, and show
    /// none
    #[arg(long, value_name = "DIR", group = "shape")]
    pub out: Option<PathBuf>,
    /// At most so many hosts at work at once
    #[arg(long, value_name = "N", default_value_t = 512,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub parallel: u32,
    /// At most so many connections being opened at once
    #[arg(long, value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub connecting: u32,
    /// Try a connection so many times more; a command is never started twice
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub retries: u32,
    /// Begin no more hosts once one has failed
    #[arg(long)]
    pub fail_fast: bool,
    /// So many hosts at once, and no more once one has failed
    #[arg(long, value_name = "N", conflicts_with = "parallel",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub rolling: Option<u32>,
    /// Exit with the highest status of any host
    #[arg(long)]
    pub max_status: bool,
    /// Show which hosts would be asked, how each is reached and what would be run; start nothing
    #[arg(long, conflicts_with = "json")]
    pub dry_run: bool,
}

impl ManyOptions {
    /// Whether one host by its plain name is to be gone about as if it were a set, because
    /// something here asks for what only that can do. The rest holds for one host by itself.
    pub(crate) fn concern_one(&self) -> bool {
        let chosen = !self.exclude.is_empty() || self.pick.is_some();
        let shaped = self.gather || self.diff || self.quiet || self.out.is_some();
        chosen || shaped || self.retries > 0 || self.max_status || self.dry_run
    }
}

/// What `--json` prints for many hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum JsonForm {
    /// A line for each event
    Events,
    /// One line for the whole run
    Summary,
}
