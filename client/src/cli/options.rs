//! The command line: every subcommand and option, and how each is explained.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand};
use labsh_proto::key::{HostId, KeyId};
use labsh_proto::message::{Program, Variable};

use crate::cli::cp::options::CopyOptions;
use crate::cli::explain::ExplainOptions;
use crate::cli::hosts::HostsOptions;
use crate::cli::interactive::escapes::EscapeCharacter;
use crate::cli::last::LastOptions;
use crate::cli::lesson_options::LessonOptions;
use crate::cli::many::options::{JsonForm, ManyOptions};
use crate::cli::remote_command::{RemoteCommand, RemoteShell, Targets};
use crate::cli::rsh::help::RshOptions;
use crate::config::overrides::{ConnectionOverrides, parse_duration, parse_keep};
use crate::config::target::{Target, parse_port};
use crate::keys::key_store::KeyName;

const CONFIGURATION: &str = "\
Settings:
  Options win over the environment (LABSH_KEY, LABSH_HOST_ID, LABSH_PORT,
  LABSH_CONNECT_TIMEOUT, LABSH_KEEP), and that over files in
  $XDG_CONFIG_HOME/labsh and, behind them, /etc/labsh: a host's table in
  config.toml, then the smallest room it is in in hosts.toml, then [defaults]
  in config.toml.

First steps:
  labsh try 'echo hello'          nothing to set up
  labsh key new                   make a key
  labsh key enroll --host lab07 | ssh lab07 labshd key add
  labsh run lab07 uname -a";

const RUN_FORMS: &str = "\
The command:
  One word is run by your shell there:       labsh run lab07 'ps aux | wc -l'
  Several words are run exactly as given:    labsh run lab07 grep -r 'a b' /srv
  --shell and --argv say it outright. Options come before TARGET; whatever
  follows it belongs to the command (a -- right behind TARGET is dropped).";

const TRY_FORMS: &str = "\
The command:
  One word is run by your shell:             labsh try 'ps aux | wc -l'
  Several words are run exactly as given:    labsh try grep -r 'a b' /srv
  --shell and --argv say it outright. Options come before the command;
  whatever follows its first word belongs to it.";

const SHELL_FORMS: &str = "\
The terminal:
  Without a command it is a login shell:     labsh shell lab07
  One word is run by your shell there:       labsh shell lab07 'vim notes'
  Several words are run exactly as given:    labsh shell lab07 less /var/log/syslog
  What runs there writes to your terminal directly. TERM, LANG and LC_* go
  along. It ends when its connection is lost.

Escapes, at the start of a line:
  ~.   leave; the host ends what runs in the terminal
  ~^Z  suspend labsh (Ctrl-Z); fg comes back
  ~?   list them
  ~~   type ~ itself";

const EXIT_STATUS: &str = "\
Exit status:
  the command's own, or
  128+n  signal n ended the command
  124    it timed out
  125    labsh or labshd refused or failed before the command ran
  126    the command is not executable
  127    the command was not found
  255    the connection failed
  These numbers can be the command's own as well: stderr says which it was,
  and --status-fd and --json say it to programs.";

const MANY_HOSTS: &str = "\
Many hosts:
  lab[01-40,52]  @group  @lab-a!lab07  @last:failed  ^file  'lab*'
  Ctrl-C shows who still runs, a second one interrupts the commands, a third
  leaves. stdin goes to all, unless it is a terminal. labsh last shows it again.";

const MANY_EXIT_STATUS: &str = "\
Exit status for many hosts, the first that fits:
  130    you interrupted it; 143: labsh was terminated
  255    a host was unreachable or lost, or the output could not be written
  125    a host refused, or was not begun
  1      a command failed, was ended by a signal, or timed out
  0      all succeeded
  --max-status gives the highest status of any host instead of 255, 125 and 1.";

const COPY_FORMS: &str = "\
Where to:
  labsh cp notes.txt data lab07:             into the home directory there
  labsh cp data lab07:/srv/new               as /srv/new, or into it if it is there
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
const EXPLAIN_NOTES: &str = "\
The host goes all the way up to the command: it looks up the user, takes on
their identity, enters the directory and looks for the program. Then it tells
what it found. Hosts with the same answer are shown together.

Exit status:
  0    it would run on every host
  125  a host would refuse it, or refuses the key
  255  a host cannot be asked";

const LESSON_NOTES: &str = "\
Examples:
  labsh lesson                               all lessons, a line each
  labsh lesson sticky                        one of them
  labsh lesson sticky --command 'seq 5000' --recv 256
  labsh lesson all --lang zh                 one after the other, in Chinese

Exit status:
  0    everything that was promised showed itself
  1    a lesson did not show what it is about
  125  wrong use, or a command that is of no use in this lesson";

/// Run commands on lab machines: one key, exact words, complete output
#[derive(Debug, Parser)]
#[command(name = "labsh", bin_name = "labsh", version, after_help = CONFIGURATION,
    max_term_width = 100)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// The subcommands. Only the one that was called defines its options, for defining all of them cost
/// a tenth of a short command. What it says of itself then stands at its options, here again for
/// the list of all.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Action {
    /// Run a command on a host
    #[command(override_usage = "labsh run [OPTIONS] <TARGET> [--] <COMMAND>...")]
    #[command(after_help =
        format!("{RUN_FORMS}\n\n{MANY_HOSTS}\n\n{MANY_EXIT_STATUS}\n\n{EXIT_STATUS}"))]
    Run(Box<RunOptions>),
    /// Work in a terminal on a host: a login shell, or a command
    #[command(override_usage = "labsh shell [OPTIONS] <TARGET> [[--] <COMMAND>...]")]
    #[command(after_help = format!("{SHELL_FORMS}\n\n{EXIT_STATUS}"))]
    Shell(Box<ShellOptions>),
    /// Run a command behind ssh's command line, for tools that run ssh
    Rsh(RshOptions),
    /// Run a command through a labshd of its own on this machine: nothing to set up
    #[command(after_help = format!("{TRY_FORMS}\n\n{EXIT_STATUS}"))]
    Try(Box<TryOptions>),
    /// Copy files and directories to hosts, or from them
    #[command(
        override_usage = "labsh cp [OPTIONS] <FILE>... <TARGET:PATH>\n       labsh cp [OPTIONS] \
            <TARGET:PATH>... <PATH>"
    )]
    #[command(after_help = format!("{COPY_FORMS}\n\n{COPY_EXIT_STATUS}"))]
    Cp(Box<CopyOptions>),
    /// Ask a host what would become of a command, and why; nothing is started
    #[command(override_usage = "labsh explain [OPTIONS] <TARGET> [--] <COMMAND>...",
        after_help = EXPLAIN_NOTES)]
    Explain(ExplainOptions),
    /// Measure how long a host takes to answer
    Ping(PingOptions),
    /// List the hosts and groups that are known
    Hosts(Box<HostsOptions>),
    /// Show what became of the last run on many hosts; its hosts are the targets @last,
    /// @last:failed, @last:ok, …
    Last(LastOptions),
    /// Make, show and enrol keys
    #[command(subcommand)]
    Key(KeyAction),
    /// Show or stop the process that keeps connections (--keep)
    #[command(subcommand)]
    Agent(AgentAction),
    /// See the sticky-packet problem (粘包) and its cure on real sockets
    #[command(after_help = LESSON_NOTES)]
    Lesson(LessonOptions),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all of them into a directory
    Man {
        /// The directory: a page for each subcommand
        directory: Option<PathBuf>,
    },
}

/// `labsh agent`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum AgentAction {
    /// List the connections that are kept
    List,
    /// Say whether it runs; the exit status is 3 where it does not
    Status,
    /// End it, once the commands that go through it have ended
    Stop,
    /// Be it; labsh starts it by itself
    #[command(hide = true)]
    Serve,
}

/// Run a command on a host
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// How to get there.
    #[command(flatten)]
    pub connection: ConnectionFlags,
    /// How it is run.
    #[command(flatten)]
    pub command: CommandOptions,
    /// Give the command a terminal, as `labsh shell` does; twice: even if stdin here is none
    #[arg(short = 't', long, action = ArgAction::Count, conflicts_with = "no_stdin")]
    #[arg(help_heading = "Terminal")]
    pub tty: u8,
    /// How it is joined to ours.
    #[command(flatten)]
    pub terminal: TerminalFlags,
    /// What many hosts have a use for.
    #[command(flatten)]
    pub many: ManyOptions,
    /// Where, and what.
    #[command(flatten)]
    pub remote: RemoteCommand,
}

impl RunOptions {
    /// What is to be run.
    pub fn program(&self) -> Program {
        form(&self.remote.words, self.command.form)
    }
}

/// Work in a terminal on a host: a login shell, or a command
#[derive(Debug, Clone, Args)]
#[command(mut_arg("no_stdin", |arg| arg.hide(true)))]
pub struct ShellOptions {
    /// How to get there.
    #[command(flatten)]
    pub connection: ConnectionFlags,
    /// How it is run.
    #[command(flatten)]
    pub command: CommandOptions,
    /// How its terminal is joined to ours.
    #[command(flatten)]
    pub terminal: TerminalFlags,
    /// Where, and what.
    #[command(flatten)]
    pub remote: RemoteShell,
}

impl ShellOptions {
    /// What is to be run.
    pub fn program(&self) -> Program {
        if self.remote.words.is_empty() {
            return Program::LoginShell;
        }
        form(&self.remote.words, self.command.form)
    }
}

/// Options that say how a terminal over there is joined to the one here.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Terminal")]
pub struct TerminalFlags {
    /// The character that begins an escape at the start of a line, ^X for a control character, or
    /// none [default: ~]
    #[arg(short, long, value_name = "CHAR")]
    pub escape: Option<EscapeCharacter>,
    /// Have a terminal over there even if stdin here is none
    #[arg(long, conflicts_with = "no_stdin")]
    pub force_tty: bool,
}

/// Run a command through a labshd of its own on this machine: nothing to set up
#[derive(Debug, Clone, Args)]
pub struct TryOptions {
    /// How it is run.
    #[command(flatten)]
    pub command: CommandOptions,
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
    /// What is to be run.
    pub fn program(&self) -> Program {
        form(&self.words, self.command.form)
    }
}

/// Measure how long a host takes to answer
#[derive(Debug, Clone, Args)]
#[command(mut_arg("keep", |arg| arg.hide(true)))]
pub struct PingOptions {
    /// How many times to ask
    #[arg(short, long, value_name = "COUNT", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// How to get there.
    #[command(flatten)]
    pub connection: ConnectionFlags,
    /// Where.
    #[arg(value_name = "TARGET", help_heading = "Arguments")]
    #[arg(help = "The host: name, name:port, [IPv6]:port or unix:/path")]
    pub target: Target,
}

/// Options that say how to get to a host.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionFlags {
    /// The key: its name, or the path of its file [env: LABSH_KEY]
    #[arg(long, value_name = "KEY")]
    pub key: Option<KeyName>,
    /// The name under which the key was enrolled there, if it is not TARGET's [env: LABSH_HOST_ID]
    #[arg(long, value_name = "NAME", value_parser = HostId::new)]
    pub host_id: Option<HostId>,
    /// The port, if TARGET does not name it [env: LABSH_PORT] [default: 5274]
    #[arg(short, long, value_name = "PORT", value_parser = parse_port)]
    pub port: Option<u16>,
    /// No TLS: both ends still prove who they are, but everything can be read and changed on the
    /// way
    #[arg(long)]
    pub plain: bool,
    /// How long connecting may take [env: LABSH_CONNECT_TIMEOUT] [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub connect_timeout: Option<Duration>,
    /// How long a connection to one host stays open for the next command, or off [env: LABSH_KEEP]
    /// [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = parse_keep)]
    pub keep: Option<Duration>,
}

impl ConnectionFlags {
    /// What the flags say; the rest of [`ConnectionOverrides`] is not theirs.
    pub fn overrides(&self) -> ConnectionOverrides {
        ConnectionOverrides {
            port: self.port,
            host_id: self.host_id.clone(),
            key: self.key.clone(),
            plain: self.plain.then_some(true),
            connect_timeout: self.connect_timeout,
            keep: self.keep,
            ..ConnectionOverrides::default()
        }
    }
}

/// Options that say how a command is run, wherever that is.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Command")]
pub struct CommandOptions {
    /// Which form the words have.
    #[command(flatten)]
    pub form: FormFlags,
    /// End the command after this time (30s, 5m); the host does it, even if labsh has gone
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Leave when the command ends, even if it left processes behind that hold its output open
    #[arg(long)]
    pub no_wait_eof: bool,
    /// Set a variable there, or with NAME alone pass this machine's own (repeatable)
    #[arg(long, value_name = "NAME[=VALUE]")]
    #[arg(value_parser = OsStringValueParser::new().try_map(variable))]
    pub env: Vec<Variable>,
    /// Start in this directory; a relative one starts from the home directory
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<OsString>,
    /// Give the command nothing to read
    #[arg(short = 'n', long)]
    pub no_stdin: bool,
    /// Say how it ended in one line of JSON on stderr; of many hosts, print a line for each event,
    /// or one: summary
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true,
        default_missing_value = "events")]
    pub json: Option<JsonForm>,
    /// Say how it ended in one line of JSON on this open file descriptor
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(RawFd).range(1..))]
    pub status_fd: Option<RawFd>,
    /// Say on stderr what is being done, on one host
    #[arg(short, long)]
    pub verbose: bool,
    /// Variables that it is to have where the host lets them in, and to do without where not.
    #[arg(skip)]
    pub env_where_allowed: Vec<Variable>,
    /// Refuse to run as anybody else; chooses a key that is configured for that user
    #[arg(long, value_name = "USER", value_parser = NonEmptyStringValueParser::new())]
    pub user: Option<String>,
}

/// Options that say outright what form the words of a command have.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Command")]
pub struct FormFlags {
    /// Join the words with blanks and have your shell there run the line
    #[arg(long, conflicts_with = "argv")]
    pub shell: bool,
    /// Run exactly these words, without a shell, even a single one
    #[arg(long)]
    pub argv: bool,
}

/// What the words of a command line mean: one word is for the shell, several are exact, unless
/// flags say otherwise.
pub fn form(words: &[OsString], flags: FormFlags) -> Program {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    if flags.shell || (words.len() == 1 && !flags.argv) {
        Program::Shell(words.join(&b' '))
    } else {
        Program::Argv(words.into_iter().map(<[u8]>::to_vec).collect())
    }
}

pub(crate) fn variable(text: OsString) -> Result<Variable, String> {
    let bytes = text.as_bytes();
    let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (&bytes[..at], bytes[at + 1..].to_vec()),
        None => match std::env::var_os(&text) {
            Some(value) => (bytes, value.as_bytes().to_vec()),
            None => return Err("it is not set here; write NAME=VALUE".to_owned()),
        },
    };
    if name.is_empty() { Err("the name is missing".to_owned()) } else { Ok((name.to_vec(), value)) }
}

/// `labsh key`: what to do with which key.
#[derive(Debug, Clone, Subcommand)]
pub enum KeyAction {
    /// Make a key
    New {
        /// Its name (default: your user name @ this machine)
        #[arg(value_parser = KeyId::new)]
        id: Option<KeyId>,
    },
    /// List the keys, with the hosts that each was enrolled for
    List,
    /// Show what is known about a key; never the key itself
    Show {
        /// The key [default: the only one]
        #[arg(value_parser = KeyId::new)]
        id: Option<KeyId>,
    },
    /// Print the line that makes a key known to one host: a secret, for that host alone
    ///
    /// The host adds it with `labshd key add`, which reads it from standard input:
    /// labsh key enroll alice --host lab07 | ssh lab07 labshd key add
    ///
    /// For a set of hosts, --out writes a file for each.
    Enroll(EnrollOptions),
    /// Print what to run on each host so that it forgets a key
    Revoke(RevokeOptions),
}

/// `labsh key enroll`.
#[derive(Debug, Clone, Args)]
pub struct EnrollOptions {
    /// The key [default: the only one]
    #[arg(value_parser = KeyId::new)]
    pub id: Option<KeyId>,
    /// The host, as it will be named as a target; with --out a set of them: lab[01-40], @group
    #[arg(long, value_name = "HOST")]
    pub host: Targets,
    /// The name to enrol it under, if it is not HOST's; `labsh run` will need it too [env:
    /// LABSH_HOST_ID]
    #[arg(long, value_name = "NAME", value_parser = HostId::new)]
    pub host_id: Option<HostId>,
    /// Write DIR/HOST.enroll for each host, for its eyes only, and print none
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Replace files that are there
    #[arg(long, requires = "out")]
    pub force: bool,
}

/// `labsh key revoke`.
#[derive(Debug, Clone, Args)]
pub struct RevokeOptions {
    /// The key [default: the only one]
    #[arg(value_parser = KeyId::new)]
    pub id: Option<KeyId>,
    /// Only this host
    #[arg(long, value_name = "HOST")]
    pub host: Option<Target>,
    /// Delete the key here as well: it cannot be had back
    #[arg(long, conflicts_with = "host")]
    pub delete: bool,
    /// Do not ask before deleting
    #[arg(long, requires = "delete")]
    pub yes: bool,
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
