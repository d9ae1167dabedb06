//! What can be configured, and what holds where nothing is said.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::copying;
use crate::diagnostics::Problem;
use crate::environment::{self, Pattern};
pub use crate::listen_address::ListenAddress;
use crate::private_file::{self, Holds};
use crate::toml_fields::Fields;
use labsh_diagnostics::{Diagnostic, Diagnostics};
use labsh_proto::auth::Mode;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// What stands in `labshd.toml`; the names there are the names here, and every one may be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where to listen, beside the sockets that the service manager hands over. Default:
    /// `[::]:5274`.
    pub listen: Vec<ListenAddress>,
    /// Permits `plain://` on addresses that other machines can reach. Default: false.
    pub allow_plain_on_network: bool,
    /// Connections that the kernel keeps waiting for accept(2), for each address. Default: 1024.
    pub backlog: u32,
    /// After how long without a sign of life a client counts as gone. Default: 45 s.
    pub dead_peer_after: Duration,
    /// How long a connection may take to authenticate. Default: 10 s.
    pub authentication_deadline: Duration,
    /// How long every refusal of a proof is held back. Default: 1 s.
    pub failed_authentication_delay: Duration,
    /// Connections that may be authenticating at once, in all; never more than half of the
    /// descriptors. Default: 512.
    pub max_unauthenticated: u32,
    /// Connections in all. Default: 10,000.
    pub max_connections: u32,
    /// Commands at once on one connection. Default: 256.
    pub max_channels: u32,
    /// Variables that clients may set, within what [`Config::environment_verdict`] never allows.
    /// Default: all.
    pub accept_env: Vec<Pattern>,
    /// PATH for commands; [`Config::command_path`] has the default.
    pub path: Option<String>,
    /// Programs that clients may ask for by a name, as exact words, no shell; the first is an
    /// absolute path. Default: `sftp`, where one of the usual places has its server. `labsh-copy`
    /// is always among them.
    pub subsystems: BTreeMap<String, Vec<String>>,
    /// Between SIGHUP, SIGTERM and SIGKILL for a command whose client is gone. Default: 2 s.
    pub termination_grace: Duration,
    /// How long running commands may still take once labshd is told to stop. Default: 30 s.
    pub drain_timeout: Duration,
    /// How the log is written. Default: text.
    pub log_format: LogFormat,
    /// The least important lines that are still written. Default: info.
    pub log_level: LogLevel,
    /// Where the keys' entries are. Default: `keys.d` beside the configuration file.
    pub keys_dir: PathBuf,
}

/// For whom the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: an object a line.
    Json,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// What needs somebody's attention.
    Error,
    /// What may need it.
    Warn,
    /// A line for each authentication, command and exit.
    Info,
    /// How decisions come about.
    Debug,
    /// Every message.
    Trace,
}

impl fmt::Display for LogLevel {
    /// As in the configuration file.
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
    /// As with an empty `/etc/labsh/labshd.toml`.
    fn default() -> Self {
        Self::beside(Path::new("/etc/labsh/labshd.toml"))
    }
}

impl Config {
    /// As with an empty file at this path.
    pub fn beside(file: &Path) -> Self {
        let any = ListenAddress::Tcp {
            host: "::".to_owned(),
            port: crate::listen_address::DEFAULT_PORT,
            mode: Mode::Tls,
        };
        Self {
            listen: vec![any],
            allow_plain_on_network: false,
            backlog: 1024,
            dead_peer_after: 45 * SECOND,
            authentication_deadline: 10 * SECOND,
            failed_authentication_delay: SECOND,
            max_unauthenticated: 512,
            max_connections: 10_000,
            max_channels: 256,
            accept_env: vec![Pattern::any()],
            path: None,
            subsystems: with_copying(usual_subsystems()),
            termination_grace: 2 * SECOND,
            drain_timeout: 30 * SECOND,
            log_format: LogFormat::Text,
            log_level: LogLevel::Info,
            keys_dir: file.with_file_name("keys.d"),
        }
    }

    /// Reads a file, which must exist, and which only its owner, root or this user, may be able to
    /// change.
    pub fn load(file: &Path) -> Result<Self, Diagnostics> {
        let (config, diagnostics) = Self::read(file);
        if diagnostics.is_empty() { Ok(config) } else { Err(Diagnostics(diagnostics)) }
    }

    /// The same; with mistakes, what could be understood: it says where to look for more of them.
    pub(crate) fn read(file: &Path) -> (Self, Vec<Diagnostic>) {
        match private_file::read(file, Holds::Settings) {
            Ok(text) => Self::parse(file, &text),
            Err(wrong) => (Self::beside(file), vec![wrong.at(file, None)]),
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
        fields.count(&mut config.max_channels, "max_channels", 1..=65_536);
        fields.list(&mut config.accept_env, "accept_env", str::parse);
        fields.text(&mut config.path, "path", |path| command_path(path).map(Some));
        fields.table(&mut config.subsystems, "subsystems", subsystem);
        fields.duration(&mut config.termination_grace, "termination_grace", Duration::ZERO..=HOUR);
        fields.duration(&mut config.drain_timeout, "drain_timeout", Duration::ZERO..=24 * HOUR);
        fields.text(&mut config.log_format, "log_format", log_format);
        fields.text(&mut config.log_level, "log_level", log_level);
        fields.text(&mut config.keys_dir, "keys_dir", |dir| match dir {
            "" => Err(Problem::new("it is empty", "name a directory, or remove the line")),
            // What is relative starts where the file is, wherever labshd was started.
            dir => Ok(file.with_file_name(dir)),
        });
        config.subsystems = with_copying(config.subsystems);
        (config, fields.finish())
    }

    /// PATH for the commands of root, or of anyone else.
    pub fn command_path(&self, root: bool) -> &str {
        match (&self.path, root) {
            (Some(path), _) => path,
            (None, true) => "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            (None, false) => "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games",
        }
    }

    /// Whether a client may set this variable for its command; if not, why.
    pub fn environment_verdict(&self, name: &[u8]) -> Result<(), &'static str> {
        environment::verdict(&self.accept_env, name)
    }
}

fn listen_address(
    text: &str,
    plain_anywhere: bool,
    seen: &mut Vec<ListenAddress>,
) -> Result<ListenAddress, Problem> {
    let address: ListenAddress = text.parse()?;
    if address.mode() == Mode::Plain && !address.is_local() && !plain_anywhere {
        return Err(Problem::new(
            format!("{text:?} would carry commands and their output unprotected over the network"),
            "remove plain://, or listen on 127.0.0.1; if you mean it, set allow_plain_on_network \
             = true",
        ));
    }
    if seen.contains(&address) {
        return Err(Problem::new(format!("{text:?} is there twice"), "remove one of the two"));
    }
    seen.push(address.clone());
    Ok(address)
}

fn command_path(path: &str) -> Result<String, Problem> {
    // An empty or relative part would mean the directory that the client chose to work in.
    match path.split(':').find(|part| !part.starts_with('/')) {
        Some(part) => Err(Problem::new(
            format!("{part:?} is no absolute path"),
            "write directories that begin with /, with : between them",
        )),
        None if path.contains('\0') => Err(Problem::new("it holds a NUL", "remove it")),
        None => Ok(path.to_owned()),
    }
}

/// Where distributions put OpenSSH's server for file transfers.
const SFTP_SERVERS: [&str; 4] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
];

fn usual_subsystems() -> BTreeMap<String, Vec<String>> {
    let found = SFTP_SERVERS.into_iter().find(|path| Path::new(path).exists());
    found.map(|path| ("sftp".to_owned(), vec![path.to_owned()])).into_iter().collect()
}

/// The far side of `labsh cp`, which is there whether the table names it or not: it can do nothing
/// that a command cannot.
fn with_copying(mut subsystems: BTreeMap<String, Vec<String>>) -> BTreeMap<String, Vec<String>> {
    if let Some(words) = copying::words() {
        subsystems.entry(copying::SUBSYSTEM.to_owned()).or_insert(words);
    }
    subsystems
}

fn subsystem(name: &str, value: toml::Value) -> Result<Vec<String>, Problem> {
    let remedy = format!(
        "write {name} = \"/path/of/program\", or, with words, {name} = [\"/path/of/program\", \
         \"word\"]"
    );
    let wrong = |problem: String| Err(Problem::new(format!("{name}: {problem}"), &remedy));
    let words: Option<Vec<String>> = match value {
        toml::Value::String(path) if path.contains(char::is_whitespace) => {
            return wrong(format!(
                "{path:?} has several words, and no shell would take them apart"
            ));
        }
        toml::Value::String(path) => Some(vec![path]),
        toml::Value::Array(words) => {
            let text = |word: toml::Value| word.as_str().map(str::to_owned);
            words.into_iter().map(text).collect()
        }
        _ => None,
    };
    let Some(words) = words else {
        return wrong("it is neither a text nor a list of texts".to_owned());
    };
    match words.first() {
        None => wrong("it names no program".to_owned()),
        Some(program) if !program.starts_with('/') => {
            wrong(format!("{program:?} is no absolute path"))
        }
        Some(_) if words.iter().any(|word| word.contains('\0')) => {
            wrong("it holds a NUL".to_owned())
        }
        Some(_) => Ok(words),
    }
}

fn log_format(text: &str) -> Result<LogFormat, Problem> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(Problem::new(format!("{text:?} is no format"), "write \"text\" or \"json\"")),
    }
}

fn log_level(text: &str) -> Result<LogLevel, Problem> {
    use LogLevel::{Debug, Error, Info, Trace, Warn};
    [Error, Warn, Info, Debug, Trace]
        .into_iter()
        .find(|level| level.to_string() == text)
        .ok_or_else(|| {
            let remedy = "write \"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
            Problem::new(format!("{text:?} is no level"), remedy)
        })
}

#[cfg(test)]
mod tests {
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
    fn everything_can_be_set() {
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
            max_channels = 3
            accept_env = ["LANG", "LC_*"]
            path = "/bin:/opt/bin"
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
        assert_eq!(config.termination_grace, Duration::from_millis(500));
        assert_eq!(config.command_path(true), "/bin:/opt/bin");
        assert_eq!(config.keys_dir, Path::new("/etc/labsh/elsewhere"));
        assert_eq!(config.environment_verdict(b"LC_TIME"), Ok(()));
        assert!(config.environment_verdict(b"TERM").is_err());
        assert_eq!((config.log_format, config.log_level), (LogFormat::Json, LogLevel::Debug));
        assert_eq!(
            (config.max_unauthenticated, config.max_connections, config.max_channels),
            (1, 2, 3)
        );
    }

    #[test]
    fn plain_mode_on_the_network_needs_a_second_word() {
        let text = "listen = [\"plain://10.0.0.1\"]\n";
        assert!(diagnostics(text).contains("allow_plain_on_network = true"));
        assert_eq!(diagnostics(&format!("{text}allow_plain_on_network = true")), "");
    }

    #[test]
    fn each_wrong_value_is_told_with_its_line_and_what_to_do() {
        let told = diagnostics(
            "listen = [\"127.0.0.1\", \"127.0.0.1:5274\"]\nbacklog = 0\ndead_peer_after = \
             \"soon\"\npath = \"bin:/bin\"\n\
             log_level = \"loud\"\nmax_channels = \"many\"\ndrain_timeout = 30\naccept_env = \
             [\"LD_PRELOAD\"]\n\
             keys_dir = \"\"\nlisten_on = \"x\"\nsubsystems.a = \"sftp-server\"\nsubsystems.b = \
             []\nsubsystems.c = 5\n\
             subsystems.d = \"/a b\"\nsubsystems.e = [\"/a\", 1]\n",
        );
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), 15, "{told}");
        for (index, line) in lines.iter().enumerate() {
            assert!(line.starts_with(&format!("{FILE}:{}: ", index + 1)), "{line}");
            assert!(line.ends_with(')'), "{line}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_told() {
        let error = Config::load(Path::new("/nonexistent/labshd.toml")).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/labshd.toml: it cannot be read"), "{error}");
    }
}
