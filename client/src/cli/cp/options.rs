//! The options of `labsh cp`.

use std::ffi::OsString;

use clap::Args;

use crate::cli::options::ConnectionFlags;

/// Copy files and directories to hosts, or from them
#[derive(Debug, Clone, Args)]
#[command(mut_arg("keep", |arg| arg.hide(true)))]
pub struct CopyOptions {
    /// Compare files of the same size and time by their contents (SHA-256) as well
    #[arg(short, long)]
    pub checksum: bool,
    /// Say only what went wrong
    #[arg(short, long)]
    pub quiet: bool,
    /// How to get there.
    #[command(flatten)]
    pub connection: ConnectionFlags,
    /// Which hosts, and how many at once.
    #[command(flatten)]
    pub many: ManyFlags,
    /// What, and where to.
    #[arg(value_names = ["FROM", "TO"], required = true, num_args = 2..,
        help_heading = "Arguments")]
    #[arg(help = "Files and directories, and behind them where they go; those over there are \
            TARGET:PATH")]
    pub words: Vec<OsString>,
}

/// How many hosts are gone about.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Many hosts")]
pub struct ManyFlags {
    /// Leave these hosts out: a set like TARGET (repeatable)
    #[arg(short = 'x', long, value_name = "HOSTS")]
    pub exclude: Vec<String>,
    /// At most so many hosts at work at once
    #[arg(long, value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub parallel: u32,
    /// At most so many connections being opened at once
    #[arg(long, value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub connecting: u32,
    /// Try a connection so many times more
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub retries: u32,
}
