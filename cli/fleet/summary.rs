//! The outcome of a run on many hosts in JSON, for every subcommand that has one.

use std::collections::BTreeMap;
use std::time::Duration;

use labsh_client::fanout::End;
use labsh_nodeset::NodeSet;
use serde_json::{Value, json};

use crate::fleet::report::{HostReport, State};
use crate::json::{self, Event, Fields};
use crate::remote::record;

/// Returns a host's line when its command runs.
pub(crate) fn started(host: &HostReport) -> Event {
    Event::of_host("started", &host.name).with_all(json::location(&host.address))
}

/// Returns a host's line at its end; `outcome` are the fields of its outcome.
pub(crate) fn over(host: &HostReport, outcome: Fields, took: Duration) -> Event {
    Event::of_host("over", &host.name).with_all(of_host(host, outcome, took))
}

/// Returns the line of a whole run: counts, folded sets, and the fields of each host by its name.
pub(crate) fn summary(
    hosts: &[HostReport],
    outcome: impl Fn(&End) -> Fields,
    took: Duration,
    exit_status: u8,
) -> Event {
    let mut sets: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut each = Fields::new();
    for host in hosts {
        if let State::Over(end, time) = &host.state {
            sets.entry(record::word(end)).or_default().push(&host.name);
            each.insert(host.name.clone(), of_host(host, outcome(end), *time).into());
        }
    }
    let outcomes = sets.into_iter().map(|(word, names)| {
        let (count, set) = (names.len(), names.into_iter().collect::<NodeSet>().to_string());
        (word.to_owned(), json!({ "count": count, "set": set }))
    });
    Event::new("summary")
        .with("count", hosts.len())
        .with("duration_ms", json::milliseconds(took))
        .with("exit_status", exit_status)
        .with("outcomes", outcomes.collect::<Fields>())
        .with("hosts", Value::Object(each))
}

fn of_host(host: &HostReport, mut outcome: Fields, took: Duration) -> Fields {
    outcome.extend(json::location(&host.address));
    outcome.insert("duration_ms".to_owned(), json::milliseconds(took).into());
    outcome
}
