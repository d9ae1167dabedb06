//! What subcommands share that work on many hosts: choosing them, their outcomes, the screen.

pub(crate) mod hosts;
pub(crate) mod last_run;
pub(crate) mod report;
pub(crate) mod screen;
pub(crate) mod summary;
