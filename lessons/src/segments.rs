//! Finds out which bytes each TCP segment carried, as far as the sender's kernel makes it certain.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use crate::flow::Flow;
use crate::kernel::segments_sent;
use crate::sockets::unsent;

/// Observes the segments of one sender between its calls.
///
/// The kernel counts segments and reports how many bytes it has not sent yet. If exactly one
/// segment left between two observations, it carried exactly the bytes that left. If several left,
/// the borders between them are unknown, and then no segment is recorded at all.
pub(crate) struct Segments<'a> {
    flow: &'a Flow,
    sender: &'a TcpStream,
    /// Segments sent at the last observation.
    count: u32,
    /// Bytes sent at the last observation.
    sent: u64,
    known: Vec<(Duration, u64, u64)>,
    certain: bool,
}

impl<'a> Segments<'a> {
    /// Observes a sender that has sent nothing yet and will send only this flow.
    pub(crate) fn new(flow: &'a Flow, sender: &'a TcpStream) -> Self {
        Self { flow, sender, count: 0, sent: 0, known: Vec::new(), certain: true }
    }

    /// Observes what was sent since the last observation; called after each of the sender's calls,
    /// and once more when everything has arrived.
    pub(crate) fn observe(&mut self) -> io::Result<()> {
        let (written, at) = self.flow.progress();
        // Both numbers must be of the same time: a segment may leave between the two queries.
        let (count, unsent) = loop {
            let count = segments_sent(self.sender)?;
            let unsent = unsent(self.sender)?;
            if segments_sent(self.sender)? == count {
                break (count, unsent as u64);
            }
        };
        let sent = written.saturating_sub(unsent);
        match (count - self.count, sent > self.sent) {
            (0, false) => {}
            (1, true) => self.known.push((at, self.sent, sent)),
            // Several segments at once, or a retransmission.
            _ => self.certain = false,
        }
        (self.count, self.sent) = (count, sent);
        Ok(())
    }

    /// Records the segments in the flow if every border is known.
    pub(crate) fn record(self) {
        let (written, _) = self.flow.progress();
        if self.certain && self.sent == written {
            self.known.iter().for_each(|(at, start, end)| self.flow.carried(*at, *start, *end));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::flow::StepKind;
    use crate::kernel::tcp_info;
    use crate::sockets::{MAX_ATTEMPTS, pair, queued, wait_until};

    /// Returns the bounds of the segments that were recorded.
    fn extents(flow: &Flow) -> Vec<(u64, u64)> {
        let record = flow.record();
        let segments = record.steps.iter().filter(|step| step.kind == StepKind::Segment);
        segments.map(|step| (step.start, step.end)).collect()
    }

    #[test]
    fn with_nodelay_every_write_is_a_segment() {
        // On a busy machine a late acknowledgement may cause a retransmission: then try again.
        let known = (0..MAX_ATTEMPTS).find_map(|_| {
            let (client, _server) = pair().unwrap();
            client.set_nodelay(true).unwrap();
            let flow = Flow::new("a → b");
            let mut segments = Segments::new(&flow, &client);
            for text in ["abc", "de"] {
                flow.writer(&client).write_all(text.as_bytes()).unwrap();
                segments.observe().unwrap();
            }
            segments.record();
            (tcp_info(&client).unwrap().tcpi_total_retrans == 0).then(|| extents(&flow))
        });
        assert_eq!(known.unwrap(), [(0, 3), (3, 5)]);
    }

    #[test]
    fn unknown_borders_are_not_recorded() {
        let (client, server) = pair().unwrap();
        client.set_nodelay(true).unwrap();
        let flow = Flow::new("a → b");
        let mut segments = Segments::new(&flow, &client);
        for text in ["abc", "de"] {
            flow.writer(&client).write_all(text.as_bytes()).unwrap();
        }
        wait_until(("both have arrived", "两个都到了"), || Ok(queued(&server)? == 5)).unwrap();
        segments.observe().unwrap();
        segments.record();
        assert_eq!(extents(&flow), []);
    }
}
