//! The outcome of each host of a run, in a word, and of all hosts, in a few lines.

use std::collections::BTreeMap;
use std::time::Duration;

use labsh_client::Address;
use labsh_client::fanout::{End, Host};
use labsh_nodeset::NodeSet;
use labsh_proto::message::Program;
use labsh_proto::signal_name::signal_name;

use crate::remote::{outcome, record};

/// One host's part of a run.
#[derive(Debug, Clone)]
pub(crate) struct HostReport {
    pub(crate) name: String,
    pub(crate) address: Address,
    pub(crate) state: State,
}

impl HostReport {
    /// Returns the report of a host whose turn has not come.
    pub(crate) fn waiting(host: &Host) -> Self {
        Self {
            name: host.name.clone(),
            address: host.connection.address.clone(),
            state: State::Waiting,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum State {
    /// The turn of the host has not come.
    Waiting,
    /// The connection is being opened, since this time.
    Connecting(std::time::Instant),
    /// The command runs; the connection was begun at this time.
    Running(std::time::Instant),
    /// The command has ended, but since then processes that it left behind hold its output open.
    Leftovers(std::time::Instant),
    /// The host has finished, after this time.
    Over(End, Duration),
}

/// Outcomes by severity, from success to the worst. Equal ones are reported together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Ok,
    Exit(u8),
    Signal(u8),
    TimedOut,
    NotBegun,
    Refused,
    Unreachable,
    Lost,
}

impl Kind {
    pub(crate) fn of(end: &End) -> Self {
        match end {
            End::Ended(status) if status.timed_out() => Kind::TimedOut,
            End::Ended(status) => match (status.code(), status.signal()) {
                (Some(0), _) => Kind::Ok,
                (Some(code), _) => Kind::Exit(code),
                (None, signal) => Kind::Signal(signal.unwrap_or(0)),
            },
            End::Refused(error) if outcome::is_timed_out(error) => Kind::TimedOut,
            End::Refused(_) => Kind::Refused,
            End::Unreachable(_) => Kind::Unreachable,
            End::Lost(_) => Kind::Lost,
            End::NotBegun => Kind::NotBegun,
        }
    }

    /// Returns the exit status of a run in which this is the worst outcome.
    pub(crate) fn exit_status(self) -> u8 {
        match self {
            Kind::Ok => 0,
            Kind::Exit(_) | Kind::Signal(_) | Kind::TimedOut => 1,
            Kind::Refused | Kind::NotBegun => 125,
            Kind::Unreachable | Kind::Lost => 255,
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Kind::Ok => "ok".into(),
            Kind::Exit(code) => format!("exit {code}"),
            Kind::Signal(signal) => format!("signal {signal} ({})", signal_name(signal)),
            Kind::TimedOut => "timed out".into(),
            Kind::NotBegun => "not begun".into(),
            Kind::Refused => "refused".into(),
            Kind::Unreachable => "unreachable".into(),
            Kind::Lost => "lost".into(),
        }
    }
}

/// Returns the cause of a failure and what to do next; none if the exit status says it all.
pub(crate) fn reason(end: &End, program: &Program) -> Option<String> {
    match end {
        End::Ended(_) | End::NotBegun => None,
        End::Refused(error) | End::Unreachable(error) | End::Lost(error) => {
            Some(outcome::explain(error, program))
        }
    }
}

/// Returns the exit status of a run: 255 if a host was unreachable or lost, else 125 if one refused
/// or was not begun, else 1 if a command failed, else 0.
pub(crate) fn exit_status(hosts: &[HostReport]) -> u8 {
    hosts
        .iter()
        .map(|host| match &host.state {
            State::Over(end, _) => Kind::of(end).exit_status(),
            _ => 255,
        })
        .max()
        .unwrap_or(0)
}

/// Returns the highest exit status of any host, each as `labsh run` gives it for that host alone.
pub(crate) fn highest_status(hosts: &[HostReport]) -> u8 {
    let of = |host: &HostReport| match &host.state {
        State::Over(end, _) => record::exit_status(end),
        _ => 255,
    };
    hosts.iter().map(of).max().unwrap_or(0)
}

/// Failed hosts, grouped by outcome and cause.
#[derive(Debug, Default)]
pub(crate) struct Failures<'a>(BTreeMap<Failure, Vec<Failed<'a>>>);

/// The outcome, and the cause without names and addresses, so that it is equal for many hosts.
type Failure = (Kind, Option<String>);

/// The name of a host, and the cause in full.
type Failed<'a> = (&'a str, Option<String>);

impl<'a> Failures<'a> {
    pub(crate) fn add(&mut self, name: &'a str, address: &str, end: &End, program: &Program) {
        let why = reason(end, program);
        // The same cause on many hosts differs only by their names and addresses.
        let alike = why.as_ref().map(|why| anonymous(&anonymous(why, address), name));
        self.0.entry((Kind::of(end), alike)).or_default().push((name, why));
    }

    /// Returns a line for each group; `text` names its outcome.
    pub(crate) fn lines(self, text: impl Fn(Kind) -> String) -> Vec<String> {
        let line = |((kind, alike), mut hosts): (Failure, Vec<Failed<'_>>)| {
            let (count, why) = match &mut hosts[..] {
                [(_, why)] => (String::new(), why.take()),
                several => (format!(" ({})", several.len()), alike),
            };
            let set: NodeSet = hosts.into_iter().map(|(name, _)| name).collect();
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            format!("{}{count}: {set}{why}", text(kind))
        };
        self.0.into_iter().map(line).collect()
    }
}

/// The fewest times whose percentiles say more than the slowest time.
const MIN_SPREAD_TIMES: usize = 10;

/// Returns the median, the 95th percentile and the slowest time, in parentheses; of a few times
/// only the slowest, and an empty text for fewer than two.
pub(crate) fn spread(times: &mut [(Duration, &str)]) -> String {
    times.sort();
    let Some((slowest, name)) = times.last().filter(|_| times.len() > 1) else {
        return String::new();
    };
    let slowest = format!("slowest {name}: {}", seconds(*slowest));
    if times.len() < MIN_SPREAD_TIMES {
        return format!(" ({slowest})");
    }
    // The nearest-rank method: at least `percent` of a hundred took no longer.
    let at = |percent: usize| seconds(times[(times.len() * percent).div_ceil(100) - 1].0);
    format!(" (half within {}, 95 % within {}, {slowest})", at(50), at(95))
}

/// Returns the closing lines of a run: how many hosts succeeded and the time it took, then a line
/// for each kind of failure.
pub(crate) fn summary(hosts: &[HostReport], program: &Program, took: Duration) -> Vec<String> {
    summary_of(hosts, program, took, Kind::text)
}

/// Returns the closing lines of a run; `text` names each kind of failure.
pub(crate) fn summary_of(
    hosts: &[HostReport],
    program: &Program,
    took: Duration,
    text: impl Fn(Kind) -> String,
) -> Vec<String> {
    let mut times: Vec<(Duration, &str)> = Vec::new();
    let mut failures = Failures::default();
    let mut succeeded = 0;
    for host in hosts {
        let State::Over(end, time) = &host.state else { continue };
        if end.success() {
            succeeded += 1;
        } else {
            failures.add(&host.name, &host.address.to_string(), end, program);
        }
        if matches!(end, End::Ended(_)) {
            times.push((*time, &host.name));
        }
    }
    let first = format!("{succeeded} of {} succeeded in {}", hosts.len(), seconds(took));
    let mut lines = vec![first + &spread(&mut times)];
    lines.extend(failures.lines(text));
    lines
}

/// Replaces the name of a host in a text by HOST, where it is a word of its own.
pub(crate) fn anonymous(text: &str, name: &str) -> String {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(name).filter(|_| !name.is_empty()) {
        let (before, behind) = (&rest[..at], &rest[at + name.len()..]);
        let inside = before.ends_with(part_of_name) || behind.starts_with(part_of_name);
        out += before;
        out += if inside { name } else { "HOST" };
        rest = behind;
    }
    out + rest
}

/// Formats a time with a precision that suits its size.
pub(crate) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        _ if seconds < 0.0995 => format!("{:.0} ms", seconds * 1000.0),
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        _ if seconds < 120.0 => format!("{seconds:.0} s"),
        _ => humantime::format_duration(Duration::from_secs(time.as_secs())).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ninety_five_of_a_hundred_are_no_fewer() {
        let spread_of = |count: u64| {
            let mut times: Vec<_> =
                (1..=count).map(|time| (Duration::from_secs(time), "h")).collect();
            spread(&mut times)
        };
        assert_eq!(spread_of(1), "");
        assert_eq!(spread_of(2), " (slowest h: 2.0 s)");
        assert_eq!(spread_of(9), " (slowest h: 9.0 s)");
        assert_eq!(spread_of(10), " (half within 5.0 s, 95 % within 10 s, slowest h: 10 s)");
        assert_eq!(spread_of(40), " (half within 20 s, 95 % within 38 s, slowest h: 40 s)");
    }
}
