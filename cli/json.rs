//! The JSON that the programs print: one object on each line, whose `event` states what it is.
//!
//! Fields with one meaning have one name everywhere; `docs/schema` has the schema of each
//! subcommand's lines.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use labsh_client::Address;
use labsh_client::config::ConfigError;
use labsh_client::keys::key_file::KeyFileError;
use labsh_client::terminal_text::escape_json;
use labsh_diagnostics::Diagnostic;
use labsh_nodeset::NodeSetError;
use serde_json::{Map, Value, json};

/// The first second, since 1970, that RFC 3339 cannot express.
const YEAR_10000: u64 = 253_402_300_800;

/// The fields of an object.
pub(crate) type Fields = Map<String, Value>;

/// One line of output under construction.
#[derive(Debug, Clone)]
pub(crate) struct Event(Fields);

impl Event {
    /// Begins a line.
    pub(crate) fn new(event: &str) -> Self {
        Self(Fields::from_iter([("event".to_owned(), event.into())]))
    }

    /// Begins a line about a host.
    pub(crate) fn of_host(event: &str, name: &str) -> Self {
        Self::new(event).with("host", name)
    }

    /// Adds a field.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Adds several fields.
    pub(crate) fn with_all(mut self, fields: Fields) -> Self {
        self.0.extend(fields);
        self
    }

    /// Returns the fields.
    pub(crate) fn into_fields(self) -> Fields {
        self.0
    }

    /// Returns the line, with its end. Characters that could steer a terminal are escaped.
    pub(crate) fn line(self) -> String {
        escape_json(&Value::Object(self.0).to_string()) + "\n"
    }
}

/// Returns the fields that say where a host is; `port` is null for a unix socket.
pub(crate) fn location(address: &Address) -> Fields {
    let (address, port) = match address {
        Address::Tcp { host, port } => (host.clone(), Some(*port)),
        Address::Unix(path) => (format!("unix:{}", path.display()), None),
    };
    Fields::from_iter([("address".to_owned(), address.into()), ("port".to_owned(), port.into())])
}

/// Returns the value of a field `error`: a code for programs, a reason and a remedy for people.
pub(crate) fn error(code: &str, reason: &str, remedy: &str) -> Value {
    let remedy = Some(remedy).filter(|text| !text.is_empty());
    json!({ "code": code, "reason": reason, "remedy": remedy })
}

/// Returns the same for a message of the form "reason; remedy".
pub(crate) fn error_of_text(code: &str, text: &str) -> Value {
    let (reason, remedy) = text.rsplit_once("; ").unwrap_or((text, ""));
    error(code, reason, remedy)
}

/// Returns the value of a field `error` for an error in a file.
pub(crate) fn error_of_diagnostic(diagnostic: &Diagnostic) -> Value {
    let mut error = error_of_text("configuration", &diagnostic.reason);
    error["file"] = diagnostic.origin.path.to_string_lossy().into();
    error["line"] = diagnostic.origin.line.into();
    error
}

/// Returns a time (RFC 3339, UTC); null outside the calendar of four digits.
pub(crate) fn time(time: SystemTime) -> Value {
    let since_1970 = time.duration_since(UNIX_EPOCH).ok();
    since_1970
        .filter(|since| since.as_secs() < YEAR_10000)
        .map(|_| humantime::format_rfc3339_seconds(time).to_string())
        .into()
}

/// Returns a time in milliseconds, to a microsecond.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

/// Returns the line of a program that fails before or outside the work on hosts.
pub(crate) fn failure(error: Value, exit_status: u8) -> Event {
    Event::new("error").with("exit_status", exit_status).with("error", error)
}

/// Returns the value of a field `error` for an error of labsh itself.
pub(crate) fn error_of(error: &anyhow::Error) -> Value {
    if let Some(diagnostic) = error.downcast_ref::<Diagnostic>() {
        return error_of_diagnostic(diagnostic);
    }
    let code = if error.is::<KeyFileError>() {
        "key"
    } else if let Some(error) = error.downcast_ref::<ConfigError>() {
        match error {
            ConfigError::Key(_) => "key",
            ConfigError::File(diagnostic) => return error_of_diagnostic(diagnostic),
            _ => "configuration",
        }
    } else if error.is::<NodeSetError>() {
        "hosts"
    } else {
        "other"
    };
    error_of_text(code, &format!("{error:#}"))
}

/// Returns the same for a command line that cannot be parsed. The remedy is what follows the error:
/// similar names and the usage.
pub(crate) fn error_of_usage(error: &clap::Error) -> Value {
    let text = error.to_string();
    let mut paragraphs = text
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|paragraph| !paragraph.is_empty());
    let first = paragraphs.next().unwrap_or_default();
    let (reason, remedy) = first.rsplit_once("; ").unwrap_or((&first, ""));
    let remedy = Some(remedy.to_owned()).filter(|remedy| !remedy.is_empty()).into_iter();
    let remedies: Vec<String> = remedy.chain(paragraphs).collect();
    self::error("usage", reason.trim_start_matches("error: "), &remedies.join("; "))
}
