//! What the programs labsh, labsh-rsh and labshd are on a command line.
//!
//! `args` names every subcommand of labsh and carries out the one that was called. A subcommand
//! uses what all share (`flags`, `console`, `json`, `signals`), what concerns one host (`remote`)
//! and what concerns many (`fleet`); it never uses another subcommand.

mod agent;
mod args;
mod command_line;
mod complete;
mod console;
mod cp;
mod explain;
mod flags;
mod fleet;
mod hosts;
mod json;
mod key;
mod labshd;
mod last;
mod lesson;
mod man;
mod ping;
mod remote;
mod rsh;
mod run;
mod shell;
mod signals;
#[path = "try.rs"]
mod try_command;
mod usage;

use std::process::ExitCode;

use crate::complete::Program;

/// Carries out the command line of labsh and returns its exit status.
pub fn labsh() -> ExitCode {
    args::main()
}

/// Carries out the command line of labsh-rsh, which is ssh's, and returns its exit status.
pub fn labsh_rsh() -> ExitCode {
    if let Some(status) = complete::answer(Program::Rsh, rsh::help::definition) {
        return status;
    }
    console::set_program("labsh-rsh");
    rsh::main(std::env::args_os().skip(1))
}

/// Carries out the command line of labshd and returns its exit status.
pub fn labshd() -> ExitCode {
    labshd::main()
}
