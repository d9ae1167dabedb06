//! labshd's side of the spawner: launches it, sends orders, and delivers its replies.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::{fs, mem};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recvmsg, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::pending_signals::{PendingSignal, PendingSignals};
use super::start_error::{FailureContext, encode_error, spawn_error};
use super::start_limit::{StartLimit, StartPermit};
use super::turns::{Line, Turn, Turns};
use super::waiters::{Waiter, Waiters, lock};
use super::wire::{self, Inbox, READ_SIZE};
use super::{Ended, SpawnError, SpawnRequest, Spawned, SpawnerLost, Streams, process};

/// A spawner process that has received no order yet. Dropping it ends the spawner.
#[derive(Debug)]
pub struct SpawnerProcess {
    socket: OwnedFd,
    pid: Pid,
}

/// Forks the spawner, the process that runs labshd's commands.
///
/// Call it first in `main`: the spawner and every command inherit what labshd has read or changed
/// by then. The spawner closes inherited descriptors.
///
/// # Errors
///
/// When this process has more than one thread, when `/proc` is not mounted, or when fork(2) or
/// socketpair(2) fails.
pub fn launch() -> io::Result<SpawnerProcess> {
    let threads = fs::read_dir("/proc/self/task").map_err(|error| {
        io::Error::new(error.kind(), format!("/proc/self/task: {error}; mount /proc (proc(5))"))
    })?;
    let threads = threads.count();
    if threads != 1 {
        return Err(io::Error::other(format!(
            "the spawner must be launched before other threads; {threads} threads run"
        )));
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (socket, spawner_end) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
    // SAFETY: this is the only thread, as checked above, so the copy finds no lock held. The copy
    // never returns from `run`.
    #[allow(unsafe_code)]
    match unsafe { fork() }? {
        ForkResult::Child => process::run(spawner_end),
        ForkResult::Parent { child: pid } => Ok(SpawnerProcess { socket, pid }),
    }
}

/// Limit on orders to spawn that the spawner has not carried out. Each may be a megabyte long, and
/// the spawner takes them in their order: a new one waits for so many, of any key. They are just
/// enough to keep the spawner busy.
const MAX_UNANSWERED_SPAWNS: usize = 4;

/// A handle to the spawner, shared by all connections. When the last handle and the last
/// [`Process`] are dropped, the spawner exits.
#[derive(Debug, Clone)]
pub struct Spawner {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pid: Pid,
    next_id: AtomicU64,
    orders: mpsc::UnboundedSender<UnsentOrder>,
    turns: Turns,
    waiters: Arc<Waiters>,
}

/// An encoded order that is not sent yet.
#[derive(Debug)]
struct UnsentOrder {
    message: Vec<u8>,
    /// Pending until the order is sent.
    signal: Option<PendingSignal>,
}

/// A request in the form that the spawner receives. It occupies less memory than the request.
#[derive(Debug)]
pub struct EncodedRequest {
    id: u64,
    message: Vec<u8>,
    has_terminal: bool,
    context: FailureContext,
}

impl Spawner {
    /// Connects to a launched spawner.
    ///
    /// # Errors
    ///
    /// When the socket cannot be registered with the runtime.
    ///
    /// # Panics
    ///
    /// When called outside a tokio runtime with I/O enabled.
    pub fn attach(process: SpawnerProcess) -> io::Result<Spawner> {
        let (reader, writer) = UnixStream::from_std(StdStream::from(process.socket))?.into_split();
        let (orders, queue) = mpsc::unbounded_channel();
        let waiters = Arc::<Waiters>::default();
        tokio::spawn(write_orders(writer, queue));
        let turns = Turns::new(MAX_UNANSWERED_SPAWNS);
        tokio::spawn(read_until_lost(reader, waiters.clone(), turns.clone(), process.pid));
        let (pid, next_id) = (process.pid, AtomicU64::new(1));
        Ok(Spawner { shared: Arc::new(Shared { pid, next_id, orders, turns, waiters }) })
    }

    /// Starts a command and returns once its program has been executed.
    ///
    /// Waits while too many commands of the same key are being started. Dropping the future ends
    /// the command, if it has started.
    ///
    /// # Errors
    ///
    /// See [`SpawnError`]; after an error no process of the command remains.
    pub async fn spawn(&self, request: SpawnRequest) -> Result<Spawned, SpawnError> {
        let request = self.encode(request)?;
        let turn = self.turn(&Line::default()).await;
        let start_permit = StartLimit::default().acquire().await;
        self.spawn_encoded(request, turn, start_permit).await
    }

    /// Encodes a request, for [`Spawner::spawn_encoded`]. Takes milliseconds for a long one.
    ///
    /// # Errors
    ///
    /// When no kernel would accept the request.
    pub fn encode(&self, request: SpawnRequest) -> Result<EncodedRequest, SpawnError> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let has_terminal = request.terminal.is_some();
        let message = wire::encode_spawn(id, &request).map_err(encode_error)?;
        Ok(EncodedRequest { id, message, has_terminal, context: FailureContext::of(request) })
    }

    /// Waits until it is the line's turn to start a command; `None` once the spawner is lost.
    pub async fn turn(&self, line: &Line) -> Option<Turn> {
        self.shared.turns.take(line).await
    }

    /// Starts a command as [`Spawner::spawn`] does, in this turn and with this share of its key's
    /// limit.
    ///
    /// # Errors
    ///
    /// Those of [`Spawner::spawn`].
    pub async fn spawn_encoded(
        &self,
        request: EncodedRequest,
        turn: Option<Turn>,
        start_permit: Option<StartPermit>,
    ) -> Result<Spawned, SpawnError> {
        let EncodedRequest { id, message, has_terminal, context } = request;
        let turn = turn.ok_or(SpawnError::Lost)?;
        let (started, on_started) = oneshot::channel();
        let (ended, on_ended) = oneshot::channel();
        let waiters = &self.shared.waiters;
        let vacant = CancellationToken::new();
        let waiter = Waiter {
            has_terminal,
            start_permit,
            leader: None,
            started: Some(started),
            ended: Some(ended),
            vacant: vacant.clone(),
        };
        waiters.commands().insert(id, waiter);
        // Its drop cleans up from here on, also when this future is dropped.
        let mut process = Process {
            id,
            pid: 0,
            shared: self.shared.clone(),
            on_ended,
            outcome: None,
            vacant,
            signals: Arc::default(),
        };
        lock(&waiters.unanswered).insert(id, turn);
        // Checked after the insertions: the reader cancels it before it empties the tables for the
        // last time.
        let order = UnsentOrder { message, signal: None };
        if waiters.lost.is_cancelled() || self.shared.orders.send(order).is_err() {
            return Err(SpawnError::Lost);
        }
        let started = match on_started.await {
            Ok(Ok(started)) => started,
            Ok(Err(failure)) => {
                process.forget();
                return Err(spawn_error(failure, context));
            }
            Err(_) => return Err(SpawnError::Lost),
        };
        process.pid = started.pid;
        let streams = streams(started.descriptors, has_terminal);
        let streams = streams.ok_or(SpawnError::Resources { source: Errno::EMFILE.into() })?;
        Ok(Spawned { pid: started.pid, streams, process })
    }

    /// Waits until the spawner process has exited. labshd can then run no command and must stop.
    pub async fn lost(&self) {
        self.shared.waiters.lost.cancelled().await;
    }

    /// Returns the spawner's process id.
    pub fn pid(&self) -> u32 {
        self.shared.pid.as_raw().unsigned_abs()
    }
}

/// A handle on a running command. Until it is dropped, the leader is not reaped and its ids are not
/// reused. Dropping it before the leader has exited kills the session (SIGKILL), as
/// [`Process::end`] does, after a hang-up if the command has a terminal. If the leader has exited,
/// its background processes keep running.
#[derive(Debug)]
pub struct Process {
    id: u64,
    pid: u32,
    shared: Arc<Shared>,
    on_ended: oneshot::Receiver<Ended>,
    outcome: Option<Result<Ended, SpawnerLost>>,
    vacant: CancellationToken,
    signals: Arc<Mutex<PendingSignals>>,
}

impl Process {
    /// Waits until the leader has exited; other members of its group may still run. Cancel safe.
    /// Later calls return the same result.
    ///
    /// # Errors
    ///
    /// [`SpawnerLost`] when the spawner exited first.
    pub async fn ended(&mut self) -> Result<Ended, SpawnerLost> {
        if let Some(outcome) = self.outcome {
            return outcome;
        }
        let outcome = (&mut self.on_ended).await.map_err(|_| SpawnerLost);
        self.outcome = Some(outcome);
        outcome
    }

    /// Sends a client's signal to every process of the group (kill(2)), also after the leader has
    /// exited. SIGHUP, SIGTERM and SIGKILL go to every process of the session while it runs.
    /// Invalid signal numbers are ignored. A stopped process needs SIGCONT before it acts on
    /// another signal.
    ///
    /// For a command with a terminal the group is the terminal's foreground group, as for a typed
    /// key, or the leader's if there is none.
    pub fn signal(&self, signal: i32) {
        if let Some(pending) = PendingSignal::new(&self.signals, signal) {
            let message = wire::encode_signal(self.id, signal);
            self.order(message, Some(pending));
        }
    }

    /// Sends a signal that ends the command, and SIGCONT, to every process of its session. This has
    /// no effect on a command that has ended by itself: one whose leader has exited before the
    /// first of these signals, or after a SIGHUP that it ignored.
    ///
    /// With a terminal, unless `everything` is to end, background jobs that survive SIGHUP stay:
    /// SIGTERM and SIGKILL go to the leader's group and to the group that was in the foreground at
    /// the hang-up.
    pub fn end(&self, signal: i32, everything: bool) {
        self.order(wire::encode_end(self.id, signal, everything), None);
    }

    /// Waits until no process is left that another [`Process::end`] would signal. It resolves only
    /// after such a signal.
    pub fn vacant(&self) -> impl Future<Output = ()> + use<> {
        self.vacant.clone().cancelled_owned()
    }

    /// Returns the leader's process id, which is also the id of its group and its session.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Marks that the spawner has no record of the command, so that no order is sent for it.
    fn forget(&mut self) {
        self.outcome = Some(Err(SpawnerLost));
    }

    fn order(&self, message: Vec<u8>, signal: Option<PendingSignal>) {
        // Fails once the spawner is lost, and the command has ended with it.
        let _ = self.shared.orders.send(UnsentOrder { message, signal });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.shared.waiters.release(self.id);
        if self.outcome != Some(Err(SpawnerLost)) {
            self.order(wire::encode_release(self.id), None);
        }
    }
}

/// Writes orders until every handle is dropped. Then it drops its half of the socket, which ends
/// the spawner.
async fn write_orders(mut writer: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<UnsentOrder>) {
    while let Some(UnsentOrder { message, signal }) = queue.recv().await {
        // No longer pending before the write begins: an equal signal may come too late to be
        // covered by this one.
        drop(signal);
        if writer.write_all(&message).await.is_err() {
            // The reader sees the loss too, and reports it.
            return;
        }
    }
}

async fn read_until_lost(reader: OwnedReadHalf, waiters: Arc<Waiters>, turns: Turns, pid: Pid) {
    let result = read_replies(reader, &waiters).await;
    // First, as labshd exits once the loss is known.
    waiters.kill_all();
    // `spawn` relies on this order.
    waiters.lost.cancel();
    turns.close();
    let abandoned = mem::take(&mut *waiters.commands());
    drop(abandoned);
    lock(&waiters.unanswered).clear();
    if let Err(error) = result {
        tracing::error!(%error, "the connection to the spawner failed");
        return;
    }
    match tokio::task::spawn_blocking(move || waitpid(pid, None)).await {
        Ok(Ok(status)) => tracing::debug!(?status, "the spawner has exited"),
        other => tracing::warn!(?other, "the spawner has exited with an unknown status"),
    }
}

async fn read_replies(reader: OwnedReadHalf, waiters: &Waiters) -> io::Result<()> {
    let socket: &UnixStream = reader.as_ref();
    let mut inbox = Inbox::default();
    let mut chunk = vec![0; READ_SIZE];
    let mut arrived = VecDeque::new();
    loop {
        let received = socket.async_io(Interest::READABLE, || receive(socket, &mut chunk)).await;
        let (read, descriptors) = match received {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            received => received?,
        };
        if read == 0 {
            return Ok(());
        }
        arrived.extend(descriptors);
        inbox.extend(&chunk[..read]);
        while let Some(envelope) = inbox.next().map_err(io::Error::other)? {
            let reply = envelope.reply().map_err(io::Error::other)?;
            waiters.deliver(envelope.id, reply, &mut arrived);
        }
    }
}

/// Names the descriptors of a reply; `None` if some are missing.
fn streams(descriptors: Vec<OwnedFd>, has_terminal: bool) -> Option<Streams> {
    if has_terminal {
        let [master] = descriptors.try_into().ok()?;
        return Some(Streams::Terminal(master));
    }
    let [stdin, stdout, stderr] = descriptors.try_into().ok()?;
    Some(Streams::Pipes { stdin, stdout, stderr })
}

/// Reads once, and returns the number of bytes and the descriptors of one `Spawned` reply, if any.
/// The kernel delivers descriptors with the first byte of their message, and never those of two
/// messages in one read (unix(7)), so they arrive in the order of the replies. Some may be missing
/// if this process has no free descriptor.
fn receive(socket: &UnixStream, chunk: &mut [u8]) -> io::Result<(usize, Option<Vec<OwnedFd>>)> {
    let mut control = nix::cmsg_space!([i32; 3]);
    // The kernel is given the whole capacity; where it writes nothing, zeros remain.
    control.resize(control.capacity(), 0);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let (read, cut_off) = {
        let mut bytes = [IoSliceMut::new(chunk)];
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut bytes, Some(&mut control), flags)?;
        (message.bytes, message.flags.contains(MsgFlags::MSG_CTRUNC))
    };
    let descriptors = take_descriptors(&control);
    Ok((read, (cut_off || !descriptors.is_empty()).then_some(descriptors)))
}

/// Takes the descriptors out of a received control message. If some are missing, nix's iterator
/// yields none and leaks those that did arrive, just when descriptors are short.
fn take_descriptors(control: &[u8]) -> Vec<OwnedFd> {
    // struct cmsghdr: a length that includes the header, a level, a type (cmsg(3)).
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let Some((length, rest)) = control.split_first_chunk() else { return Vec::new() };
    let length = usize::from_ne_bytes(*length);
    let rights = [libc::SOL_SOCKET.to_ne_bytes(), libc::SCM_RIGHTS.to_ne_bytes()].concat();
    if !rest.starts_with(&rights) {
        return Vec::new();
    }
    let (numbers, _) = control.get(HEADER..length).unwrap_or_default().as_chunks();
    let take = |number: &[u8; 4]| {
        // SAFETY: the kernel has just installed this descriptor in this process, so it has no other
        // owner.
        #[allow(unsafe_code)]
        unsafe {
            OwnedFd::from_raw_fd(i32::from_ne_bytes(*number))
        }
    };
    numbers.iter().map(take).collect()
}
