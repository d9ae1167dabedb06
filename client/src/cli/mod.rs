//! The program `labsh`: from a command line to an exit status.

pub mod agent;
mod console;
pub mod cp;
mod enrolment_files;
pub mod explain;
mod follow;
pub mod hosts;
mod interactive;
pub mod key;
pub mod last;
pub mod lesson_options;
mod local_streams;
pub mod man;
pub mod many;
pub mod options;
mod outcome;
mod own_terminal;
pub mod ping;
mod remote;
pub mod remote_command;
pub mod rsh;
pub mod run;
pub mod shell;
#[path = "try.rs"]
pub mod try_command;
mod wishes;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use labsh_proto::key::HostKey;

use crate::cli::console::{READER_GONE, REFUSED, note, print};
use crate::cli::lesson_options::LessonOptions;
use crate::cli::options::{Action, CommandLine};

/// What the client cannot bring along itself, for it knows neither the server nor the lessons; the
/// program hands it in.
#[derive(Debug, Clone, Copy)]
pub struct Embedded {
    /// Prepares a server on loopback that knows one key. Called while the process has one thread;
    /// the future starts the server and gives its address.
    pub server: fn(HostKey) -> anyhow::Result<StartServer>,
    /// Lists lessons or gives them; an error is one of wrong use.
    pub lesson: fn(LessonOptions) -> anyhow::Result<ExitCode>,
}

/// Starts a server that was prepared; needs a runtime with more than one thread.
pub type StartServer = Pin<Box<dyn Future<Output = anyhow::Result<SocketAddr>> + Send>>;

/// Does what the command line says.
pub fn main(embedded: Embedded) -> ExitCode {
    // ssh's command line is not read the way that others are.
    if std::env::args_os().nth(1).is_some_and(|word| word == "rsh") {
        return rsh::main(std::env::args_os().skip(2));
    }
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // `--help` and `--version` come here as well. A closed stdout or stderr leaves nobody
            // to tell.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS };
        }
    };
    let outcome = match line.action {
        Action::Run(options) => run::execute(*options),
        Action::Shell(options) => shell::execute(*options),
        Action::Rsh(_) => Ok(rsh::main(std::env::args_os().skip(2))),
        Action::Try(options) => try_command::execute(*options, &embedded),
        Action::Cp(options) => cp::execute(*options),
        Action::Explain(options) => explain::execute(&options),
        Action::Ping(options) => ping::execute(options),
        Action::Hosts(options) => hosts::execute(*options),
        Action::Last(options) => last::execute(&options),
        Action::Key(action) => key::execute(action),
        Action::Agent(action) => agent::execute(action),
        Action::Lesson(options) => (embedded.lesson)(options),
        Action::Completions { shell } => completions(shell),
        Action::Man { directory } => man::execute(directory.as_deref()),
    };
    outcome.unwrap_or_else(|error| {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        {
            // `… | head` has seen enough, and a shell's user expects silence.
            return ExitCode::from(READER_GONE);
        }
        note(&format!("{error:#}"));
        ExitCode::from(REFUSED)
    })
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "labsh", &mut script);
    print(&script)?;
    Ok(ExitCode::SUCCESS)
}
