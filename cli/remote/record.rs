//! The outcome of a command on a host in JSON, the same for one host and for many.

use labsh_client::fanout::End;
use labsh_client::{CommandError, ConnectError, ExitStatus};
use labsh_proto::message::Program;
use serde_json::{Value, json};

use crate::console::REFUSED;
use crate::json::{self, Fields};
use crate::remote::outcome;

/// Returns the word for an outcome; it may follow `@last:`.
pub(crate) fn word(end: &End) -> &'static str {
    match end {
        End::Ended(status) if status.timed_out() => "timed-out",
        End::Ended(status) => match status.code() {
            Some(0) => "ok",
            Some(_) => "exited",
            None => "signaled",
        },
        End::Refused(error) if outcome::is_timed_out(error) => "timed-out",
        End::Refused(_) => "refused",
        End::Unreachable(_) => "unreachable",
        End::Lost(_) => "lost",
        End::NotBegun => "not-begun",
    }
}

/// Returns the exit status of labsh for this host alone.
pub(crate) fn exit_status(end: &End) -> u8 {
    match end {
        End::Ended(status) => outcome::status_of(status),
        End::Refused(error) | End::Unreachable(error) | End::Lost(error) => {
            outcome::exit_status(error)
        }
        End::NotBegun => REFUSED,
    }
}

/// Returns the fields that every subcommand has for a host.
pub(crate) fn of_host(end: &End, program: &Program, exit_status: u8) -> Fields {
    let mut fields = Fields::new();
    fields.insert("outcome".into(), word(end).into());
    fields.insert("exit_status".into(), exit_status.into());
    if let End::Refused(error) | End::Unreachable(error) | End::Lost(error) = end {
        fields.insert("error".into(), of_error(error, program));
    }
    fields
}

/// Returns the fields of a command on a host.
pub(crate) fn of_command(end: &End, program: &Program) -> Fields {
    let mut fields = of_host(end, program, exit_status(end));
    match end {
        End::Ended(status) => fields.extend(of_status(status)),
        End::Lost(CommandError::Incomplete { stream, received, sent }) => {
            fields.insert("stream".into(), stream.to_string().into());
            fields.insert("received_bytes".into(), (*received).into());
            fields.insert("sent_bytes".into(), (*sent).into());
        }
        _ => {}
    }
    fields
}

fn of_status(status: &ExitStatus) -> Fields {
    let ((stdout, stderr), usage) = (status.totals(), status.usage());
    let milliseconds = |microseconds: u64| microseconds as f64 / 1e3;
    let usage = json!({
        "wall_ms": milliseconds(usage.wall),
        "user_ms": milliseconds(usage.user),
        "system_ms": milliseconds(usage.system),
        "peak_memory_bytes": usage.peak_memory,
    });
    Fields::from_iter([
        ("code".to_owned(), status.code().into()),
        ("signal".to_owned(), status.signal().into()),
        ("core_dumped".to_owned(), status.core_dumped().into()),
        ("stdout_bytes".to_owned(), stdout.into()),
        ("stderr_bytes".to_owned(), stderr.into()),
        ("usage".to_owned(), usage),
    ])
}

/// Returns the value of the field `error`.
pub(crate) fn of_error(error: &CommandError, program: &Program) -> Value {
    json::error(code(error), &error.to_string(), &outcome::remedy(error, program))
}

/// Returns the code of an error: that of the host's refusal, or one of labsh.
fn code(error: &CommandError) -> &'static str {
    match error {
        CommandError::Refused(refuse)
        | CommandError::Connect(ConnectError::Refused { refuse, .. }) => refuse.code.name(),
        CommandError::Bad(_) => "bad-command",
        CommandError::Exhausted => "too-many-channels",
        CommandError::Lost(_)
        | CommandError::Connect(ConnectError::Broken { .. } | ConnectError::Lost { .. }) => {
            "connection-lost"
        }
        CommandError::Input(_) => "not-read",
        CommandError::Incomplete { .. } => "incomplete",
        CommandError::Connect(ConnectError::Unreachable { .. }) => "unreachable",
        CommandError::Connect(ConnectError::TooManyFiles { .. }) => "too-many-files",
        CommandError::Connect(ConnectError::Timeout { .. }) => "connect-timeout",
        CommandError::Connect(ConnectError::Silent { .. }) => "no-answer",
        CommandError::Connect(ConnectError::WrongServer { .. }) => "wrong-server",
        CommandError::Connect(ConnectError::PortIsPlain { .. } | ConnectError::Foreign { .. }) => {
            "wrong-port"
        }
        CommandError::Connect(ConnectError::Protocol { .. }) => "protocol",
    }
}
