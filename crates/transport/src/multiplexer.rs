//! The channels of a connection, usable by many tasks at once: locking and waking around the pure
//! protocol.

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

/// Frames are handed to the writer in batches of about this many bytes.
const BATCH: usize = 256 << 10;

/// The connection or the channel has gone; what was under way on it is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection was lost")]
pub struct Lost;

/// What a writer of a stream may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Write up to so many bytes, at least one.
    Bytes(usize),
    /// Stop: nobody reads this any more.
    NoReader,
}

/// Shared by the connection's reading loop, its writing loop and the tasks of its commands.
#[derive(Debug)]
pub struct Multiplexer {
    state: Mutex<State>,
    frames: Notify,
    slots: Notify,
}

#[derive(Debug)]
struct State {
    channels: Channels,
    /// Tasks that wait on a stream. A stream goes one way only, so it has one waiter at most on
    /// this side.
    waiting: HashMap<(ChannelId, Stream), Waker>,
    /// Tasks that have something to do once the frames that came together have all been taken.
    due: Vec<Waker>,
    /// The reading loop, where it waits until all that came was consumed.
    full: Option<Waker>,
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

    /// Remembers who waits on the stream for [`Multiplexer::wake`].
    fn wake_later(&mut self, id: ChannelId, stream: Stream) {
        self.due.extend(self.waiting.remove(&(id, stream)));
    }

    fn wake_all(&mut self, id: ChannelId) {
        [Stream::Stdin, Stream::Stdout, Stream::Stderr]
            .into_iter()
            .for_each(|stream| self.wake(id, stream));
    }
}

impl Multiplexer {
    /// Around the channels of a connection that was just authenticated.
    pub fn new(channels: Channels) -> Self {
        let state = State {
            channels,
            waiting: HashMap::new(),
            due: Vec::new(),
            full: None,
            lost: false,
            finishing: false,
            pings: VecDeque::new(),
        };
        Self { state: Mutex::new(state), frames: Notify::new(), slots: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves a state that is at worst incomplete, never unsound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the channels and wakes the writer where that left frames to send.
    pub fn with<T>(&self, action: impl FnOnce(&mut Channels) -> T) -> T {
        let mut state = self.lock();
        let result = action(&mut state.channels);
        if state.full.is_some() && state.channels.all_consumed() {
            state.full.take().into_iter().for_each(Waker::wake);
        }
        if state.channels.has_frame() {
            self.frames.notify_one();
        }
        result
    }

    /// Takes a frame from the peer. Who waited for it learns so at the next [`Self::wake`], to be
    /// called before the next wait: of many frames that came together, each task is told once, and
    /// finds them all.
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
            // One pong may answer several pings: they coalesce.
            Event::Pong(_) => {
                for asker in state.pings.drain(..) {
                    // Who no longer waits for the answer does not need it.
                    let _ = asker.send(());
                }
            }
            _ => {}
        }
        if state.channels.has_frame() {
            self.frames.notify_one();
        }
        Ok(event)
    }

    /// Wakes who waited for the frames that were taken.
    pub fn wake(&self) {
        let due = std::mem::take(&mut self.lock().due);
        due.into_iter().for_each(Waker::wake);
    }

    /// Gives a channel's slot back (client), and wakes who waits for one.
    pub fn close(&self, id: ChannelId) {
        self.with(|channels| channels.close(id));
        self.lock().wake_all(id);
        self.slots.notify_waiters();
    }

    /// The number of slots that `welcome` announced (client).
    pub fn set_slots(&self, limit: u32) {
        self.with(|channels| channels.set_limit(limit));
        self.slots.notify_waiters();
    }

    /// Resolves after a slot was given back or the connection was lost. Create it before looking
    /// for a slot.
    pub fn slot(&self) -> tokio::sync::futures::Notified<'_> {
        self.slots.notified()
    }

    /// The next bytes of a stream; `None` at its end.
    pub fn poll_read(
        &self,
        context: &mut Context<'_>,
        id: ChannelId,
        stream: Stream,
    ) -> Poll<Result<Option<Bytes>, Lost>> {
        let mut state = self.lock();
        match state.channels.read(id, stream) {
            Read::Bytes(bytes) => Poll::Ready(Ok(Some(bytes))),
            Read::End => Poll::Ready(Ok(None)),
            Read::Closed => Poll::Ready(Err(Lost)),
            Read::Pending if state.lost => Poll::Ready(Err(Lost)),
            Read::Pending => {
                state.waiting.insert((id, stream), context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// As [`Self::poll_read`].
    pub async fn read(&self, id: ChannelId, stream: Stream) -> Result<Option<Bytes>, Lost> {
        poll_fn(|context| self.poll_read(context, id, stream)).await
    }

    /// Waits until a stream can be written to.
    pub fn poll_room(
        &self,
        context: &mut Context<'_>,
        id: ChannelId,
        stream: Stream,
    ) -> Poll<Result<Room, Lost>> {
        let mut state = self.lock();
        if state.lost {
            return Poll::Ready(Err(Lost));
        }
        match state.channels.write_capacity(id, stream) {
            Err(NoReader::Stopped) => Poll::Ready(Ok(Room::NoReader)),
            Err(NoReader::Closed) => Poll::Ready(Err(Lost)),
            Ok(0) => {
                state.waiting.insert((id, stream), context.waker().clone());
                Poll::Pending
            }
            Ok(bytes) => Poll::Ready(Ok(Room::Bytes(bytes))),
        }
    }

    /// As [`Self::poll_room`].
    pub async fn room(&self, id: ChannelId, stream: Stream) -> Result<Room, Lost> {
        poll_fn(|context| self.poll_room(context, id, stream)).await
    }

    /// Resolves when nobody reads the stream any more, however much room it has.
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

    /// Resolves once everything that came has been handed on for good, or the connection was lost.
    /// For one reading loop.
    pub async fn all_consumed(&self) {
        poll_fn(|context| {
            let mut state = self.lock();
            if state.lost || state.channels.all_consumed() {
                return Poll::Ready(());
            }
            state.full = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Asks whether the peer is there, and resolves with its answer.
    pub async fn ping(&self) -> Result<(), Lost> {
        let (sender, answer) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.lost {
                return Err(Lost);
            }
            state.pings.push_back(sender);
            state.channels.ping(0);
        }
        self.frames.notify_one();
        answer.await.map_err(|_| Lost)
    }

    /// The connection has gone: everyone who waits on it learns so.
    pub fn lose(&self) {
        let mut state = self.lock();
        state.lost = true;
        state.pings.clear();
        state.due.drain(..).for_each(Waker::wake);
        state.full.take().into_iter().for_each(Waker::wake);
        state.waiting.drain().for_each(|(_, waker)| waker.wake());
        self.frames.notify_one();
        self.slots.notify_waiters();
    }

    /// Whether [`Self::lose`] was called.
    pub fn is_lost(&self) -> bool {
        self.lock().lost
    }

    /// Lets the writing loop end once everything queued is written.
    pub fn finish(&self) {
        self.lock().finishing = true;
        self.frames.notify_one();
    }

    /// Writes `first`, then frames as they become due, until [`Self::finish`] or [`Self::lose`] was
    /// called; then shuts the writing half down.
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

    /// Takes the next frames, and wakes the writers of the streams that have room again.
    fn next_batch(&self, batch: &mut Vec<Frame>) -> bool {
        let mut state = self.lock();
        let mut size = 0;
        while size < BATCH {
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
        // The two output streams share a lane, so room for one is room for both.
        if !self.waiting.is_empty() {
            self.wake_all(id);
        }
    }
}
