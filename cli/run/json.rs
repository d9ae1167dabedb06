//! Prints JSON: a line for each event, or one for the whole run.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use labsh_client::fanout::End;
use labsh_nodeset::NodeSet;
use labsh_proto::message::{Program, Stream};
use serde_json::{Map, Value, json};

use crate::fleet::report::{self, HostReport, Kind, State};
use crate::fleet::screen::Screen;

pub(super) fn started(screen: &mut Screen, host: &str) -> io::Result<()> {
    line(screen, &json!({ "event": "started", "host": host }))
}

/// A line for each piece of output and each end of a host.
pub(super) struct Events {
    /// For each host's stdout and stderr, the incomplete character at the end of the last piece: at
    /// most three bytes.
    rest: Vec<[Vec<u8>; 2]>,
}

impl Events {
    pub(super) fn new(hosts: usize) -> Self {
        Self { rest: (0..hosts).map(|_| Default::default()).collect() }
    }

    /// Prints a piece of output. `index` is the index of the host. Output that is not UTF-8 becomes
    /// a list of bytes in a field of another name.
    pub(super) fn output(
        &mut self,
        screen: &mut Screen,
        (index, host): (usize, &str),
        stream: Stream,
        bytes: &Bytes,
    ) -> io::Result<()> {
        let rest = &mut self.rest[index][usize::from(stream == Stream::Stderr)];
        let mut piece = std::mem::take(rest);
        piece.extend_from_slice(bytes);
        // A character may arrive in two pieces; it must not be printed as bytes.
        if let Err(error) = str::from_utf8(&piece)
            && error.error_len().is_none()
        {
            *rest = piece.split_off(error.valid_up_to());
        }
        if piece.is_empty() { Ok(()) } else { self::output(screen, host, stream, &piece) }
    }

    pub(super) fn over(
        &mut self,
        screen: &mut Screen,
        (index, host): (usize, &str),
        end: &End,
        program: &Program,
        took: Duration,
    ) -> io::Result<()> {
        for (rest, stream) in self.rest[index].iter_mut().zip([Stream::Stdout, Stream::Stderr]) {
            if !rest.is_empty() {
                output(screen, host, stream, &std::mem::take(rest))?;
            }
        }
        let mut fields = report::json_of_end(end, program, took);
        fields.insert("event".to_owned(), "over".into());
        fields.insert("host".to_owned(), host.into());
        line(screen, &Value::Object(fields))
    }
}

fn output(screen: &mut Screen, host: &str, stream: Stream, bytes: &[u8]) -> io::Result<()> {
    let mut fields = Map::from_iter([
        ("event".to_owned(), Value::from("output")),
        ("host".to_owned(), host.into()),
        ("stream".to_owned(), stream.to_string().into()),
    ]);
    match str::from_utf8(bytes) {
        Ok(text) => fields.insert("text".to_owned(), text.into()),
        Err(_) => fields.insert("bytes".to_owned(), bytes.iter().copied().collect()),
    };
    line(screen, &Value::Object(fields))
}

/// Returns the summary of a run: counts, folded sets, and the outcome of each host.
pub(crate) fn summary(hosts: &[HostReport], program: &Program, took: Duration) -> Value {
    let mut sets: std::collections::BTreeMap<&str, Vec<&str>> = std::collections::BTreeMap::new();
    let mut each = Map::new();
    for host in hosts {
        if let State::Over(end, time) = &host.state {
            sets.entry(Kind::of(end).word()).or_default().push(&host.name);
            each.insert(host.name.clone(), Value::Object(report::json_of_end(end, program, *time)));
        }
    }
    let outcomes: Map<String, Value> = sets
        .into_iter()
        .map(|(word, names)| {
            let (count, set) = (names.len(), names.into_iter().collect::<NodeSet>().to_string());
            (word.to_owned(), json!({ "count": count, "hosts": set }))
        })
        .collect();
    json!({
        "event": "summary",
        "count": hosts.len(),
        "seconds": took.as_secs_f64(),
        "exit_status": report::exit_status(hosts),
        "outcomes": outcomes,
        "hosts": each,
    })
}

pub(super) fn line(screen: &mut Screen, value: &Value) -> io::Result<()> {
    let text = labsh_client::terminal_text::escape_json(&value.to_string());
    screen.write(Stream::Stdout, |out, _| writeln!(out, "{text}"))
}
