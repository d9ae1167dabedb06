//! The spawner process: its set-up, its event loop, and the termination of all commands at its end.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, Write};
use std::mem;
use std::os::fd::OwnedFd;
use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{self, ForkResult, Pid, fork, pipe2};

use super::child::{self, ChildEnds, ChildStreams, DescriptorLimit};
use super::command::{Command, Ending, Pty, State, pidfd_open};
use super::messages::{Failure, Request, SpawnerOrder, SpawnerReply, Stage};
use super::outgoing::OutgoingReply;
use super::session_signals::{self, SignalBatch};
use super::terminal::open_terminal;
use super::wire::{self, Inbox, READ_SIZE};

/// Capacity of a large stdout pipe, in bytes: what a reader of bulk output finds at one wake-up.
const LARGE_PIPE_SIZE: i32 = 1 << 20;

/// Limit on commands with a large pipe at the same time. Once an unprivileged user holds 64 MiB of
/// pipes, further ones in all programs get a single page (pipe(7), pipe-user-pages-soft).
const MAX_LARGE_PIPES: usize = 16;

/// The signals that end the commands that still run after labshd has gone, and the delay after
/// each.
const TERMINATION_STEPS: [(i32, Duration); 3] = [
    (libc::SIGHUP, Duration::from_secs(1)),
    (libc::SIGTERM, Duration::from_secs(2)),
    (libc::SIGKILL, Duration::ZERO),
];

/// Interval between checks of what is left of the commands that labshd ends or has released. The
/// kernel does not report the end of a session, and a pidfd for each killed process would let a
/// user take all descriptors with processes that hang on a file server.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Runs the spawner until labshd closes the socket. All other descriptors above 2 are closed.
pub(super) fn run(socket: OwnedFd) -> ! {
    // A panic must not unwind into labshd's code, which this process has a copy of.
    let code = match panic::catch_unwind(AssertUnwindSafe(|| serve(socket))) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            // `eprintln` would panic if stderr is closed.
            let _ = writeln!(io::stderr(), "labshd-spawner: {error}; stopping");
            1
        }
        Err(_) => 101,
    };
    // SAFETY: _exit(2) takes any code. Unlike exit(3) it runs no handlers and flushes no buffers of
    // labshd.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(code)
    }
}

fn serve(socket: OwnedFd) -> io::Result<()> {
    let limit = prepare(&socket)?;
    let mut spawner = Spawner::new(socket, limit)?;
    let result = spawner.run_event_loop();
    spawner.terminate_all();
    result
}

/// Drops the state inherited from labshd: signal dispositions, session, directory, descriptors.
/// Returns the descriptor limit of labshd, which commands inherit.
fn prepare(socket: &OwnedFd) -> io::Result<DescriptorLimit> {
    // Only labshd handles signals. Here they are blocked rather than ignored, because exec
    // preserves ignored ones. An ignored SIGCHLD would also let the kernel reap the leaders.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
    for signal in 1..=libc::SIGRTMAX() {
        set_default_disposition(signal);
    }
    // A session of its own keeps the signals of labshd's terminal away.
    unistd::setsid()?;
    prctl::set_name(c"labshd-spawner")?;
    unistd::chdir(c"/")?;
    let null = open(c"/dev/null", OFlag::O_RDWR, Mode::empty())?;
    unistd::dup2_stdin(&null)?;
    unistd::dup2_stdout(&null)?;
    drop(null);
    child::close_all_but(socket)?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(DescriptorLimit { soft, hard })
}

/// Resets a signal to SIG_DFL. A raw call, as the C library reserves signals 32 and 33, and
/// labshd's parent may have ignored those too. The kernel refuses SIGKILL and SIGSTOP, which need
/// no reset.
fn set_default_disposition(signal: i32) {
    const SET_SIZE: usize = 8;
    let default = [0_u64; 8];
    // SAFETY: the call reads a struct sigaction, in which all zeros mean SIG_DFL, no flags and no
    // mask, from memory that is larger than one. It writes nothing to a null pointer, and installs
    // no handler.
    #[allow(unsafe_code)]
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            default.as_ptr(),
            std::ptr::null_mut::<u64>(),
            SET_SIZE,
        );
    }
}

/// The token of events on the socket. The tokens of a command are its id, shifted by one, and a bit
/// that tells its two descriptors apart; ids start at 1.
const SOCKET_TOKEN: u64 = 0;

fn report_token(id: u64) -> u64 {
    id << 1
}

fn pidfd_token(id: u64) -> u64 {
    id << 1 | 1
}

struct Spawner {
    socket: OwnedFd,
    epoll: Epoll,
    commands: HashMap<u64, Command>,
    outbox: VecDeque<OutgoingReply>,
    /// Whether epoll watches the socket for writability.
    congested: bool,
    /// The commands whose leader labshd has ended, and of which other processes may be left.
    ending: HashSet<u64>,
    dying: Vec<DyingChild>,
    next_check: Instant,
    limit: DescriptorLimit,
}

/// The leader of a released command, killed or about to exit, without a descriptor.
struct DyingChild {
    id: u64,
    pid: Pid,
    /// Whether labshd counts the command as being started until it is gone.
    was_starting: bool,
}

/// Whether the spawner still has a labshd at the other end of its socket.
#[derive(PartialEq)]
enum Connection {
    Open,
    Closed,
}

impl Spawner {
    fn new(socket: OwnedFd, limit: DescriptorLimit) -> io::Result<Spawner> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, SOCKET_TOKEN))?;
        Ok(Spawner {
            socket,
            epoll,
            commands: HashMap::new(),
            outbox: VecDeque::new(),
            congested: false,
            ending: HashSet::new(),
            dying: Vec::new(),
            next_check: Instant::now(),
            limit,
        })
    }

    /// Handles events until labshd closes the socket.
    fn run_event_loop(&mut self) -> io::Result<()> {
        let mut inbox = Inbox::default();
        let mut chunk = vec![0; READ_SIZE];
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let ready = match self.epoll.wait(&mut events, self.check_timeout()) {
                Err(Errno::EINTR) => continue,
                ready => ready?,
            };
            for event in &events[..ready] {
                let (token, id) = (event.data(), event.data() >> 1);
                if token == SOCKET_TOKEN {
                    if self.receive(&mut inbox, &mut chunk)? == Connection::Closed {
                        return Ok(());
                    }
                } else if token == report_token(id) {
                    self.on_exec_report(id);
                } else {
                    self.on_exit(id);
                }
            }
            self.check_if_due();
            if self.send()? == Connection::Closed {
                return Ok(());
            }
        }
    }

    /// Reads once and carries out the orders that are complete.
    fn receive(&mut self, inbox: &mut Inbox, chunk: &mut [u8]) -> io::Result<Connection> {
        let read = match unistd::read(&self.socket, chunk) {
            Ok(0) | Err(Errno::ECONNRESET) => return Ok(Connection::Closed),
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            read => read?,
        };
        inbox.extend(&chunk[..read]);
        let (mut batch, mut released) = (SignalBatch::default(), Vec::new());
        while let Some(envelope) = inbox.next().map_err(io::Error::other)? {
            let id = envelope.id;
            match envelope.order().map_err(io::Error::other)? {
                SpawnerOrder::Spawn(request) => self.spawn(id, &request),
                SpawnerOrder::Signal(signal) => {
                    if let Some(command) = self.commands.get(&id) {
                        command.signal(signal, &mut batch);
                    }
                }
                SpawnerOrder::End { signal, everything } => {
                    if let Some(command) = self.commands.get_mut(&id) {
                        command.end(signal, everything, &mut batch);
                        if command.has_ended_by_itself() {
                            self.reply(id, &SpawnerReply::Vacant, Vec::new());
                        }
                    }
                }
                SpawnerOrder::Release => {
                    if let Some(command) = self.commands.get_mut(&id) {
                        command.kill(&mut batch);
                        released.push(id);
                    }
                }
            }
        }
        // Before the leaders are reaped, which frees the ids of their sessions.
        batch.send_all();
        released.into_iter().for_each(|id| self.discard(id));
        Ok(Connection::Open)
    }

    fn spawn(&mut self, id: u64, request: &Request<'_>) {
        let started = self.start(id, request);
        self.reply(id, &SpawnerReply::Attempted, Vec::new());
        match started {
            Ok(command) => drop(self.commands.insert(id, command)),
            Err(failure) => self.reply(id, &SpawnerReply::Failed(failure), Vec::new()),
        }
    }

    fn start(&self, id: u64, request: &Request<'_>) -> Result<Command, Failure> {
        let (streams, labshd_ends, terminal) = self.open_streams(request)?;
        let (report, report_writer) =
            pipe2(OFlag::O_CLOEXEC).map_err(|e| Stage::Pipes.failed(e))?;
        let ends = ChildEnds { streams, report: report_writer };
        let forked_at = Instant::now();
        // SAFETY: this process has one thread, so the copy finds no lock held and no operation
        // half-done.
        #[allow(unsafe_code)]
        let forked = unsafe { fork() }.map_err(|e| Stage::Fork.failed(e))?;
        let pid = match forked {
            ForkResult::Child => child::run(request, &ends, self.limit),
            ForkResult::Parent { child } => child,
        };
        // Closed before the pidfd is opened: this frees four descriptors where they are short.
        drop(ends);
        match self.watch(id, pid, &report) {
            Ok(pidfd) => {
                let state = State::Starting { report, labshd_ends, pidfd };
                Ok(Command { pid, forked_at, state, ending: Ending::None, terminal })
            }
            Err(errno) => {
                // This blocks, but briefly: the child has just started. It is also rare, as only
                // full kernel tables cause it.
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
                let _ = waitpid(pid, None);
                Err(Stage::Watch.failed(errno))
            }
        }
    }

    /// Opens pipes, or a terminal: the child's ends, labshd's ends, and the spawner's descriptor of
    /// the terminal.
    fn open_streams(
        &self,
        request: &Request<'_>,
    ) -> Result<(ChildStreams, Vec<OwnedFd>, Option<Pty>), Failure> {
        match &request.terminal {
            None => {
                let large = self.commands.len() < MAX_LARGE_PIPES;
                let (streams, labshd_ends) =
                    open_pipes(large).map_err(|e| Stage::Pipes.failed(e))?;
                Ok((streams, labshd_ends, None))
            }
            Some(terminal) => {
                let opened = open_terminal(terminal, request.identity.as_ref());
                let (master, slave) = opened.map_err(|e| Stage::Terminal.failed(e))?;
                let duplicate =
                    master.try_clone().map_err(|e| Stage::Terminal.failed(errno(&e)))?;
                Ok((ChildStreams::Terminal(slave), vec![duplicate], Some(Pty::new(master))))
            }
        }
    }

    /// Watches the exec report and the exit of a child. Both are edge-triggered, as each is handled
    /// once: other children hold copies of a descriptor between their fork and their exec, so a
    /// closed one would go on reporting; and if a debugger traces the leader, its exit is reported
    /// twice.
    fn watch(&self, id: u64, pid: Pid, report: &OwnedFd) -> nix::Result<OwnedFd> {
        let pidfd = pidfd_open(pid)?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        self.epoll.add(report, EpollEvent::new(flags, report_token(id)))?;
        self.epoll.add(&pidfd, EpollEvent::new(flags, pidfd_token(id)))?;
        Ok(pidfd)
    }

    /// Handles the end of a child's exec report: the program was executed, or failed to start.
    fn on_exec_report(&mut self, id: u64) {
        let Some(command) = self.commands.get_mut(&id) else { return };
        let Some((report, labshd_ends)) = command.take_start() else { return };
        let mut bytes = [0; Failure::LEN];
        let failure = match unistd::read(&report, &mut bytes) {
            Ok(Failure::LEN) => Failure::decode(bytes).ok(),
            _ => None,
        };
        let pid = command.pid.as_raw().unsigned_abs();
        match failure {
            Some(failure) => {
                // It exits by itself.
                self.discard(id);
                self.reply(id, &SpawnerReply::Failed(failure), Vec::new());
            }
            None => self.reply(id, &SpawnerReply::Spawned(pid), labshd_ends),
        }
    }

    /// Handles an event of a pidfd: the leader has exited, or a debugger has seen it exit.
    fn on_exit(&mut self, id: u64) {
        // Both descriptors of a short-lived command can be ready at once, in either order.
        self.on_exec_report(id);
        let Some(command) = self.commands.get_mut(&id) else { return };
        let Some(ended) = command.take_exit() else { return };
        let ending = command.ending;
        self.reply(id, &SpawnerReply::Ended(ended), Vec::new());
        match ending {
            Ending::None => {}
            Ending::Ignored => self.reply(id, &SpawnerReply::Vacant, Vec::new()),
            Ending::Begun { .. } => drop(self.ending.insert(id)),
        }
    }

    /// Removes a command, and closes its descriptors whether or not its leader has exited: one that
    /// hangs on a file server may never. The leader is reaped once it has. Closing a terminal hangs
    /// it up.
    fn discard(&mut self, id: u64) {
        let Some(command) = self.commands.remove(&id) else { return };
        let was_starting = matches!(command.state, State::Starting { .. });
        let child = DyingChild { id, pid: command.pid, was_starting };
        if !self.reap(&child) {
            self.dying.push(child);
        }
    }

    /// Reaps the leader of a released command; false if it has not exited.
    fn reap(&mut self, child: &DyingChild) -> bool {
        if waitpid(child.pid, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive) {
            return false;
        }
        if child.was_starting {
            self.reply(child.id, &SpawnerReply::Gone, Vec::new());
        }
        true
    }

    fn reap_dying(&mut self) {
        for child in mem::take(&mut self.dying) {
            if !self.reap(&child) {
                self.dying.push(child);
            }
        }
    }

    fn check_timeout(&self) -> EpollTimeout {
        if self.ending.is_empty() && self.dying.is_empty() {
            return EpollTimeout::NONE;
        }
        let left = self.next_check.saturating_duration_since(Instant::now());
        // Rounded up, so that the loop does not spin in the last millisecond.
        EpollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(EpollTimeout::ZERO)
    }

    fn check_if_due(&mut self) {
        if Instant::now() >= self.next_check {
            self.reap_dying();
            self.report_vacant();
            self.next_check = Instant::now() + CHECK_INTERVAL;
        }
    }

    /// Reports the ending commands of which no process is left that a signal would reach.
    fn report_vacant(&mut self) {
        if self.ending.is_empty() {
            return;
        }
        let commands = &self.commands;
        self.ending.retain(|id| commands.contains_key(id));
        let ending = self.ending.iter().filter_map(|id| Some((*id, commands.get(id)?)));
        let sessions =
            ending.clone().map(|(_, command)| (command.pid, command.remaining_members()));
        let occupied = session_signals::occupied(&sessions.collect());
        let vacant = ending.filter(|(_, command)| !occupied.contains(&command.pid));
        for id in vacant.map(|(id, _)| id).collect::<Vec<_>>() {
            self.ending.remove(&id);
            self.reply(id, &SpawnerReply::Vacant, Vec::new());
        }
    }

    fn reply(&mut self, id: u64, reply: &SpawnerReply, descriptors: Vec<OwnedFd>) {
        let bytes = wire::encode_reply(id, reply);
        self.outbox.push_back(OutgoingReply { bytes, sent: 0, descriptors });
    }

    /// Sends as many replies as the socket accepts.
    fn send(&mut self) -> io::Result<Connection> {
        while let Some(reply) = self.outbox.front_mut() {
            match reply.send(&self.socket) {
                Ok(()) if reply.sent == reply.bytes.len() => drop(self.outbox.pop_front()),
                Ok(()) | Err(Errno::EINTR) => {}
                // Memory, or descriptors in flight, are short until labshd reads more.
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::ETOOMANYREFS) => break,
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(Connection::Closed),
                Err(errno) => return Err(errno.into()),
            }
        }
        let congested = !self.outbox.is_empty();
        if mem::replace(&mut self.congested, congested) != congested {
            let writable = if congested { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
            let mut event = EpollEvent::new(EpollFlags::EPOLLIN | writable, SOCKET_TOKEN);
            self.epoll.modify(&self.socket, &mut event)?;
        }
        Ok(Connection::Open)
    }

    /// Ends the commands whose leader still runs. If a leader has exited, its background processes
    /// were left running on purpose.
    fn terminate_all(&mut self) {
        self.commands.retain(|_, command| !command.has_ended_by_itself());
        if self.commands.is_empty() {
            return;
        }
        // No leader is reaped meanwhile, so one delay serves all commands.
        for (signal, delay) in TERMINATION_STEPS {
            let mut batch = SignalBatch::default();
            for command in self.commands.values_mut() {
                command.end(signal, false, &mut batch);
            }
            batch.send_all();
            thread::sleep(delay);
        }
    }
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Opens three pipes: the child's ends, and labshd's ends in the order stdin, stdout, stderr.
fn open_pipes(large: bool) -> nix::Result<(ChildStreams, Vec<OwnedFd>)> {
    let (stdin, stdin_writer) = pipe2(OFlag::O_CLOEXEC)?;
    let (stdout_reader, stdout) = pipe2(OFlag::O_CLOEXEC)?;
    let (stderr_reader, stderr) = pipe2(OFlag::O_CLOEXEC)?;
    if large {
        // Fails once the user's share of pipe memory is used up. The default size then only costs
        // speed.
        let _ = fcntl(&stdout, FcntlArg::F_SETPIPE_SZ(LARGE_PIPE_SIZE));
    }
    let labshd_ends = vec![stdin_writer, stdout_reader, stderr_reader];
    for end in &labshd_ends {
        fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    Ok((ChildStreams::Pipes { stdin, stdout, stderr }, labshd_ends))
}
