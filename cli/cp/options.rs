//! The options of `labsh cp`.

use std::ffi::OsString;

use clap::Args;

use crate::flags::{ConnectionFlags, JsonForm};

const COPY_FORMS: &str = "\
Where to:
  labsh cp notes.txt data lab07:             into the home directory there
  labsh cp data lab07:/srv/new               as /srv/new, or into it if it is there
  labsh cp data/. lab07:/srv/new             what is in data, into /srv/new
  labsh cp lab07:results .                   from there to here
  labsh cp data 'lab[01-40]:/srv/'           to many hosts
  labsh cp @lab-a:results DIR                from many: DIR/lab01/results, …
  A word is TARGET:PATH if a colon comes before any slash; ./a:b is a file
  here. PATH is exact (no ~, no *), and begins in the home directory. The
  port is said with -p or in the configuration. Of @a:b:PATH, @a:b is the set.

What is copied:
  Directories with all that is in them, modes (without set-user-ID and the
  like) and times, links as links. Files of the same size and time are left
  alone. A file appears under its name only when it is whole and its SHA-256
  right; a large one that was cut off is continued the next time.";

const COPY_EXIT_STATUS: &str = "\
Exit status, the first that fits:
  130  you interrupted it; 143: labsh was terminated
  255  a host was unreachable or lost
  125  a host refused, or nothing could be begun
  1    a file could not be copied; the others were
  0    all is as it should be";

/// The closing part of `labsh cp --help`.
pub(crate) fn after_help() -> String {
    format!("{COPY_FORMS}\n\n{COPY_EXIT_STATUS}")
}

/// Copy files and directories to hosts, or from them
#[derive(Debug, Clone, Args)]
pub(crate) struct CopyOptions {
    /// Compare files of the same size and time by their contents (SHA-256) as well
    #[arg(short, long)]
    pub checksum: bool,
    /// Leave modification times alone
    #[arg(long)]
    pub no_times: bool,
    /// Leave permissions alone: new files and directories get them within the umask
    #[arg(long)]
    pub no_perms: bool,
    /// Say only what went wrong
    #[arg(short, long)]
    pub quiet: bool,
    /// Print a line of JSON for each event, or one for the whole copy: summary
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true,
        default_missing_value = "events")]
    pub json: Option<JsonForm>,
    /// How to reach the hosts.
    #[command(flatten)]
    pub connection: ConnectionFlags,
    /// Which hosts, and how many at once.
    #[command(flatten)]
    pub many: ManyFlags,
    /// The sources, then the destination.
    #[arg(value_names = ["FROM", "TO"], required = true, num_args = 2..,
        help_heading = "Arguments")]
    #[arg(help = "Files and directories, then their destination; those on hosts are \
            TARGET:PATH")]
    pub words: Vec<OsString>,
}

/// Which hosts, and how many at once.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Many hosts")]
pub(crate) struct ManyFlags {
    /// Leave these hosts out: a set like TARGET (repeatable)
    #[arg(short = 'x', long, value_name = "HOSTS")]
    pub exclude: Vec<String>,
    /// At most this many hosts at work at once
    #[arg(long, value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub parallel: u32,
    /// At most this many connections being opened at once
    #[arg(long, value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub connecting: u32,
    /// Try a connection this many times more
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub retries: u32,
}
