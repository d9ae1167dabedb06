//! Completions: the words that may follow a command line, for bash, zsh and fish.
//!
//! `labsh completions SHELL` prints a script that runs the program at each completion, with the
//! name of the shell in [`VARIABLE`] and the line in its arguments. The program prints candidates
//! and nothing else: an error would appear in the middle of a prompt.

mod candidates;
mod hosts;
mod paths;
mod shells;
mod unquote;

use std::process::ExitCode;

use clap::Command;
use labsh_client::terminal_text::escape;

use crate::complete::candidates::Context;
use crate::console::print;

pub(crate) use candidates::Program;
pub(crate) use shells::{Shell, script};

/// The environment variable with the name of the shell that asks for candidates.
const VARIABLE: &str = "LABSH_COMPLETE";

/// A word for the place of the cursor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// The word. It begins with what the user has typed.
    value: String,
    /// Its description.
    help: String,
    /// Whether more is to be typed: no blank follows.
    is_open: bool,
}

impl Candidate {
    fn new(value: impl Into<String>) -> Self {
        Self { value: value.into(), help: String::new(), is_open: false }
    }

    fn open(value: impl Into<String>) -> Self {
        Self { is_open: true, ..Self::new(value) }
    }

    fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: help.into(), ..self }
    }

    fn after(self, prefix: &str) -> Self {
        Self { value: format!("{prefix}{}", self.value), ..self }
    }

    /// Whether the word can be shown in a prompt and typed: it has no character that could steer
    /// the terminal or end the line.
    fn is_harmless(&self) -> bool {
        escape(&self.value).to_string() == self.value
    }
}

/// Prints the candidates for a line and returns the exit status, if a shell asks for them.
pub(crate) fn answer(program: Program, definition: impl FnOnce() -> Command) -> Option<ExitCode> {
    let shell = Shell::of_environment()?;
    let Some(line) = shell.line(std::env::args_os().skip(1)) else {
        return Some(ExitCode::FAILURE);
    };
    let mut definition = definition();
    definition.build();
    let mut found = Context::new(program, &definition, &line.before).candidates(&line.current);
    found.retain(|candidate| candidate.value.starts_with(&line.current) && candidate.is_harmless());
    found.sort();
    found.dedup_by(|one, other| one.value == other.value);
    // The shell may have gone.
    let _ = print(shell.format(&line, &found).as_bytes());
    Some(ExitCode::SUCCESS)
}
