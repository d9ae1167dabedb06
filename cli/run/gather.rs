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
    fn groups(&self, reports: &[HostReport]) -> Vec<(&[Text; 2], Option<Kind>, NodeSet)> {
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
            .map(|((kind, texts), names)| (texts, kind, names.into_iter().collect::<NodeSet>()))
            .collect();
        groups.sort_by_key(|(_, kind, set)| (kind.is_some(), std::cmp::Reverse(set.len())));
        groups
    }

    /// Shows each group: its hosts and their number, then the output.
    pub(super) fn show(&self, screen: &mut Screen, reports: &[HostReport]) -> io::Result<()> {
        for (texts, kind, set) in self.groups(reports) {
            heading(screen, &set, kind)?;
            body(screen, Stream::Stdout, &texts[0].bytes())?;
            errors(screen, &set, &texts[1])?;
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
        let Some(((most, kind, set), others)) = groups.split_first() else { return Ok(()) };
        heading(screen, set, *kind)?;
        let common = most[0].bytes();
        body(screen, Stream::Stdout, &common)?;
        errors(screen, set, &most[1])?;
        let common = String::from_utf8_lossy(&common);
        for (texts, kind, set) in others {
            heading(screen, set, *kind)?;
            let theirs = texts[0].bytes();
            let theirs = String::from_utf8_lossy(&theirs);
            let difference =
                similar::TextDiff::configure().timeout(DIFF_TIMEOUT).diff_lines(&*common, &*theirs);
            let text =
                difference.unified_diff().context_radius(2).missing_newline_hint(false).to_string();
            body(screen, Stream::Stdout, text.as_bytes())?;
            errors(screen, set, &texts[1])?;
        }
        Ok(())
    }
}

fn heading(screen: &mut Screen, set: &NodeSet, kind: Option<Kind>) -> io::Result<()> {
    let colour = screen.colour;
    screen.write(Stream::Stdout, |out, _| {
        let (on, off) = if colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        let kind = kind.map_or_else(String::new, |kind| format!(", {}", kind.text()));
        let hosts = if set.len() == 1 { "host" } else { "hosts" };
        writeln!(out, "{on}---- {set} ({} {hosts}{kind}) ----{off}", set.len())
    })
}

/// Shows what the hosts wrote to stderr, with a heading, because the two streams may go to
/// different places.
fn errors(screen: &mut Screen, set: &NodeSet, text: &Text) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    screen
        .write(Stream::Stderr, |out, _| writeln!(out, "---- {set} ({}), stderr ----", set.len()))?;
    body(screen, Stream::Stderr, &text.bytes())
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
