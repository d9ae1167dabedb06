//! The configuration file, `labshd.toml`: its keys, their defaults and their checks.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::copying;
use crate::diagnostics::Problem;
use crate::environment::{self, Pattern};
use crate::listen_address::ListenAddress;
use crate::private_file::{self, FileContent};
use crate::toml_fields::Fields;
use labsh_diagnostics::Diagnostic;
use labsh_proto::auth::Mode;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// The values of `labshd.toml`. Fields have the names of the keys, all of which are optional.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The addresses to listen on, unless the service manager passes sockets. Default: `[::]:5274`.
    pub(crate) listen: Vec<ListenAddress>,
    /// Whether `plain://` is permitted on addresses that other machines can reach. Default: false.
    pub(crate) allow_plain_on_network: bool,
    /// Limit on connections that wait for accept(2), for each address. Default: 1024.
    pub(crate) backlog: u32,
    /// Time without an acknowledgment after which a client counts as gone. Default: 45 s.
    pub(crate) dead_peer_after: Duration,
    /// Limit on the time that a connection takes to authenticate. Default: 10 s.
    pub(crate) authentication_deadline: Duration,
    /// Delay before a failed authentication is answered. Default: 1 s.
    pub(crate) failed_authentication_delay: Duration,
    /// Limit on unauthenticated connections; at most half of the descriptors. Default: 512.
    pub(crate) max_unauthenticated: u32,
    /// Limit on authenticated connections. Default: 10,000.
    pub(crate) max_connections: u32,
    /// Limit on authenticated connections of one key. Default: 1,000.
    pub(crate) max_connections_per_key: u32,
    /// Limit on simultaneous commands of one connection. Default: 256.
    pub(crate) max_channels: u32,
    /// Variables that clients may set, except those that [`Config::check_variable`] always refuses.
    /// Default: all.
    pub(crate) accept_env: Vec<Pattern>,
    /// Whether commands without a terminal get SSH_CLIENT. Default: false.
    pub(crate) set_ssh_client: bool,
    /// PATH of commands. Default: see [`Config::command_path`].
    pub(crate) path: Option<String>,
    /// Programs that clients can request by a name, as argument vectors whose first word is an
    /// absolute path. Default: `sftp`, if its server is installed. `labsh-copy` is always included.
    pub(crate) subsystems: BTreeMap<String, Vec<String>>,
    /// Limit on the time from a command's request to its start. Default: 1 min.
    pub(crate) start_timeout: Duration,
    /// Delay between SIGHUP, SIGTERM and SIGKILL when labshd ends a command. Default: 2 s.
    pub(crate) termination_grace: Duration,
    /// Time that running commands have to end by themselves when labshd stops. Default: 30 s.
    pub(crate) drain_timeout: Duration,
    /// Format of the log. Default: text.
    pub log_format: LogFormat,
    /// Lowest level that is logged. Default: info.
    pub log_level: LogLevel,
    /// Directory of the entries. Default: `keys.d` beside the configuration file.
    pub keys_dir: PathBuf,
}

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text for each event.
    Text,
    /// One JSON object for each event, on a line.
    Json,
}

/// The level of a log event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Errors that need attention.
    Error,
    /// Events that may need attention.
    Warn,
    /// Each authentication, command and exit.
    Info,
    /// The reasons of decisions.
    Debug,
    /// Every message.
    Trace,
}

impl fmt::Display for LogLevel {
    /// Writes the level as in the configuration file.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

impl Default for Config {
    /// Returns the defaults for `/etc/labsh/labshd.toml`.
    fn default() -> Self {
        Self::beside(Path::new("/etc/labsh/labshd.toml"))
    }
}

impl Config {
    /// Returns the defaults for a file at this path.
    pub(crate) fn beside(file: &Path) -> Self {
        let any_address = ListenAddress::Tcp {
            host: "::".to_owned(),
            port: crate::listen_address::DEFAULT_PORT,
            mode: Mode::Tls,
        };
        Self {
            listen: vec![any_address],
            allow_plain_on_network: false,
            backlog: 1024,
            dead_peer_after: 45 * SECOND,
            authentication_deadline: 10 * SECOND,
            failed_authentication_delay: SECOND,
            max_unauthenticated: 512,
            max_connections: 10_000,
            max_connections_per_key: 1_000,
            max_channels: 256,
            accept_env: vec![Pattern::any()],
            set_ssh_client: false,
            path: None,
            subsystems: with_copying(default_subsystems()),
            start_timeout: 60 * SECOND,
            termination_grace: 2 * SECOND,
            drain_timeout: 30 * SECOND,
            log_format: LogFormat::Text,
            log_level: LogLevel::Info,
            keys_dir: file.with_file_name("keys.d"),
        }
    }

    /// Reads a file, which only its owner, root or this user, may be able to change. If it contains
    /// errors, returns the other values too: the directory of the keys may contain further errors.
    pub(crate) fn read(file: &Path) -> (Self, Vec<Diagnostic>) {
        match private_file::read(file, FileContent::Settings) {
            Ok(text) => Self::parse(file, &text),
            Err(problem) => (Self::beside(file), vec![problem.at(file, None)]),
        }
    }

    fn parse(file: &Path, text: &str) -> (Self, Vec<Diagnostic>) {
        let mut config = Self::beside(file);
        let mut fields = Fields::parse(file, text);
        fields.flag(&mut config.allow_plain_on_network, "allow_plain_on_network");
        let mut seen = Vec::new();
        fields.list(&mut config.listen, "listen", |address| {
            listen_address(address, config.allow_plain_on_network, &mut seen)
        });
        fields.count(&mut config.backlog, "backlog", 1..=1_000_000);
        fields.duration(&mut config.dead_peer_after, "dead_peer_after", 5 * SECOND..=HOUR);
        fields.duration(
            &mut config.authentication_deadline,
            "authentication_deadline",
            SECOND..=HOUR,
        );
        let delay = Duration::ZERO..=60 * SECOND;
        fields.duration(
            &mut config.failed_authentication_delay,
            "failed_authentication_delay",
            delay,
        );
        fields.count(&mut config.max_unauthenticated, "max_unauthenticated", 1..=1_000_000);
        fields.count(&mut config.max_connections, "max_connections", 1..=1_000_000);
        let most = 1..=1_000_000;
        fields.count(&mut config.max_connections_per_key, "max_connections_per_key", most);
        fields.count(&mut config.max_channels, "max_channels", 1..=65_536);
        fields.list(&mut config.accept_env, "accept_env", str::parse);
        fields.flag(&mut config.set_ssh_client, "set_ssh_client");
        fields.text(&mut config.path, "path", |path| command_path(path).map(Some));
        fields.table(&mut config.subsystems, "subsystems", subsystem);
        fields.duration(&mut config.start_timeout, "start_timeout", SECOND..=HOUR);
        fields.duration(&mut config.termination_grace, "termination_grace", Duration::ZERO..=HOUR);
        fields.duration(&mut config.drain_timeout, "drain_timeout", Duration::ZERO..=24 * HOUR);
        fields.text(&mut config.log_format, "log_format", log_format);
        fields.text(&mut config.log_level, "log_level", log_level);
        fields.text(&mut config.keys_dir, "keys_dir", |dir| match dir {
            "" => Err(Problem::new("it is empty", "name a directory, or remove the line")),
            // Relative to the file, not to labshd's working directory.
            dir => Ok(file.with_file_name(dir)),
        });
        config.subsystems = with_copying(config.subsystems);
        (config, fields.finish())
    }

    /// Returns PATH for the commands of root, or of other users.
    pub(crate) fn command_path(&self, root: bool) -> &str {
        match (&self.path, root) {
            (Some(path), _) => path,
            (None, true) => "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            (None, false) => "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games",
        }
    }

    /// Checks that a client may set this variable for its command. The error is the reason.
    pub(crate) fn check_variable(&self, name: &[u8]) -> Result<(), &'static str> {
        environment::check(&self.accept_env, name)
    }
}

fn listen_address(
    text: &str,
    plain_permitted: bool,
    seen: &mut Vec<ListenAddress>,
) -> Result<ListenAddress, Problem> {
    let address: ListenAddress = text.parse()?;
    if address.mode() == Mode::Plain && !address.is_local() && !plain_permitted {
        return Err(Problem::new(
            format!("{text:?} would send commands and their output unprotected over the network"),
            "remove plain://, or listen on 127.0.0.1; to permit it, set allow_plain_on_network = \
             true",
        ));
    }
    if seen.contains(&address) {
        return Err(Problem::new(format!("{text:?} is listed twice"), "remove one of the two"));
    }
    seen.push(address.clone());
    Ok(address)
}

fn command_path(path: &str) -> Result<String, Problem> {
    // An empty or relative part would refer to the working directory, which the client chooses.
    match path.split(':').find(|part| !part.starts_with('/')) {
        Some(part) => Err(Problem::new(
            format!("{part:?} is not an absolute path"),
            "write directories that begin with /, separated by :",
        )),
        None if path.contains('\0') => Err(Problem::new("it contains a NUL", "remove it")),
        None => Ok(path.to_owned()),
    }
}

/// The paths of OpenSSH's SFTP server in distributions.
const SFTP_SERVERS: [&str; 4] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
];

fn default_subsystems() -> BTreeMap<String, Vec<String>> {
    let found = SFTP_SERVERS.into_iter().find(|path| Path::new(path).exists());
    found.map(|path| ("sftp".to_owned(), vec![path.to_owned()])).into_iter().collect()
}

/// Adds the server side of `labsh cp`, whether or not the table lists it: it can do nothing that a
/// command cannot.
fn with_copying(mut subsystems: BTreeMap<String, Vec<String>>) -> BTreeMap<String, Vec<String>> {
    if let Some(words) = copying::words() {
        subsystems.entry(labsh_copy::SUBSYSTEM.to_owned()).or_insert(words);
    }
    subsystems
}

fn subsystem(name: &str, value: toml::Value) -> Result<Vec<String>, Problem> {
    let remedy = format!(
        "write {name} = \"/path/of/program\", or, with arguments, {name} = [\"/path/of/program\", \
         \"argument\"]"
    );
    let invalid = |problem: String| Err(Problem::new(format!("{name}: {problem}"), &remedy));
    let words: Option<Vec<String>> = match value {
        toml::Value::String(path) if path.contains(char::is_whitespace) => {
            return invalid(format!("{path:?} contains several words, and no shell splits them"));
        }
        toml::Value::String(path) => Some(vec![path]),
        toml::Value::Array(words) => {
            let text = |word: toml::Value| word.as_str().map(str::to_owned);
            words.into_iter().map(text).collect()
        }
        _ => None,
    };
    let Some(words) = words else {
        return invalid("it is neither a string nor a list of strings".to_owned());
    };
    match words.first() {
        None => invalid("it names no program".to_owned()),
        Some(program) if !program.starts_with('/') => {
            invalid(format!("{program:?} is not an absolute path"))
        }
        Some(_) if words.iter().any(|word| word.contains('\0')) => {
            invalid("it contains a NUL".to_owned())
        }
        Some(_) => Ok(words),
    }
}

fn log_format(text: &str) -> Result<LogFormat, Problem> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(Problem::new(format!("{text:?} is not a format"), "write \"text\" or \"json\"")),
    }
}

fn log_level(text: &str) -> Result<LogLevel, Problem> {
    use LogLevel::{Debug, Error, Info, Trace, Warn};
    [Error, Warn, Info, Debug, Trace]
        .into_iter()
        .find(|level| level.to_string() == text)
        .ok_or_else(|| {
            let remedy = "write \"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
            Problem::new(format!("{text:?} is not a level"), remedy)
        })
}

#[cfg(test)]
mod tests {
    use labsh_diagnostics::Diagnostics;

    use super::*;

    const FILE: &str = "/etc/labsh/labshd.toml";

    fn parse(text: &str) -> Config {
        let (config, diagnostics) = Config::parse(Path::new(FILE), text);
        assert_eq!(diagnostics, []);
        config
    }

    fn diagnostics(text: &str) -> String {
        Diagnostics(Config::parse(Path::new(FILE), text).1).to_string()
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(parse(""), Config::default());
        assert_eq!(Config::default().keys_dir, Path::new("/etc/labsh/keys.d"));
        assert_eq!(Config::default().listen[0].to_string(), "[::]:5274");
    }

    #[test]
    fn every_key_can_be_set() {
        let config = parse(
            r#"
            listen = ["127.0.0.1", "plain://localhost:5275", "unix:/run/labshd.sock"]
            allow_plain_on_network = false
            backlog = 10
            dead_peer_after = "1m"
            authentication_deadline = "3s"
            failed_authentication_delay = "0s"
            max_unauthenticated = 1
            max_connections = 2
            max_connections_per_key = 4
            max_channels = 3
            accept_env = ["LANG", "LC_*"]
            set_ssh_client = true
            path = "/bin:/opt/bin"
            start_timeout = "5s"
            termination_grace = "500ms"
            drain_timeout = "1h"
            log_format = "json"
            log_level = "debug"
            keys_dir = "elsewhere"
            [subsystems]
            sftp = "/opt/sftp-server"
            backup = ["/opt/backup", "a word"]
            "#,
        );
        assert_eq!(config.subsystems.len(), 3);
        assert_eq!(config.subsystems["labsh-copy"].last().unwrap(), "copy-serve");
        assert_eq!(config.subsystems["sftp"], ["/opt/sftp-server"]);
        assert_eq!(config.subsystems["backup"], ["/opt/backup", "a word"]);
        assert_eq!(config.listen.len(), 3);
        assert_eq!(config.start_timeout, Duration::from_secs(5));
        assert_eq!(config.termination_grace, Duration::from_millis(500));
        assert_eq!(config.command_path(true), "/bin:/opt/bin");
        assert!(config.set_ssh_client);
        assert_eq!(config.keys_dir, Path::new("/etc/labsh/elsewhere"));
        assert_eq!(config.check_variable(b"LC_TIME"), Ok(()));
        assert!(config.check_variable(b"TERM").is_err());
        assert_eq!((config.log_format, config.log_level), (LogFormat::Json, LogLevel::Debug));
        assert_eq!(
            (config.max_unauthenticated, config.max_connections, config.max_channels),
            (1, 2, 3)
        );
        assert_eq!(config.max_connections_per_key, 4);
    }

    #[test]
    fn plain_mode_on_the_network_needs_explicit_permission() {
        let text = "listen = [\"plain://10.0.0.1\"]\n";
        assert!(diagnostics(text).contains("allow_plain_on_network = true"));
        assert_eq!(diagnostics(&format!("{text}allow_plain_on_network = true")), "");
    }

    #[test]
    fn each_wrong_value_is_reported_with_its_line_and_a_remedy() {
        let text = diagnostics(
            "listen = [\"127.0.0.1\", \"127.0.0.1:5274\"]\nbacklog = 0\ndead_peer_after = \
             \"soon\"\npath = \"bin:/bin\"\n\
             log_level = \"loud\"\nmax_channels = \"many\"\ndrain_timeout = 30\naccept_env = \
             [\"LD_PRELOAD\"]\n\
             keys_dir = \"\"\nlisten_on = \"x\"\nsubsystems.a = \"sftp-server\"\nsubsystems.b = \
             []\nsubsystems.c = 5\n\
             subsystems.d = \"/a b\"\nsubsystems.e = [\"/a\", 1]\n",
        );
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 15, "{text}");
        for (index, line) in lines.iter().enumerate() {
            assert!(line.starts_with(&format!("{FILE}:{}: ", index + 1)), "{line}");
            assert!(line.contains("; "), "{line}");
        }
    }

    #[test]
    fn a_missing_file_is_reported() {
        let (_, diagnostics) = Config::read(Path::new("/nonexistent/labshd.toml"));
        let error = Diagnostics(diagnostics).to_string();
        assert!(error.starts_with("/nonexistent/labshd.toml: it cannot be read"), "{error}");
    }
}
