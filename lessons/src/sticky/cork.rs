//! Sends messages with TCP_CORK: the kernel holds them back until the cork is pulled.

use std::io::Read;

use socket2::SockRef;

use super::options::{Message, total_size};
use super::{send_each, text};
use crate::flow::Flow;
use crate::kernel::segments_sent;
use crate::segments::Segments;
use crate::sockets::{TO_SERVER, pair, queued, unsent, wait_until};
use crate::stage::LessonError;

/// What happened to messages that were sent with a cork.
pub(super) struct Corked {
    pub(super) flow: Flow,
    /// Bytes that the sender's kernel held back.
    pub(super) held: usize,
    /// Bytes that arrived in spite of the cork.
    pub(super) arrived: usize,
    /// Segments that carried all messages.
    pub(super) segments: usize,
}

/// Sends messages with a cork; `None` if the kernel has not held enough of them back.
pub(super) fn send(messages: &[Message]) -> Result<Option<Corked>, LessonError> {
    let (client, server) = pair()?;
    SockRef::from(&client).set_tcp_cork(true)?;
    let flow = Flow::new(TO_SERVER);
    let mut observed = Segments::new(&flow, &client);
    send_each(&client, messages, &mut observed, &flow)?;
    let (held, arrived) = (unsent(&client)?, queued(&server)?);
    let total = total_size(messages);
    if held + arrived != total || arrived > total / 2 {
        return Ok(None);
    }
    SockRef::from(&client).set_tcp_cork(false)?; // Everything leaves.
    wait_until(text::ALL_ARRIVED, || Ok(queued(&server)? == total))?;
    let segments = segments_sent(&client)? as usize;
    observed.observe()?;
    observed.record();
    flow.reader(&server).read_exact(&mut vec![0; total])?;
    Ok((segments < messages.len()).then_some(Corked { flow, held, arrived, segments }))
}
