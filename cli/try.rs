//! `labsh try`: runs one command through a labshd inside this process, over TLS on loopback, with a
//! new key.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use labsh_client::fanout::Host;
use labsh_client::{Address, ConnectOptions};
use labsh_proto::auth::Mode;
use labsh_proto::key::{HostId, Key, KeyId, Secret};
use labsh_proto::message::Program;
use labsh_server::embedded;
use labsh_transport::random;

use crate::flags::{CommandFlags, EXIT_STATUS, form};
use crate::remote;
use crate::remote::outcome;

const TRY_FORMS: &str = "\
The command:
  One word is run by your shell:             labsh try 'ps aux | wc -l'
  Several words are run exactly as given:    labsh try grep -r 'a b' /srv
  --shell and --argv choose one explicitly. Options come before the command;
  whatever follows its first word belongs to it.";

/// The closing part of `labsh try --help`.
pub(crate) fn after_help() -> String {
    format!("{TRY_FORMS}\n\n{EXIT_STATUS}")
}

/// Run a command through a labshd of its own on this machine: nothing to set up
#[derive(Debug, Clone, Args)]
pub(crate) struct TryOptions {
    /// How the command runs.
    #[command(flatten)]
    pub command: CommandFlags,
    /// The command: one word for your shell, or several exact words
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        help_heading = "Arguments"
    )]
    pub words: Vec<OsString>,
}

impl TryOptions {
    /// Returns the command to run.
    pub(crate) fn program(&self) -> Program {
        form(&self.words, self.command.form)
    }
}

/// Runs the command and returns the exit status that `labsh try --help` documents.
pub(crate) fn execute(options: TryOptions) -> anyhow::Result<ExitCode> {
    let program = options.program();
    outcome::check_status_fd(&options.command)?;
    let key = Key::new(KeyId::new("try")?, Secret::new(random::bytes()))
        .for_host(&HostId::new("localhost")?);
    let server = embedded::prepare(key.clone(), Mode::Tls)?;
    let runtime = labsh_transport::runtime::multi_thread(Some(2))?;
    let code = runtime.block_on(async {
        let address = server.await?;
        let address = Address::Tcp { host: address.ip().to_string(), port: address.port() };
        let connection = ConnectOptions::new(address, key);
        let host = Host { name: "localhost".to_owned(), connection, user: None };
        Ok::<_, anyhow::Error>(remote::run(&host, &program, &options.command, None).await)
    });
    runtime.shutdown_background();
    code
}
