//! Lets many tasks use the channels of one connection: locking and waking around the protocol's
//! state.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use labsh_proto::channel::{Channels, Event, NoReader, Read};
use labsh_proto::error::ProtocolError;
use labsh_proto::frame::{ChannelId, Frame};
use labsh_proto::message::Stream;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};

use crate::framing;

/// The amount of data after which a batch of frames is written, in bytes.
const TARGET_BATCH: usize = 256 << 10;

/// The connection was lost, or the channel was closed, with data still in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection was lost")]
pub struct ConnectionLost;

/// How much a stream accepts from its writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteCapacity {
    /// Up to this many bytes, at least one.
    Bytes(usize),
    /// Nothing ever again: the stream has no reader, so the writer should stop.
    NoReader,
}

/// The channels of one connection, shared by its reading loop, its writing loop and the tasks of
/// its commands.
#[derive(Debug)]
pub struct Multiplexer {
    state: Mutex<State>,
    frames: Notify,
    slots: Notify,
}

#[derive(Debug)]
struct State {
    channels: Channels,
    /// The tasks that wait on a stream. This end either reads or writes a stream, so that at most
    /// one task waits on it.
    waiting: HashMap<(ChannelId, Stream), Waker>,
    /// The tasks to wake once all frames that arrived together were received.
    pending_wakes: Vec<Waker>,
    /// The reading loop, while it waits until all received data is consumed.
    reading_loop: Option<Waker>,
    lost: bool,
    finishing: bool,
    pings: VecDeque<oneshot::Sender<()>>,
}

impl State {
    fn wake(&mut self, id: ChannelId, stream: Stream) {
        if let Some(waker) = self.waiting.remove(&(id, stream)) {
            waker.wake();
        }
    }

    /// Marks the task that waits on the stream to be woken by [`Multiplexer::wake`].
    fn wake_later(&mut self, id: ChannelId, stream: Stream) {
        self.pending_wakes.extend(self.waiting.remove(&(id, stream)));
    }

    fn wake_all(&mut self, id: ChannelId) {
        for stream in [Stream::Stdin, Stream::Stdout, Stream::Stderr] {
            self.wake(id, stream);
        }
    }
}

impl Multiplexer {
    /// Shares the channels of a newly authenticated connection.
    pub fn new(channels: Channels) -> Self {
        let state = State {
            channels,
            waiting: HashMap::new(),
            pending_wakes: Vec::new(),
            reading_loop: None,
            lost: false,
            finishing: false,
            pings: VecDeque::new(),
        };
        Self { state: Mutex::new(state), frames: Notify::new(), slots: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another task leaves a state that is incomplete at worst, never unsound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `action` with the channels, and wakes the writing loop if there are frames to send.
    pub fn with<T>(&self, action: impl FnOnce(&mut Channels) -> T) -> T {
        let mut state = self.lock();
        let result = action(&mut state.channels);
        if state.reading_loop.is_some()
            && state.channels.all_consumed()
            && let Some(reading_loop) = state.reading_loop.take()
        {
            reading_loop.wake();
        }
        if state.channels.has_frame() {
            self.frames.notify_one();
        }
        result
    }

    /// Applies a frame from the peer. Call [`Self::wake`] before waiting for more: it wakes the
    /// tasks concerned, each only once for all frames that arrived together.
    pub fn receive(&self, frame: Frame) -> Result<Event, ProtocolError> {
        let mut state = self.lock();
        let event = state.channels.receive(frame)?;
        match &event {
            Event::Readable(id, stream) | Event::Writable(id, stream) => {
                state.wake_later(*id, *stream)
            }
            Event::Exited(id, ..) | Event::Refused(id, _) | Event::Closed(id) => {
                state.wake_all(*id)
            }
            // One pong may answer several pings.
            Event::Pong(_) => {
                for ping in state.pings.drain(..) {
                    // An error means that the caller no longer waits.
                    let _ = ping.send(());
                }
            }
            _ => {}
        }
        if state.channels.has_frame() {
            self.frames.notify_one();
        }
        Ok(event)
    }

    /// Wakes the tasks that waited for frames received since the last call.
    pub fn wake(&self) {
        let wakers = std::mem::take(&mut self.lock().pending_wakes);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Client: closes a channel, and wakes the tasks that wait for a free slot.
    pub fn close(&self, id: ChannelId) {
        self.with(|channels| channels.close(id));
        self.lock().wake_all(id);
        self.slots.notify_waiters();
    }

    /// Client: sets the number of slots that `welcome` permits.
    pub fn set_slots(&self, limit: u32) {
        self.with(|channels| channels.set_limit(limit));
        self.slots.notify_waiters();
    }

    /// Waits until a slot is freed or the connection is lost. Create the future before trying to
    /// open a channel.
    pub fn slot_freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.slots.notified()
    }

    /// Waits for the next bytes of a stream; `None` at its end.
    pub fn poll_read(
        &self,
        context: &mut Context<'_>,
        id: ChannelId,
        stream: Stream,
    ) -> Poll<Result<Option<Bytes>, ConnectionLost>> {
        let mut state = self.lock();
        match state.channels.read(id, stream) {
            Read::Bytes(bytes) => Poll::Ready(Ok(Some(bytes))),
            Read::End => Poll::Ready(Ok(None)),
            Read::Closed => Poll::Ready(Err(ConnectionLost)),
            Read::Pending if state.lost => Poll::Ready(Err(ConnectionLost)),
            Read::Pending => {
                state.waiting.insert((id, stream), context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Waits for the next bytes of a stream; `None` at its end.
    pub async fn read(
        &self,
        id: ChannelId,
        stream: Stream,
    ) -> Result<Option<Bytes>, ConnectionLost> {
        poll_fn(|context| self.poll_read(context, id, stream)).await
    }

    /// Waits until a stream accepts data, or has no reader any more.
    pub fn poll_write_capacity(
        &self,
        context: &mut Context<'_>,
        id: ChannelId,
        stream: Stream,
    ) -> Poll<Result<WriteCapacity, ConnectionLost>> {
        let mut state = self.lock();
        if state.lost {
            return Poll::Ready(Err(ConnectionLost));
        }
        match state.channels.write_capacity(id, stream) {
            Err(NoReader::Stopped) => Poll::Ready(Ok(WriteCapacity::NoReader)),
            Err(NoReader::Closed) => Poll::Ready(Err(ConnectionLost)),
            Ok(0) => {
                state.waiting.insert((id, stream), context.waker().clone());
                Poll::Pending
            }
            Ok(bytes) => Poll::Ready(Ok(WriteCapacity::Bytes(bytes))),
        }
    }

    /// Waits until a stream accepts data, or has no reader any more.
    pub async fn write_capacity(
        &self,
        id: ChannelId,
        stream: Stream,
    ) -> Result<WriteCapacity, ConnectionLost> {
        poll_fn(|context| self.poll_write_capacity(context, id, stream)).await
    }

    /// Waits until a stream has no reader any more, or the connection is lost.
    pub async fn no_reader(&self, id: ChannelId, stream: Stream) {
        poll_fn(|context| {
            let mut state = self.lock();
            if state.lost || state.channels.write_capacity(id, stream).is_err() {
                return Poll::Ready(());
            }
            state.waiting.insert((id, stream), context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits until all received data was passed on to its destination, or the connection is lost.
    /// Only for the reading loop.
    pub async fn all_consumed(&self) {
        poll_fn(|context| {
            let mut state = self.lock();
            if state.lost || state.channels.all_consumed() {
                return Poll::Ready(());
            }
            state.reading_loop = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Sends a `ping` and waits for the `pong`.
    pub async fn ping(&self) -> Result<(), ConnectionLost> {
        let (sender, answer) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.lost {
                return Err(ConnectionLost);
            }
            state.pings.push_back(sender);
            state.channels.ping(0);
        }
        self.frames.notify_one();
        answer.await.map_err(|_| ConnectionLost)
    }

    /// Marks the connection as lost, and wakes every task that waits on it.
    pub fn mark_lost(&self) {
        let mut state = self.lock();
        state.lost = true;
        state.pings.clear();
        state.pending_wakes.drain(..).for_each(Waker::wake);
        if let Some(reading_loop) = state.reading_loop.take() {
            reading_loop.wake();
        }
        state.waiting.drain().for_each(|(_, waker)| waker.wake());
        self.frames.notify_one();
        self.slots.notify_waiters();
    }

    /// Returns whether [`Self::mark_lost`] was called.
    pub fn is_lost(&self) -> bool {
        self.lock().lost
    }

    /// Ends the writing loop after everything that is queued.
    pub fn finish(&self) {
        self.lock().finishing = true;
        self.frames.notify_one();
    }

    /// Writes `first`, then queued frames until [`Self::finish`] or [`Self::mark_lost`] is called;
    /// then shuts down the writing half.
    pub async fn write_frames(
        &self,
        first: Option<Frame>,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        let mut batch = Vec::from_iter(first);
        loop {
            let finishing = self.next_batch(&mut batch);
            if !batch.is_empty() {
                framing::write(writer, &batch).await?;
                batch.clear();
            } else if finishing {
                return writer.shutdown().await;
            } else {
                self.frames.notified().await;
            }
        }
    }

    /// Takes the next frames, and wakes the writers of their channels, which may now queue more.
    /// Returns whether the writing loop should end.
    fn next_batch(&self, batch: &mut Vec<Frame>) -> bool {
        let mut state = self.lock();
        let mut size = 0;
        while size < TARGET_BATCH {
            let Some(frame) = state.channels.next_frame() else { break };
            size += frame.body.len();
            state.wake_all_writers(frame.channel);
            batch.push(frame);
        }
        state.finishing || state.lost
    }
}

impl State {
    fn wake_all_writers(&mut self, id: ChannelId) {
        // The output streams of a channel share a queue, so capacity for one is capacity for both.
        if !self.waiting.is_empty() {
            self.wake_all(id);
        }
    }
}
