//! Building a command, and the three ways of running it.

use std::ffi::OsStr;
use std::time::Duration;

use labsh_proto::explanation::Explained;
use labsh_proto::message::{CommandId, Open, Program, Terminal, Until, Variable};
use labsh_transport::random;

use crate::child::{Child, ExitStatus, Output};
use crate::error::CommandError;
use crate::session::Session;

/// What a stream of the command is joined to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    /// A pipe to this program.
    Piped,
    /// Nothing: an empty stdin, an output that is thrown away.
    Null,
}

/// A command to be run on the other machine.
#[derive(Debug, Clone)]
pub struct Command {
    session: Session,
    program: Program,
    environment: Vec<Variable>,
    directory: Option<Vec<u8>>,
    timeout: Duration,
    until: Until,
    user: Option<Vec<u8>>,
    terminal: Option<Terminal>,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
}

impl Command {
    pub(crate) fn of(session: Session, program: Program) -> Self {
        Self {
            session,
            program,
            environment: Vec::new(),
            directory: None,
            timeout: Duration::ZERO,
            until: Until::StreamsEnd,
            user: None,
            terminal: None,
            stdin: None,
            stdout: None,
            stderr: None,
        }
    }

    pub(crate) fn argv(session: Session, program: &OsStr) -> Self {
        Self::of(session, Program::Argv(vec![bytes(program)]))
    }

    /// Adds a word, exactly as it is. On a shell command: the script's next positional parameter
    /// has no place there, so it is joined to the line behind a blank. Login shells and subsystems
    /// take no words: it is passed over.
    pub fn arg(&mut self, word: impl AsRef<OsStr>) -> &mut Self {
        match &mut self.program {
            Program::Argv(words) => words.push(bytes(word.as_ref())),
            Program::Shell(line) => {
                line.push(b' ');
                line.extend(bytes(word.as_ref()));
            }
            Program::LoginShell | Program::Subsystem(_) => {}
        }
        self
    }

    /// Adds words, exactly as they are.
    pub fn args(&mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        words.into_iter().for_each(|word| {
            self.arg(word);
        });
        self
    }

    /// Sets a variable on top of the clean environment over there; its configuration decides which
    /// pass.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.environment.push((bytes(name.as_ref()), bytes(value.as_ref())));
        self
    }

    /// Sets variables that give way to those that were set already.
    pub fn environment_before(&mut self, variables: &[Variable]) {
        self.environment.splice(0..0, variables.iter().cloned());
    }

    /// Sets a variable whose name and value are any bytes.
    pub fn env_bytes(&mut self, name: &[u8], value: &[u8]) {
        self.environment.push((name.to_vec(), value.to_vec()));
    }

    /// The working directory over there; the user's home unless set.
    pub fn current_dir(&mut self, directory: impl AsRef<OsStr>) -> &mut Self {
        self.directory = Some(bytes(directory.as_ref()));
        self
    }

    /// After so long the server ends the command, even if this client has gone. Rounded up to a
    /// millisecond.
    pub fn timeout(&mut self, after: Duration) -> &mut Self {
        self.timeout = after;
        self
    }

    /// When the command counts as over; [`Until::StreamsEnd`] unless set.
    pub fn until(&mut self, until: Until) -> &mut Self {
        self.until = until;
        self
    }

    /// The user as whom it is expected to run: where that is somebody else, the server refuses it.
    pub fn user(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.user = Some(bytes(name.as_ref()));
        self
    }

    /// Gives it a terminal for all three of its streams; what it writes then arrives as stdout.
    pub fn terminal(&mut self, terminal: Terminal) -> &mut Self {
        self.terminal = Some(terminal);
        self
    }

    /// Stdin: [`Stdio::Null`] unless set.
    pub fn stdin(&mut self, stdin: Stdio) -> &mut Self {
        self.stdin = Some(stdin);
        self
    }

    /// Stdout: [`Stdio::Piped`] unless set ([`Stdio::Null`] for [`Self::status`]).
    pub fn stdout(&mut self, stdout: Stdio) -> &mut Self {
        self.stdout = Some(stdout);
        self
    }

    /// Stderr: as stdout.
    pub fn stderr(&mut self, stderr: Stdio) -> &mut Self {
        self.stderr = Some(stderr);
        self
    }

    /// Sends the command without waiting for an answer. [`Child::started`] tells whether it runs.
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

    /// Runs the command and throws its output away, unless told otherwise.
    pub async fn status(&self) -> Result<ExitStatus, CommandError> {
        self.open_with(Stdio::Null).await?.wait().await
    }

    /// Asks what would become of the command, with the same refusals that it would meet. Nothing is
    /// started.
    ///
    /// # Errors
    ///
    /// Those of [`Self::spawn`]; [`CommandError::Refused`] as well where that server cannot answer.
    pub async fn explain(&self) -> Result<Explained, CommandError> {
        let (id, progress) = self.session.ask(&self.to_open()).await?;
        Child::new(self.session.inner().clone(), id, progress, [Stdio::Null; 3]).explained().await
    }

    async fn open_with(&self, output: Stdio) -> Result<Child, CommandError> {
        let (id, progress) = self.session.open(&self.to_open()).await?;
        let stdin = self.stdin.unwrap_or(Stdio::Null);
        let (stdout, stderr) = (self.stdout.unwrap_or(output), self.stderr.unwrap_or(output));
        Ok(Child::new(self.session.inner().clone(), id, progress, [stdin, stdout, stderr]))
    }

    fn to_open(&self) -> Open {
        Open {
            command: CommandId(random::bytes()),
            linger: 0,
            timeout: self.timeout.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(u64::MAX),
            until: self.until,
            program: self.program.clone(),
            environment: self.environment.clone(),
            directory: self.directory.clone(),
            user: self.user.clone(),
            terminal: self.terminal.clone(),
        }
    }
}

fn bytes(text: &OsStr) -> Vec<u8> {
    std::os::unix::ffi::OsStrExt::as_bytes(text).to_vec()
}
