//! Gathers the output of hosts and shows equal outputs once. Equal pieces are stored once.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use labsh_client::terminal_text::escape_line;
use labsh_nodeset::NodeSet;
use labsh_proto::message::Stream;

use crate::fleet::report::{HostReport, Kind, State};
use crate::fleet::screen::Screen;

/// The size of a piece of output, in bytes.
const PIECE_SIZE: usize = 16 << 10;

/// The maximum size of all different pieces, and of one output that is shown, in bytes. It bounds
/// the memory that a host without end of output can take.
const MAX_GATHERED: usize = 1 << 30;

/// What follows a last line without a newline, where that matters; as diff(1) writes it.
const NO_NEWLINE: &[u8] = b"\\ No newline at end of file";

/// The maximum time for computing a difference; after it, a longer but correct one is used.
const DIFF_TIMEOUT: Duration = Duration::from_secs(2);

/// All different pieces, and the pieces of each host's output.
pub(super) struct Gather {
    pieces: HashMap<Arc<[u8]>, ()>,
    hosts: Vec<[Text; 2]>,
    /// By index into the pieces.
    most: usize,
}

#[derive(Default, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Text {
    whole: Vec<Arc<[u8]>>,
    rest: Vec<u8>,
}

impl Text {
    fn bytes(&self) -> Vec<u8> {
        let mut all = self.whole.concat();
        all.extend_from_slice(&self.rest);
        all
    }

    fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.rest.is_empty()
    }

    fn len(&self) -> usize {
        self.whole.iter().map(|piece| piece.len()).sum::<usize>() + self.rest.len()
    }

    /// Whether `other` is this text and a newline.
    fn lacks_newline_of(&self, other: &Self) -> bool {
        other.len() == self.len() + 1
            && other.bytes().strip_suffix(b"\n").is_some_and(|text| text == self.bytes())
    }
}

/// Hosts with equal outputs.
struct Group<'a> {
    /// Their stdout and stderr.
    texts: &'a [Text; 2],
    /// Their outcome, if they did not succeed.
    kind: Option<Kind>,
    hosts: NodeSet,
}

impl Gather {
    pub(super) fn new(hosts: usize) -> Self {
        let hosts = (0..hosts).map(|_| Default::default()).collect();
        Self { pieces: HashMap::new(), hosts, most: MAX_GATHERED / PIECE_SIZE }
    }

    /// # Errors
    ///
    /// When the outputs exceed the limit.
    pub(super) fn output(
        &mut self,
        host: usize,
        stream: Stream,
        bytes: &Bytes,
    ) -> anyhow::Result<()> {
        let text = &mut self.hosts[host][usize::from(stream == Stream::Stderr)];
        let mut bytes = &bytes[..];
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE_SIZE - text.rest.len()));
            text.rest.extend_from_slice(now);
            bytes = later;
            if text.rest.len() == PIECE_SIZE {
                let known =
                    self.pieces.get_key_value(&text.rest[..]).map(|(piece, ())| piece.clone());
                let piece = known.unwrap_or_else(|| {
                    let piece: Arc<[u8]> = text.rest.as_slice().into();
                    self.pieces.insert(piece.clone(), ());
                    piece
                });
                text.whole.push(piece);
                text.rest.clear();
            }
        }
        if self.pieces.len() > self.most || text.whole.len() > self.most {
            anyhow::bail!(
                "the outputs that --gather and --diff keep in memory are more than 1 GiB; use \
                 --out DIR instead"
            );
        }
        Ok(())
    }

    /// Returns the groups of hosts with equal output, the largest first.
    fn groups(&self, reports: &[HostReport]) -> Vec<Group<'_>> {
        let mut groups: BTreeMap<(Option<Kind>, &[Text; 2]), Vec<&str>> = BTreeMap::new();
        for (texts, report) in self.hosts.iter().zip(reports) {
            let State::Over(end, _) = &report.state else { continue };
            let kind = Some(Kind::of(end)).filter(|kind| *kind != Kind::Ok);
            if kind.is_some() && texts.iter().all(Text::is_empty) {
                continue; // the summary says what is wrong with it
            }
            groups.entry((kind, texts)).or_default().push(&report.name);
        }
        let mut groups: Vec<_> = groups
            .into_iter()
            .map(|((kind, texts), names)| Group { texts, kind, hosts: names.into_iter().collect() })
            .collect();
        groups.sort_by_key(|group| (group.kind.is_some(), std::cmp::Reverse(group.hosts.len())));
        groups
    }

    /// Shows each group: its hosts and their number, then the output.
    pub(super) fn show(&self, screen: &mut Screen, reports: &[HostReport]) -> io::Result<()> {
        let groups = self.groups(reports);
        for group in &groups {
            heading(screen, group)?;
            output(screen, Stream::Stdout, group, &groups)?;
            output(screen, Stream::Stderr, group, &groups)?;
        }
        Ok(())
    }

    /// Shows the largest group, and the differences of each other group from it.
    pub(super) fn show_differences(
        &self,
        screen: &mut Screen,
        reports: &[HostReport],
    ) -> io::Result<()> {
        let groups = self.groups(reports);
        let Some((most, others)) = groups.split_first() else { return Ok(()) };
        heading(screen, most)?;
        output(screen, Stream::Stdout, most, &groups)?;
        output(screen, Stream::Stderr, most, &groups)?;
        let common = lossless(&most.texts[0].bytes());
        for group in others {
            heading(screen, group)?;
            let theirs = lossless(&group.texts[0].bytes());
            let difference =
                similar::TextDiff::configure().timeout(DIFF_TIMEOUT).diff_lines(&*common, &*theirs);
            let text = difference.unified_diff().context_radius(2).to_string();
            body(screen, Stream::Stdout, text.as_bytes())?;
            output(screen, Stream::Stderr, group, &groups)?;
        }
        Ok(())
    }
}

/// Returns an output as text in which different outputs stay different: bytes that are not UTF-8
/// are written as `\xff`.
fn lossless(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

fn heading(screen: &mut Screen, group: &Group<'_>) -> io::Result<()> {
    let colour = screen.colour;
    let Group { kind, hosts: set, .. } = group;
    screen.write(Stream::Stdout, |out, _| {
        let (on, off) = if colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        let kind = kind.map_or_else(String::new, |kind| format!(", {}", kind.text()));
        let hosts = if set.len() == 1 { "host" } else { "hosts" };
        writeln!(out, "{on}---- {set} ({} {hosts}{kind}) ----{off}", set.len())
    })
}

/// Shows an output of a group, and whether its last line has no newline where another group of
/// `all` differs from it by that alone. What the hosts wrote to stderr has a heading, because the
/// two streams may go to different places.
fn output(
    screen: &mut Screen,
    stream: Stream,
    group: &Group<'_>,
    all: &[Group<'_>],
) -> io::Result<()> {
    let index = usize::from(stream == Stream::Stderr);
    let text = &group.texts[index];
    if stream == Stream::Stderr {
        if text.is_empty() {
            return Ok(());
        }
        let set = &group.hosts;
        screen.write(stream, |out, _| writeln!(out, "---- {set} ({}), stderr ----", set.len()))?;
    }
    body(screen, stream, &text.bytes())?;
    match all.iter().any(|other| !text.is_empty() && text.lacks_newline_of(&other.texts[index])) {
        true => body(screen, stream, NO_NEWLINE),
        false => Ok(()),
    }
}

fn body(screen: &mut Screen, stream: Stream, bytes: &[u8]) -> io::Result<()> {
    screen.write(stream, |out, terminal| {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            if terminal {
                out.write_all(escape_line(line).as_bytes())?;
            } else {
                out.write_all(line)?;
            }
            out.write_all(b"\n")?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_many_different_outputs_nor_a_long_one_of_equal_pieces_fills_the_memory() {
        let piece = |byte: u8| Bytes::from(vec![byte; PIECE_SIZE]);
        let gathered = |pieces: [(usize, u8); 3]| {
            let mut gather = Gather { most: 2, ..Gather::new(2) };
            pieces.map(|(host, byte)| gather.output(host, Stream::Stdout, &piece(byte)).is_ok())
        };
        assert_eq!(gathered([(0, 0), (1, 0), (1, 0)]), [true; 3]);
        assert_eq!(gathered([(0, 0), (0, 1), (1, 2)]), [true, true, false]);
        assert_eq!(gathered([(0, 0), (0, 0), (0, 0)]), [true, true, false]);
    }
}
