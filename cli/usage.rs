//! Reports command lines that cannot be parsed.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Command;

use crate::command_line::Position;
use crate::console::{note_json, program};
use crate::json;
use crate::remote::outcome;

/// The name of the option by which a subcommand prints JSON.
pub(crate) const JSON: &str = "json";

/// The name of the option for a descriptor that gets the outcome.
pub(crate) const STATUS_FD: &str = "status_fd";

/// Prints what clap returns instead of the command line of this process: an error on stderr, like
/// all messages of the program, or on stdout a text that the user asked for. Returns the exit
/// status; an error's is `wrong`.
pub(crate) fn report(mut definition: Command, error: &clap::Error, wrong: u8) -> ExitCode {
    // A closed stdout or stderr cannot be reported anywhere.
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    definition.build();
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let line = Position::after(&definition, &words);
    let event = json::failure(json::error_of_usage(error), wrong);
    let descriptor = line.value(STATUS_FD).and_then(|text| text.to_str()?.parse().ok());
    if let Some(descriptor) =
        descriptor.filter(|number| *number > 0 && outcome::is_writable(*number))
    {
        outcome::write_status(descriptor, &event.clone().line());
    }
    if line.has(JSON) {
        note_json(event);
        return ExitCode::from(wrong);
    }
    let text = error.to_string();
    let text = match text.strip_prefix("error: ") {
        Some(text) => format!("{}: {text}", program()),
        None => text,
    };
    let _ = io::stderr().write_all(text.as_bytes());
    ExitCode::from(wrong)
}
