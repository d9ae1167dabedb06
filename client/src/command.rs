//! Building a command, and the ways of running it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::time::Duration;

use labsh_proto::explanation::Explained;
use labsh_proto::message::{CommandId, Open, Program, Terminal, Until, Variable};
use labsh_transport::random;

use crate::child::{Child, Stdio};
use crate::connection::Connection;
use crate::error::CommandError;
use crate::exit_status::{ExitStatus, Output};

/// The circumstances in which a command runs.
#[derive(Debug, Clone)]
pub struct CommandOptions {
    /// Variables to set on top of the host's own environment; the host's configuration decides
    /// which it accepts.
    pub environment: Vec<Variable>,
    /// The working directory; `None` is the user's home.
    pub directory: Option<OsString>,
    /// The host ends the command after this time, even if the client has disappeared. It is rounded
    /// up to a millisecond.
    pub timeout: Option<Duration>,
    /// When the command counts as ended.
    pub until: Until,
    /// The user that the command is expected to run as; the host refuses it if it would run as
    /// another.
    pub user: Option<OsString>,
}

impl Default for CommandOptions {
    /// No variables, the home directory, no time limit, [`Until::StreamsEnd`], and any user.
    fn default() -> Self {
        Self {
            environment: Vec::new(),
            directory: None,
            timeout: None,
            until: Until::StreamsEnd,
            user: None,
        }
    }
}

/// A command that is to run on the host of a [`crate::Session`].
#[derive(Debug, Clone)]
pub struct Command {
    connection: Arc<Connection>,
    program: Program,
    options: CommandOptions,
    terminal: Option<Terminal>,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
}

impl Command {
    pub(crate) fn new(connection: Arc<Connection>, program: Program) -> Self {
        Self {
            connection,
            program,
            options: CommandOptions::default(),
            terminal: None,
            stdin: None,
            stdout: None,
            stderr: None,
        }
    }

    /// Adds an argument, exactly as it is.
    ///
    /// A shell command has no arguments: the word is appended to its line after a blank. Login
    /// shells and subsystems ignore it.
    pub fn arg(&mut self, word: impl AsRef<OsStr>) -> &mut Self {
        let word = word.as_ref().as_bytes();
        match &mut self.program {
            Program::Argv(words) => words.push(word.to_vec()),
            Program::Shell(line) => {
                line.push(b' ');
                line.extend(word);
            }
            Program::LoginShell | Program::Subsystem(_) => {}
        }
        self
    }

    /// Adds arguments as [`Self::arg`] does.
    pub fn args(&mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        for word in words {
            self.arg(word);
        }
        self
    }

    /// Sets all options at once.
    pub fn options(&mut self, options: CommandOptions) -> &mut Self {
        self.options = options;
        self
    }

    /// Sets an environment variable ([`CommandOptions::environment`]).
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        let variable = (name.as_ref().as_bytes().to_vec(), value.as_ref().as_bytes().to_vec());
        self.options.environment.push(variable);
        self
    }

    /// Sets environment variables, except those that the command sets already.
    pub fn env_defaults(&mut self, variables: &[Variable]) -> &mut Self {
        // Of two variables with one name, the host takes the last.
        self.options.environment.splice(0..0, variables.iter().cloned());
        self
    }

    /// Sets the working directory ([`CommandOptions::directory`]).
    pub fn current_dir(&mut self, directory: impl AsRef<OsStr>) -> &mut Self {
        self.options.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Sets a time limit ([`CommandOptions::timeout`]).
    pub fn timeout(&mut self, after: Duration) -> &mut Self {
        self.options.timeout = Some(after);
        self
    }

    /// Sets when the command counts as ended ([`CommandOptions::until`]).
    pub fn until(&mut self, until: Until) -> &mut Self {
        self.options.until = until;
        self
    }

    /// Sets the user that the command is expected to run as ([`CommandOptions::user`]).
    pub fn user(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.options.user = Some(name.as_ref().to_owned());
        self
    }

    /// Gives the command a terminal for all three of its streams. Everything that it writes then
    /// arrives as stdout.
    pub fn terminal(&mut self, terminal: Terminal) -> &mut Self {
        self.terminal = Some(terminal);
        self
    }

    /// Sets stdin; the default is [`Stdio::Null`].
    pub fn stdin(&mut self, stdin: Stdio) -> &mut Self {
        self.stdin = Some(stdin);
        self
    }

    /// Sets stdout; the default is [`Stdio::Piped`], and [`Stdio::Null`] for [`Self::status`].
    pub fn stdout(&mut self, stdout: Stdio) -> &mut Self {
        self.stdout = Some(stdout);
        self
    }

    /// Sets stderr; the defaults are those of stdout.
    pub fn stderr(&mut self, stderr: Stdio) -> &mut Self {
        self.stderr = Some(stderr);
        self
    }

    /// Sends the command without waiting for an answer. [`Child::started`] returns whether it runs.
    pub async fn open(&self) -> Result<Child, CommandError> {
        self.open_with(Stdio::Piped).await
    }

    /// Starts the command; returns once it runs.
    pub async fn spawn(&self) -> Result<Child, CommandError> {
        let child = self.open().await?;
        child.started().await?;
        Ok(child)
    }

    /// Runs the command and collects its whole output in memory.
    pub async fn output(&self) -> Result<Output, CommandError> {
        self.open().await?.wait_with_output().await
    }

    /// Runs the command and discards its output, unless stdout or stderr is set to
    /// [`Stdio::Piped`].
    pub async fn status(&self) -> Result<ExitStatus, CommandError> {
        self.open_with(Stdio::Null).await?.wait().await
    }

    /// Asks the host how it would run the command. Nothing is started.
    ///
    /// # Errors
    ///
    /// Those of [`Self::spawn`], and [`CommandError::Refused`] if the server is too old to answer.
    pub async fn explain(&self) -> Result<Explained, CommandError> {
        let (id, progress) = self.connection.ask(&self.to_open()).await?;
        Child::new(self.connection.clone(), id, progress, [Stdio::Null; 3]).explained().await
    }

    async fn open_with(&self, output: Stdio) -> Result<Child, CommandError> {
        let (id, progress) = self.connection.open(&self.to_open()).await?;
        let stdin = self.stdin.unwrap_or(Stdio::Null);
        let (stdout, stderr) = (self.stdout.unwrap_or(output), self.stderr.unwrap_or(output));
        Ok(Child::new(self.connection.clone(), id, progress, [stdin, stdout, stderr]))
    }

    fn to_open(&self) -> Open {
        let CommandOptions { environment, directory, timeout, until, user } = self.options.clone();
        // On the wire, 0 is no limit.
        let timeout = timeout.map_or(0, |timeout| timeout.as_nanos().div_ceil(1_000_000));
        Open {
            timeout: timeout.try_into().unwrap_or(u64::MAX),
            until,
            environment,
            directory: directory.map(OsStringExt::into_vec),
            user: user.map(OsStringExt::into_vec),
            terminal: self.terminal.clone(),
            ..Open::new(CommandId(random::bytes()), self.program.clone())
        }
    }
}
