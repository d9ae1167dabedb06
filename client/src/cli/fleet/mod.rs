//! What the subcommands share that work on many hosts: which hosts, what became of each, the screen.

pub(crate) mod hosts;
pub(crate) mod last_run;
pub(crate) mod report;
pub(crate) mod screen;
