//! The reading task of a connection: authentication, then frames until the connection ends.

use std::io;
use std::sync::Arc;

use labsh_proto::channel::{Channels, Event};
use labsh_proto::frame::Frame;
use labsh_proto::handshake::AwaitingWelcome;
use labsh_proto::message::Refuse;
use labsh_transport::carrier::Carrier;
use labsh_transport::framing::{FrameReader, ReadError};
use labsh_transport::multiplexer::Multiplexer;
use tokio::io::ReadHalf;
use tokio::sync::watch;
use tokio::task::coop::consume_budget;
use tokio::time::{Duration, Instant, timeout_at};

use crate::connect::{self, ConnectOptions, ReadLimiter, ServerInfo};
use crate::error::{CommandError, ConnectError};
use crate::liveness::{DEAD_PEER_TIMEOUT, DeadPeerDetector, Verdict};
use crate::progress::{Commands, Progress};

/// A server that answers within this time, processing included, has low latency: with a window of a
/// quarter of a MiB it already fills a link of 1 Gbit/s.
const LOW_LATENCY_ROUND_TRIP: Duration = Duration::from_millis(2);

/// The outcome of authentication; `None` until it is known.
pub(crate) type Welcome = Option<Result<ServerInfo, ConnectError>>;

/// The part of authentication that is left once this client's response is on its way.
pub(crate) struct Authentication {
    pub(crate) options: ConnectOptions,
    pub(crate) handshake: AwaitingWelcome,
    pub(crate) sent: Instant,
    pub(crate) deadline: Instant,
    pub(crate) outcome: watch::Sender<Welcome>,
}

/// Reads the frames of one connection.
pub(crate) struct ReadLoop {
    pub(crate) reader: FrameReader<ReadHalf<Carrier>>,
    pub(crate) multiplexer: Arc<Multiplexer>,
    pub(crate) commands: Arc<Commands>,
    /// Shares memory between the connections of a fan-out; without one, this connection always
    /// reads as much as has arrived.
    pub(crate) limiter: Option<ReadLimiter>,
}

impl ReadLoop {
    /// Runs until the connection ends, then reports the reason to every command. A connection that
    /// is authenticated already comes without `authentication`.
    pub(crate) async fn run(mut self, authentication: Option<Authentication>) {
        let authenticated = match authentication {
            Some(authentication) => self.authenticate(authentication).await,
            None => Ok(()),
        };
        let reason = match authenticated {
            Ok(()) => self.read_frames().await,
            Err(error) => CommandError::Connect(error),
        };
        self.commands.set_loss(reason);
        self.multiplexer.mark_lost();
        self.commands.lock().clear();
    }

    async fn authenticate(&mut self, authentication: Authentication) -> Result<(), ConnectError> {
        let Authentication { options, handshake, sent, deadline, outcome } = authentication;
        let welcome = connect::welcome(&options, &mut self.reader, handshake);
        let welcome =
            timeout_at(deadline, welcome).await.unwrap_or_else(|_| Err(connect::expired(&options)));
        match welcome {
            Ok(welcome) => {
                self.multiplexer.set_slots(welcome.channels);
                if sent.elapsed() < LOW_LATENCY_ROUND_TRIP {
                    self.multiplexer.with(Channels::set_low_latency);
                }
                let server = ServerInfo { features: welcome.features, version: welcome.version };
                outcome.send_replace(Some(Ok(server)));
                Ok(())
            }
            Err(error) => {
                outcome.send_replace(Some(Err(error.clone())));
                Err(error)
            }
        }
    }

    /// Handles frames until the connection ends, and returns the reason.
    async fn read_frames(&mut self) -> CommandError {
        let limiter = self.limiter.take();
        if limiter.is_some() {
            self.reader.use_small_reads();
        }
        let mut detector = DeadPeerDetector::default();
        let mut permit = None;
        loop {
            let handled = match self.next_frame(&mut detector).await {
                Ok(frame) => self.handle(frame),
                Err(reason) => Err(reason),
            };
            if let Err(reason) = handled {
                return reason;
            }
            // One read brings thousands of small frames, but the runtime counts it once.
            consume_budget().await;
            if self.reader.has_next() {
                continue;
            }
            self.multiplexer.wake();
            if permit.is_some() {
                self.multiplexer.all_consumed().await;
                self.reader.shrink_buffer();
                permit = None;
            }
            // Waits for a permit only while there is more to read: a connection that waits for its
            // server holds none, and its silence is the server's own.
            while let Some(limiter) =
                limiter.as_ref().filter(|_| self.reader.expects_more() && !self.reader.has_next())
            {
                let acquired = limiter.acquire().await;
                self.reader.read_burst().await;
                permit = Some(acquired).filter(|_| self.reader.has_next());
                if permit.is_none() {
                    self.reader.shrink_buffer();
                }
            }
        }
    }

    /// Waits for the next frame, and asks a silent server for a sign of life meanwhile.
    async fn next_frame(&mut self, detector: &mut DeadPeerDetector) -> Result<Frame, CommandError> {
        loop {
            return match detector.next(&mut self.reader).await {
                Ok(Ok(Some(frame))) => Ok(frame),
                Ok(Ok(None)) => lost("the server closed it"),
                Ok(Err(ReadError::Io(error))) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    lost("it was cut off")
                }
                Ok(Err(ReadError::Io(error))) => lost(error.to_string()),
                Ok(Err(ReadError::Protocol(error))) => {
                    lost(format!("the server broke the protocol: {error}"))
                }
                Err(Verdict::Wait) => continue,
                Err(Verdict::Probe) => {
                    self.multiplexer.with(|channels| channels.ping(0));
                    continue;
                }
                Err(Verdict::Dead) => {
                    lost(format!("the server was silent for {} s", DEAD_PEER_TIMEOUT.as_secs()))
                }
            };
        }
    }

    /// Passes a frame to its channel and publishes what follows for its command. An error is the
    /// reason why the connection ends.
    fn handle(&self, frame: Frame) -> Result<(), CommandError> {
        let commands = &self.commands;
        match self.multiplexer.receive(frame) {
            Ok(Event::Started(id, started)) => {
                commands.advance(id, Progress::Started { pid: started.pid });
            }
            Ok(Event::Ended(id, status)) => {
                let pid = commands.pid(id);
                commands.advance(id, Progress::Ended { pid, status });
            }
            Ok(Event::Refused(id, refuse)) => commands.advance(id, Progress::Refused(refuse)),
            Ok(Event::Explained(id, explained)) => {
                commands.advance(id, Progress::Explained(Box::new(explained)));
            }
            Ok(Event::Exited(id, exit, completeness)) => {
                let pid = commands.pid(id);
                commands.advance(id, Progress::Exited { pid, exit, completeness });
            }
            Ok(Event::ConnectionRefused(refuse)) => return lost(with_remedy(&refuse)),
            Ok(Event::Goodbye(goodbye)) => {
                return lost(format!("the server ended it: {}", goodbye.reason));
            }
            Ok(_) => {}
            Err(error) => return lost(format!("the server broke the protocol: {error}")),
        }
        Ok(())
    }
}

fn lost<T>(reason: impl Into<String>) -> Result<T, CommandError> {
    Err(CommandError::Lost(reason.into()))
}

fn with_remedy(refuse: &Refuse) -> String {
    if refuse.remedy.is_empty() {
        return refuse.reason.clone();
    }
    format!("{}; {}", refuse.reason, refuse.remedy)
}
