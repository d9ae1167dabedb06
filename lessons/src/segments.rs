//! Which bytes each TCP segment carried, as far as the sender's kernel lets one know it for
//! certain.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use crate::flow::Flow;
use crate::kernel::segments_sent;
use crate::sockets::unsent;

/// A sender that is looked at between its calls.
///
/// The kernel counts segments and says how much has not left it. Where exactly one segment left
/// between two looks, it carried exactly what left. Where more did, nobody can say where one ended,
/// and then nothing is noted at all.
pub(crate) struct Segments<'a> {
    flow: &'a Flow,
    sender: &'a TcpStream,
    count: u32,
    left: u64,
    known: Vec<(Duration, u64, u64)>,
    certain: bool,
}

impl<'a> Segments<'a> {
    /// Of a connection on which this flow is the first that its sender sends.
    pub(crate) fn new(flow: &'a Flow, sender: &'a TcpStream) -> Self {
        Self { flow, sender, count: 0, left: 0, known: Vec::new(), certain: true }
    }

    /// Looks what has left since the last look; to be called between the sender's calls.
    pub(crate) fn look(&mut self) -> io::Result<()> {
        let (written, at) = self.flow.progress();
        // Two questions that belong together: ask again if a segment left between them.
        let (count, unsent) = loop {
            let count = segments_sent(self.sender)?;
            let unsent = unsent(self.sender)?;
            if segments_sent(self.sender)? == count {
                break (count, unsent as u64);
            }
        };
        let left = written.saturating_sub(unsent);
        match (count - self.count, left > self.left) {
            (0, false) => {}
            (1, true) => self.known.push((at, self.left, left)),
            // Several at once, or one that was sent again.
            _ => self.certain = false,
        }
        (self.count, self.left) = (count, left);
        Ok(())
    }

    /// Notes the segments in the flow if all of them are known.
    pub(crate) fn note(self) {
        let (written, _) = self.flow.progress();
        if self.certain && self.left == written {
            self.known.iter().for_each(|(at, start, end)| self.flow.carried(*at, *start, *end));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::flow::What;
    use crate::kernel::tcp_info;
    use crate::sockets::{pair, queued, wait_until};

    /// Which bytes the segments of a flow carried, where that was noted.
    fn extents(flow: &Flow) -> Vec<(u64, u64)> {
        let record = flow.record();
        let segments = record.steps.iter().filter(|step| step.what == What::Segment);
        segments.map(|step| (step.start, step.end)).collect()
    }

    #[test]
    fn what_was_sent_at_once_is_one_segment_for_each_write() {
        // On a very busy machine an acknowledgement may be so late that something is sent again:
        // once more, then.
        let known = (0..50).find_map(|_| {
            let (client, _server) = pair().unwrap();
            client.set_nodelay(true).unwrap();
            let flow = Flow::new("a → b");
            let mut segments = Segments::new(&flow, &client);
            for text in ["abc", "de"] {
                flow.writer(&client).write_all(text.as_bytes()).unwrap();
                segments.look().unwrap();
            }
            segments.note();
            (tcp_info(&client).unwrap().tcpi_total_retrans == 0).then(|| extents(&flow))
        });
        assert_eq!(known.unwrap(), [(0, 3), (3, 5)]);
    }

    #[test]
    fn where_one_ended_is_not_guessed() {
        let (client, server) = pair().unwrap();
        client.set_nodelay(true).unwrap();
        let flow = Flow::new("a → b");
        let mut segments = Segments::new(&flow, &client);
        for text in ["abc", "de"] {
            flow.writer(&client).write_all(text.as_bytes()).unwrap();
        }
        wait_until(("both are there", "两个都到了"), || Ok(queued(&server)? == 5)).unwrap();
        segments.look().unwrap();
        segments.note();
        assert_eq!(extents(&flow), []);
    }
}
