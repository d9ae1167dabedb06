//! labshd's side of the spawner: changes when labshd is to hold its commands in another way.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, mem};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recvmsg, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::pending_signals::{Signals, UnderWay};
use super::wire::{self, Answer, CHUNK, Failure, Inbox, Stage, Unfit};
use super::{Ended, SpawnError, SpawnRequest, Spawned, SpawnerLost, Streams, process};

/// A spawner that runs and waits for its first order. Dropping it ends the spawner.
#[derive(Debug)]
pub struct SpawnerProcess {
    socket: OwnedFd,
    pid: Pid,
}

/// Forks the spawner: a process that runs commands for labshd and does nothing else.
///
/// It comes before everything else in `main`: what labshd has opened, read or changed by then
/// (descriptors excepted, which the spawner closes) is what the spawner and every command start
/// with.
///
/// # Errors
///
/// When this process has more than one thread, when `/proc` is not mounted, and when fork(2) or
/// socketpair(2) fail.
pub fn launch() -> io::Result<SpawnerProcess> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!(
            "the spawner must be launched before other threads: {threads} run"
        )));
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (socket, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
    // SAFETY: this is the only thread, as was just checked, so the copy finds no lock held; and the
    // copy never returns from `run`.
    #[allow(unsafe_code)]
    match unsafe { fork() }? {
        ForkResult::Child => process::run(theirs),
        ForkResult::Parent { child: pid } => Ok(SpawnerProcess { socket, pid }),
    }
}

/// Requests to spawn that may be under way to the spawner at once; each may be a megabyte long, and
/// those who ask may be faster than fork(2).
const UNDER_WAY: usize = 32;

/// The handle to the spawner, through which all commands of all connections go. When the last
/// handle and the last [`Process`] are gone, the spawner ends.
#[derive(Debug, Clone)]
pub struct Spawner {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pid: Pid,
    next_id: AtomicU64,
    orders: mpsc::UnboundedSender<Order>,
    turns: Arc<Semaphore>,
    expected: Arc<Expected>,
}

/// A message on its way to the spawner.
#[derive(Debug)]
struct Order {
    message: Vec<u8>,
    hold: Option<Hold>,
}

/// What an order gives back as it leaves.
#[derive(Debug)]
enum Hold {
    Turn(OwnedSemaphorePermit),
    Signal(UnderWay),
}

/// A panic elsewhere leaves a state that is at worst incomplete.
pub(super) fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answers that somebody waits for.
#[derive(Debug, Default)]
struct Expected {
    commands: Mutex<HashMap<u64, Waiting>>,
    lost: CancellationToken,
}

#[derive(Debug)]
struct Waiting {
    /// Once it runs.
    leader: Option<Pid>,
    /// Taken by the first answer.
    started: Option<oneshot::Sender<Result<Started, Failure>>>,
    ended: oneshot::Sender<Ended>,
}

#[derive(Debug)]
struct Started {
    pid: u32,
    /// As the answer has them; fewer when this process had no room for all.
    descriptors: Vec<OwnedFd>,
}

impl Spawner {
    /// Takes up the conversation with a launched spawner.
    ///
    /// # Errors
    ///
    /// When the socket cannot be registered with the runtime.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O enabled.
    pub fn attach(process: SpawnerProcess) -> io::Result<Spawner> {
        let (reader, writer) = UnixStream::from_std(StdStream::from(process.socket))?.into_split();
        let (orders, queue) = mpsc::unbounded_channel();
        let expected = Arc::<Expected>::default();
        tokio::spawn(write_orders(writer, queue));
        tokio::spawn(read_until_lost(reader, expected.clone(), process.pid));
        let turns = Arc::new(Semaphore::new(UNDER_WAY));
        let shared =
            Shared { pid: process.pid, next_id: AtomicU64::new(1), orders, turns, expected };
        Ok(Spawner { shared: Arc::new(shared) })
    }

    /// Starts a command and returns once its program has been executed.
    ///
    /// Dropping the future ends whatever it may have started, at whichever point.
    ///
    /// # Errors
    ///
    /// See [`SpawnError`]; after an error nothing of the command remains.
    pub async fn spawn(&self, request: SpawnRequest) -> Result<Spawned, SpawnError> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let has_terminal = request.terminal.is_some();
        let message = wire::spawn(id, &request).map_err(unfit)?;
        // What waits from here on, for a turn or for a child that hangs, are the bytes, and then
        // not even those.
        let named = Named::of(request);
        let turn = self.shared.turns.clone().acquire_owned().await;
        let hold = turn.ok().map(Hold::Turn);
        let (started, on_started) = oneshot::channel();
        let (ended, on_ended) = oneshot::channel();
        let expected = &self.shared.expected;
        expected.commands().insert(id, Waiting { leader: None, started: Some(started), ended });
        // From here on its drop cleans up, whatever becomes of this future.
        let mut process = Process {
            id,
            pid: 0,
            shared: self.shared.clone(),
            on_ended,
            outcome: None,
            signals: Arc::default(),
        };
        // Looked at after the insertion: the reader sets it before it empties the table for the
        // last time.
        if expected.lost.is_cancelled() || self.shared.orders.send(Order { message, hold }).is_err()
        {
            return Err(SpawnError::Lost);
        }
        let started = match on_started.await {
            Ok(Ok(started)) => started,
            Ok(Err(failure)) => {
                process.forget();
                return Err(explain(failure, named));
            }
            Err(_) => return Err(SpawnError::Lost),
        };
        process.pid = started.pid;
        let streams = streams(started.descriptors, has_terminal);
        let streams = streams.ok_or(SpawnError::Resources { source: Errno::EMFILE.into() })?;
        Ok(Spawned { pid: started.pid, streams, process })
    }

    /// Resolves when the spawner process has gone. Nothing can be run any more: labshd has to stop.
    pub async fn lost(&self) {
        self.shared.expected.lost.cancelled().await;
    }

    /// The spawner's process id.
    pub fn pid(&self) -> u32 {
        self.shared.pid.as_raw().unsigned_abs()
    }
}

/// The hold on a command: its leader is not reaped, and its ids are not used again, until this is
/// dropped. Dropping it before the leader has ended kills the whole group (SIGKILL), after a
/// hang-up where it has a terminal. A leader that had ended by itself left its background on
/// purpose.
#[derive(Debug)]
pub struct Process {
    id: u64,
    pid: u32,
    shared: Arc<Shared>,
    on_ended: oneshot::Receiver<Ended>,
    outcome: Option<Result<Ended, SpawnerLost>>,
    signals: Arc<Mutex<Signals>>,
}

impl Process {
    /// Waits until the leader has ended; members of its group may go on. Cancel safe; once it has
    /// resolved it gives the same answer again.
    ///
    /// # Errors
    ///
    /// [`SpawnerLost`] when the spawner went first.
    pub async fn ended(&mut self) -> Result<Ended, SpawnerLost> {
        if let Some(outcome) = self.outcome {
            return outcome;
        }
        let outcome = (&mut self.on_ended).await.map_err(|_| SpawnerLost);
        self.outcome = Some(outcome);
        outcome
    }

    /// Sends a signal to every process of the group (kill(2)), also after the leader has ended.
    /// Numbers that are no signal do nothing. A stopped group needs SIGCONT before it can act on
    /// another signal.
    ///
    /// Of a command with a terminal it is the group in the terminal's foreground, as with a key
    /// that is typed (the leader's where there is none); after [`Process::hang_up`] the leader's,
    /// and the one that was there then.
    pub fn signal(&self, signal: i32) {
        if let Some(under_way) = UnderWay::new(&self.signals, signal) {
            self.order(wire::signal(self.id, signal), Some(Hold::Signal(under_way)));
        }
    }

    /// Tells the command that nobody is there any more: SIGHUP and SIGCONT to every process of its
    /// group; of a command with a terminal, to every process of its session, whichever group it is
    /// in.
    pub fn hang_up(&self) {
        self.order(wire::hang_up(self.id), None);
    }

    /// The leader's process id, which is its group's and its session's too.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The spawner knows nothing of this command any more.
    fn forget(&mut self) {
        self.outcome = Some(Err(SpawnerLost));
    }

    /// Without a spawner there is nobody to order about, and nothing left to be done.
    fn order(&self, message: Vec<u8>, hold: Option<Hold>) {
        let _ = self.shared.orders.send(Order { message, hold });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.shared.expected.commands().remove(&self.id);
        if self.outcome != Some(Err(SpawnerLost)) {
            self.order(wire::release(self.id), None);
        }
    }
}

impl Expected {
    fn commands(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        lock(&self.commands)
    }

    /// Kills the groups of all commands that run, once the spawner cannot. Nobody keeps their
    /// leaders' numbers from being used again, but the kernel gives out all others before one comes
    /// back, and this is the moment of the loss.
    fn kill_all(&self) {
        for leader in self.commands().values().filter_map(|waiting| waiting.leader) {
            // It may have gone with the spawner.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }

    /// Hands an answer to whoever waits for it; to nobody when its command has been let go
    /// meanwhile.
    fn deliver(&self, id: u64, answer: Answer, arrived: &mut VecDeque<Vec<OwnedFd>>) {
        let mut commands = self.commands();
        match answer {
            Answer::Spawned(pid) => {
                let descriptors = arrived.pop_front().unwrap_or_default();
                let Some(waiting) = commands.get_mut(&id) else { return };
                waiting.leader = i32::try_from(pid).ok().map(Pid::from_raw);
                if let Some(started) = waiting.started.take() {
                    let _ = started.send(Ok(Started { pid, descriptors }));
                }
            }
            Answer::Failed(failure) => {
                if let Some(started) = commands.remove(&id).and_then(|waiting| waiting.started) {
                    let _ = started.send(Err(failure));
                }
            }
            Answer::Ended(ended) => {
                if let Some(waiting) = commands.remove(&id) {
                    let _ = waiting.ended.send(ended);
                }
            }
        }
    }
}

/// Ends when every handle is gone, and by dropping its half tells the spawner so.
async fn write_orders(mut writer: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Order>) {
    while let Some(Order { message, hold }) = queue.recv().await {
        let _turn = match hold {
            Some(Hold::Turn(turn)) => Some(turn),
            // Before it is written: whoever signals from now on may be too late for this one.
            Some(Hold::Signal(under_way)) => {
                drop(under_way);
                None
            }
            None => None,
        };
        if writer.write_all(&message).await.is_err() {
            // The reader notices as well, and it is the one that tells.
            return;
        }
    }
}

async fn read_until_lost(reader: OwnedReadHalf, expected: Arc<Expected>, pid: Pid) {
    let result = read_answers(reader, &expected).await;
    // First of all: labshd ends as soon as the loss is known.
    expected.kill_all();
    // In this order; see `spawn`.
    expected.lost.cancel();
    let abandoned = mem::take(&mut *expected.commands());
    drop(abandoned);
    if let Err(error) = result {
        tracing::error!(%error, "the conversation with the spawner broke off");
        return;
    }
    match tokio::task::spawn_blocking(move || waitpid(pid, None)).await {
        Ok(Ok(status)) => tracing::debug!(?status, "the spawner has ended"),
        other => tracing::warn!(?other, "the spawner has ended, nobody knows how"),
    }
}

async fn read_answers(reader: OwnedReadHalf, expected: &Expected) -> io::Result<()> {
    let socket: &UnixStream = reader.as_ref();
    let mut inbox = Inbox::default();
    let mut chunk = vec![0; CHUNK];
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
            let answer = envelope.answer().map_err(io::Error::other)?;
            expected.deliver(envelope.id, answer, &mut arrived);
        }
    }
}

/// What the descriptors of an answer are; `None` when not all of them have arrived.
fn streams(descriptors: Vec<OwnedFd>, has_terminal: bool) -> Option<Streams> {
    if has_terminal {
        let [master] = descriptors.try_into().ok()?;
        return Some(Streams::Terminal(master));
    }
    let [stdin, stdout, stderr] = descriptors.try_into().ok()?;
    Some(Streams::Pipes { stdin, stdout, stderr })
}

/// One read. The kernel never joins the descriptors of two messages in one (unix(7)), and gives
/// them with the first byte that they were sent with: they arrive in the order of the `Spawned`
/// answers, and never after. Where there was no room for all of them, those that have arrived.
fn receive(socket: &UnixStream, chunk: &mut [u8]) -> io::Result<(usize, Option<Vec<OwnedFd>>)> {
    let mut control = nix::cmsg_space!([i32; 3]);
    // All of the capacity is handed to the kernel; zeros mean that it wrote nothing.
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

/// The descriptors in a received control message. Nix's own iterator gives none where some are
/// missing, and so leaks those that did arrive, just when there are too few.
fn take_descriptors(control: &[u8]) -> Vec<OwnedFd> {
    // struct cmsghdr: a length that counts the header, a level, a type (cmsg(3)).
    const HEADER: usize = size_of::<libc::cmsghdr>();
    let Some((length, rest)) = control.split_first_chunk() else { return Vec::new() };
    let length = usize::from_ne_bytes(*length);
    let rights = [libc::SOL_SOCKET.to_ne_bytes(), libc::SCM_RIGHTS.to_ne_bytes()].concat();
    if !rest.starts_with(&rights) {
        return Vec::new();
    }
    let (numbers, _) = control.get(HEADER..length).unwrap_or_default().as_chunks();
    let take = |number: &[u8; 4]| {
        // SAFETY: the kernel has just installed this descriptor for us, and nobody else has seen
        // its number.
        #[allow(unsafe_code)]
        unsafe {
            OwnedFd::from_raw_fd(i32::from_ne_bytes(*number))
        }
    };
    numbers.iter().map(take).collect()
}

fn unfit(unfit: Unfit) -> SpawnError {
    match unfit {
        Unfit::TooLarge => SpawnError::TooLarge,
        Unfit::Invalid(reason) => SpawnError::Other {
            stage: "reading the request",
            source: io::Error::new(io::ErrorKind::InvalidInput, reason),
        },
    }
}

/// What a failure is told with.
struct Named {
    program: Vec<u8>,
    directory: Vec<u8>,
}

impl Named {
    fn of(request: SpawnRequest) -> Self {
        let first = request.argv.into_iter().next();
        Self { program: request.program.or(first).unwrap_or_default(), directory: request.cwd }
    }
}

fn explain(failure: Failure, named: Named) -> SpawnError {
    let source = io::Error::from(failure.errno);
    let program = || String::from_utf8_lossy(&named.program).into_owned();
    match (failure.stage, failure.errno) {
        (_, Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE) => {
            SpawnError::Resources { source }
        }
        // devpts has as many terminals as it may (pty(7), kernel.pty.max).
        (Stage::Terminal, Errno::ENOSPC) => SpawnError::Resources { source },
        (Stage::Terminal, _) => SpawnError::Other { stage: "making a terminal", source },
        (Stage::Identity, _) => SpawnError::Identity { source },
        (Stage::Directory, _) => {
            SpawnError::Directory { path: OsString::from_vec(named.directory).into(), source }
        }
        (Stage::Interpreter, _) => {
            let source = io::Error::new(
                io::ErrorKind::NotFound,
                "the file is there, but the interpreter that it names is not",
            );
            SpawnError::NotExecutable { program: program(), source }
        }
        (Stage::Execute, Errno::E2BIG) => SpawnError::TooLarge,
        (Stage::Execute, Errno::ENOENT | Errno::ENOTDIR) => {
            SpawnError::NotFound { program: program() }
        }
        (Stage::Execute, Errno::EIO | Errno::EFAULT) => {
            SpawnError::Other { stage: "executing", source }
        }
        (Stage::Execute, _) => SpawnError::NotExecutable { program: program(), source },
        (Stage::Pipes, _) => SpawnError::Other { stage: "making pipes", source },
        (Stage::Fork, _) => SpawnError::Other { stage: "forking", source },
        (Stage::Watch, _) => SpawnError::Other { stage: "watching the process", source },
        (Stage::Session, _) => SpawnError::Other { stage: "making a session", source },
        (Stage::Descriptors, _) => SpawnError::Other { stage: "connecting the pipes", source },
        (Stage::Signals, _) => SpawnError::Other { stage: "resetting signals", source },
        (Stage::Limits, _) => SpawnError::Other { stage: "restoring limits", source },
    }
}
