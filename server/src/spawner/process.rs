//! The spawner's own loop: changes when it watches something else, or does something else about it.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice, Write};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::{Duration, Instant};

use labsh_proto::message::{Status, Usage};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{self, ForkResult, Pid, fork, pipe2};

use super::Ended;
use super::child::{self, Ends, OpenFiles, Streams};
use super::session_signals::Tidings;
use super::terminal::{foreground, open_terminal};
use super::wire::{self, Answer, CHUNK, Failure, Inbox, Order, Request, Stage};

/// What one wake-up of a bulk reader can find in stdout.
const LARGE_PIPE: i32 = 1 << 20;

/// How many commands may have a large pipe at once. An unprivileged user who holds more than 64 MiB
/// of pipes gets crippled ones from then on (pipe(7), pipe-user-pages-soft), in every other program
/// too.
const LARGE_PIPES: usize = 16;

/// What is left running when labshd has gone is told so, and how long it has until the next word.
const LAST_WORDS: [(LastWord, Duration); 3] = [
    (Child::hang_up, Duration::from_secs(1)),
    (
        |child, tidings| child.signal_all(&[libc::SIGTERM, libc::SIGCONT], tidings),
        Duration::from_secs(2),
    ),
    (|child, tidings| child.signal_all(&[libc::SIGKILL], tidings), Duration::ZERO),
];

type LastWord = fn(&mut Child, &mut Tidings);

/// "Nobody is there any more": a process that is stopped acts on that only when it is continued.
const HANG_UP: [i32; 2] = [libc::SIGHUP, libc::SIGCONT];

/// Is the spawner, until labshd goes. `socket` is all that it keeps of what was open.
pub(super) fn run(socket: OwnedFd) -> ! {
    // An unwinding panic would otherwise run on into labshd's own code, twice.
    let code = match panic::catch_unwind(AssertUnwindSafe(|| serve(socket))) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            // Not eprintln, which panics when nobody reads.
            let _ = writeln!(io::stderr(), "labshd-spawner: {error}; stopping");
            1
        }
        Err(_) => 101,
    };
    // SAFETY: _exit(2) takes any code; unlike exit it leaves labshd's buffers and handlers alone.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(code)
    }
}

fn serve(socket: OwnedFd) -> io::Result<()> {
    let limit = prepare(&socket)?;
    let mut spawner = Spawner::new(socket, limit)?;
    let result = spawner.until_labshd_goes();
    spawner.wind_down();
    result
}

/// Gives up everything that came with the fork and is not needed.
fn prepare(socket: &OwnedFd) -> io::Result<OpenFiles> {
    // Signals are labshd's to decide about. Blocked rather than ignored, because exec would pass
    // "ignored" on. SIGCHLD too must not be ignored: zombies would vanish before they are asked
    // for.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
    for signal in 1..=libc::SIGRTMAX() {
        default_disposition(signal);
    }
    // Its own session, so that a terminal's Ctrl-C or hang-up is not sent to it in the first place.
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
    Ok(OpenFiles { soft, hard })
}

/// As a raw call, because the C library keeps 32 and 33 to itself, and whoever started labshd may
/// have ignored those too. Numbers that cannot be set (SIGKILL) are refused, and as they should be
/// already.
fn default_disposition(signal: i32) {
    const SET_SIZE: usize = 8;
    let default = [0_u64; 8];
    // SAFETY: the call reads a struct sigaction, in which all zeros mean SIG_DFL, no flags and no
    // mask, from memory that is larger than one; it writes nothing to a null pointer, and installs
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

/// One command.
struct Child {
    pid: Pid,
    since: Instant,
    state: State,
    /// labshd has let go: reap at the end, and say nothing.
    released: bool,
    terminal: Option<Line>,
}

/// The connection to a command's terminal: as long as it is held here, the terminal is not hung up,
/// and tells who is in its foreground, even when labshd has died.
struct Line {
    master: OwnedFd,
    hung_up: bool,
    /// The group that was in the foreground when the line was hung up, unless it was the leader's.
    foreground: Option<Pid>,
}

enum State {
    /// Forked. `report` ends empty when the program has been executed, or tells why it was not.
    Starting { report: OwnedFd, ours: Vec<OwnedFd>, pidfd: OwnedFd },
    /// Executed, or ended before that. `pidfd` becomes readable at its end.
    Running { pidfd: OwnedFd },
    /// A zombie, kept so that its ids stay its own.
    Ended,
}

impl Child {
    /// To the command's group. Where it has a terminal: to the group in its foreground, as a key
    /// that is typed; once it is hung up, to the leader's group and to the one that was in the
    /// foreground then.
    fn signal(&self, signal: i32, tidings: &mut Tidings) {
        let Some(line) = &self.terminal else { return self.signal_group(signal) };
        let foreground = if line.hung_up { line.foreground } else { self.foreground(line) };
        if line.hung_up || foreground.is_none() {
            self.signal_group(signal);
        }
        if foreground.is_some() {
            tidings.add(self.pid, foreground, signal);
        }
    }

    fn signal_all(&self, signals: &[i32], tidings: &mut Tidings) {
        signals.iter().for_each(|&signal| self.signal(signal, tidings));
    }

    /// Tells everybody that nobody is there any more. On a terminal that is every process of the
    /// session: an interactive shell has put each of its jobs into a group of its own.
    fn hang_up(&mut self, tidings: &mut Tidings) {
        let foreground = self.terminal.as_ref().and_then(|line| self.foreground(line));
        match &mut self.terminal {
            Some(line) if !line.hung_up => {
                line.hung_up = true;
                line.foreground = foreground;
                // A child that has not come to setsid yet is in no session of its own.
                for signal in HANG_UP {
                    self.signal_group(signal);
                    tidings.add(self.pid, None, signal);
                }
            }
            _ => self.signal_all(&HANG_UP, tidings),
        }
    }

    /// labshd asks nothing more. What still runs then, it has given up.
    fn let_go(&mut self, tidings: &mut Tidings) {
        self.released = true;
        if matches!(self.state, State::Ended) {
            return;
        }
        if self.terminal.is_some() {
            self.hang_up(tidings);
        }
        self.signal(libc::SIGKILL, tidings);
    }

    /// Who is in the foreground, if it is somebody else than the leader's group.
    fn foreground(&self, line: &Line) -> Option<Pid> {
        foreground(&line.master).filter(|group| *group != self.pid)
    }

    fn signal_group(&self, signal: i32) {
        // A child that has not come to setsid yet is not in a group of its own.
        let alone = matches!(self.state, State::Starting { .. }).then_some(self.pid.as_raw());
        for target in [Some(-self.pid.as_raw()), alone].into_iter().flatten() {
            // SAFETY: kill(2) touches no memory, and the ids are unreaped, so they are this
            // command's. Errors (no such signal, nobody left, a process that has become another
            // user) need no answer.
            #[allow(unsafe_code)]
            unsafe {
                libc::kill(target, signal);
            }
        }
    }
}

/// What an event is about: the id of a command, and one bit for which of its two descriptors.
const SOCKET: u64 = 0;

fn report_token(id: u64) -> u64 {
    id << 1
}

fn pidfd_token(id: u64) -> u64 {
    id << 1 | 1
}

struct Spawner {
    socket: OwnedFd,
    epoll: Epoll,
    children: HashMap<u64, Child>,
    outbox: VecDeque<Outgoing>,
    /// Whether the socket is watched for room to write.
    congested: bool,
    limit: OpenFiles,
}

/// An answer on its way. The descriptors leave with its first byte.
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

impl Spawner {
    fn new(socket: OwnedFd, limit: OpenFiles) -> io::Result<Spawner> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, SOCKET))?;
        let children = HashMap::new();
        Ok(Spawner { socket, epoll, children, outbox: VecDeque::new(), congested: false, limit })
    }

    fn until_labshd_goes(&mut self) -> io::Result<()> {
        let mut inbox = Inbox::default();
        let mut chunk = vec![0; CHUNK];
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let ready = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                ready => ready?,
            };
            for event in &events[..ready] {
                match event.data() {
                    SOCKET if !self.receive(&mut inbox, &mut chunk)? => return Ok(()),
                    SOCKET => {}
                    token if token == report_token(token >> 1) => self.settle(token >> 1),
                    token => self.conclude(token >> 1),
                }
            }
            if !self.send()? {
                return Ok(());
            }
        }
    }

    /// Reads once and obeys what is whole; false when labshd has gone.
    fn receive(&mut self, inbox: &mut Inbox, chunk: &mut [u8]) -> io::Result<bool> {
        let read = match unistd::read(&self.socket, chunk) {
            Ok(0) | Err(Errno::ECONNRESET) => return Ok(false),
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            read => read?,
        };
        inbox.extend(&chunk[..read]);
        let (mut tidings, mut let_go) = (Tidings::default(), Vec::new());
        while let Some(envelope) = inbox.next().map_err(io::Error::other)? {
            match envelope.order().map_err(io::Error::other)? {
                Order::Spawn(request) => self.spawn(envelope.id, &request),
                Order::Signal(signal) => {
                    if let Some(child) = self.children.get(&envelope.id) {
                        child.signal(signal, &mut tidings);
                    }
                }
                Order::HangUp => {
                    if let Some(child) = self.children.get_mut(&envelope.id) {
                        child.hang_up(&mut tidings);
                    }
                }
                Order::Release => {
                    if let Some(child) = self.children.get_mut(&envelope.id) {
                        child.let_go(&mut tidings);
                        let_go.push(envelope.id);
                    }
                }
            }
        }
        tidings.tell();
        for id in let_go {
            self.part_with(id);
        }
        Ok(true)
    }

    fn spawn(&mut self, id: u64, request: &Request<'_>) {
        match self.start(id, request) {
            Ok(child) => drop(self.children.insert(id, child)),
            Err(failure) => self.answer(id, &Answer::Failed(failure), Vec::new()),
        }
    }

    fn start(&self, id: u64, request: &Request<'_>) -> Result<Child, Failure> {
        let (streams, ours, terminal) = match &request.terminal {
            None => {
                let large = self.children.len() < LARGE_PIPES;
                let (streams, ours) = open_pipes(large).map_err(|e| Stage::Pipes.failed(e))?;
                (streams, ours, None)
            }
            Some(wanted) => {
                let opened = open_terminal(wanted, request.identity.as_ref());
                let (master, slave) = opened.map_err(|e| Stage::Terminal.failed(e))?;
                let ours = master.try_clone().map_err(|e| Stage::Terminal.failed(errno(&e)))?;
                let line = Line { master, hung_up: false, foreground: None };
                (Streams::Terminal(slave), vec![ours], Some(line))
            }
        };
        let (report, report_writer) =
            pipe2(OFlag::O_CLOEXEC).map_err(|e| Stage::Pipes.failed(e))?;
        let ends = Ends { streams, report: report_writer };
        let since = Instant::now();
        // SAFETY: this process has one thread, so the copy finds no lock held and nothing half
        // done.
        #[allow(unsafe_code)]
        let forked = unsafe { fork() }.map_err(|e| Stage::Fork.failed(e))?;
        let pid = match forked {
            ForkResult::Child => child::run(request, &ends, self.limit),
            ForkResult::Parent { child } => child,
        };
        // Closed before the pidfd is opened: a process short of descriptors has four again.
        drop(ends);
        match self.watch(id, pid, &report) {
            Ok(pidfd) => {
                let state = State::Starting { report, ours, pidfd };
                Ok(Child { pid, since, state, released: false, terminal })
            }
            Err(errno) => {
                // Rare enough (the kernel's own tables are full), and the child young enough, to
                // wait for it.
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
                let _ = waitpid(pid, None);
                Err(Stage::Watch.failed(errno))
            }
        }
    }

    /// Edge-triggered: each of the two has one thing to say. While other children share a
    /// descriptor between their fork and their exec, a closed one would otherwise go on reporting.
    /// And a leader whose end a debugger sees first announces it twice.
    fn watch(&self, id: u64, pid: Pid, report: &OwnedFd) -> nix::Result<OwnedFd> {
        let pidfd = pidfd_open(pid)?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        self.epoll.add(report, EpollEvent::new(flags, report_token(id)))?;
        self.epoll.add(&pidfd, EpollEvent::new(flags, pidfd_token(id)))?;
        Ok(pidfd)
    }

    /// The report of a child has ended: it has become the command, or told why not.
    fn settle(&mut self, id: u64) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let (report, ours, pidfd) = match mem::replace(&mut child.state, State::Ended) {
            State::Starting { report, ours, pidfd } => (report, ours, pidfd),
            settled => {
                child.state = settled;
                return;
            }
        };
        child.state = State::Running { pidfd };
        let mut failure = [0; Failure::SIZE];
        let answer = match unistd::read(&report, &mut failure) {
            Ok(Failure::SIZE) => Failure::decode(failure).ok().map(Answer::Failed),
            _ => None,
        };
        let pid = child.pid.as_raw().unsigned_abs();
        let silent = child.released;
        child.released |= answer.is_some();
        match answer {
            _ if silent => {}
            Some(failed) => self.answer(id, &failed, Vec::new()),
            None => self.answer(id, &Answer::Spawned(pid), ours),
        }
    }

    /// A leader has ended, or its debugger has seen it end.
    fn conclude(&mut self, id: u64) {
        // Both descriptors of a short-lived command can be ready at once, in either order.
        self.settle(id);
        let Some(child) = self.children.get_mut(&id) else { return };
        let State::Running { pidfd } = &child.state else { return };
        let Ok(Some(ended)) = peek_end(pidfd, child.since) else { return };
        child.state = State::Ended;
        if !child.released {
            self.answer(id, &Answer::Ended(ended), Vec::new());
        }
        self.reap_if_over(id);
    }

    /// Everybody has been told by now, so the terminal may be hung up and the leader's number be
    /// somebody else's.
    fn part_with(&mut self, id: u64) {
        if let Some(child) = self.children.get_mut(&id) {
            child.terminal = None;
        }
        self.reap_if_over(id);
    }

    fn reap_if_over(&mut self, id: u64) {
        if let Some(Child { pid, state: State::Ended, released: true, .. }) = self.children.get(&id)
        {
            let _ = waitpid(*pid, None);
            self.children.remove(&id);
        }
    }

    fn answer(&mut self, id: u64, answer: &Answer, descriptors: Vec<OwnedFd>) {
        self.outbox.push_back(Outgoing { bytes: wire::answer(id, answer), sent: 0, descriptors });
    }

    /// Sends what the socket takes; false when labshd has gone.
    fn send(&mut self) -> io::Result<bool> {
        while let Some(outgoing) = self.outbox.front_mut() {
            match outgoing.send(&self.socket) {
                Ok(()) if outgoing.sent == outgoing.bytes.len() => drop(self.outbox.pop_front()),
                Ok(()) | Err(Errno::EINTR) => {}
                // Memory, or descriptors in flight, are short until labshd has read some more.
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::ETOOMANYREFS) => break,
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
        }
        let congested = !self.outbox.is_empty();
        if mem::replace(&mut self.congested, congested) != congested {
            let writable = if congested { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
            self.epoll.modify(
                &self.socket,
                &mut EpollEvent::new(EpollFlags::EPOLLIN | writable, SOCKET),
            )?;
        }
        Ok(true)
    }

    /// Ends the groups whose leader still runs. Leaders that had ended left their background on
    /// purpose.
    fn wind_down(&mut self) {
        let mut running: Vec<&mut Child> = self
            .children
            .values_mut()
            .filter(|child| !matches!(child.state, State::Ended))
            .collect();
        if running.is_empty() {
            return;
        }
        // Nobody is reaped meanwhile, and nobody is there to answer: all groups together take one
        // sleep.
        for (tell, grace) in LAST_WORDS {
            let mut tidings = Tidings::default();
            running.iter_mut().for_each(|child| tell(child, &mut tidings));
            tidings.tell();
            thread::sleep(grace);
        }
    }
}

impl Outgoing {
    fn send(&mut self, socket: &OwnedFd) -> nix::Result<()> {
        let numbers: Vec<_> = self.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = (!numbers.is_empty()).then_some(ControlMessage::ScmRights(&numbers));
        let bytes = [IoSlice::new(&self.bytes[self.sent..])];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        self.sent += sendmsg::<()>(socket.as_raw_fd(), &bytes, rights.as_slice(), flags, None)?;
        self.descriptors.clear();
        Ok(())
    }
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// The child's ends, and labshd's ends in the order stdin, stdout, stderr.
fn open_pipes(large: bool) -> nix::Result<(Streams, Vec<OwnedFd>)> {
    let (stdin, stdin_writer) = pipe2(OFlag::O_CLOEXEC)?;
    let (stdout_reader, stdout) = pipe2(OFlag::O_CLOEXEC)?;
    let (stderr_reader, stderr) = pipe2(OFlag::O_CLOEXEC)?;
    if large {
        // Refused once the user's share is used up; the default size works as well, only slower.
        let _ = fcntl(&stdout, FcntlArg::F_SETPIPE_SZ(LARGE_PIPE));
    }
    let ours = vec![stdin_writer, stdout_reader, stderr_reader];
    for end in &ours {
        fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    Ok((Streams::Pipes { stdin, stdout, stderr }, ours))
}

pub(super) fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: the call touches no memory.
    #[allow(unsafe_code)]
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: the descriptor is new, so nobody else owns it. Descriptors are ints, so nothing is
    // cut off.
    #[allow(unsafe_code)]
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// How the leader ended and what it used, without reaping it: waitid(2) as a raw call, whose fifth
/// argument the C library hides. `None` while it has not ended for us (a debugger's `wait` comes
/// first).
fn peek_end(pidfd: &OwnedFd, since: Instant) -> nix::Result<Option<Ended>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to writable memory of the types that the call fills in, and all
    // zeros are a valid value of either for when it does not. WNOWAIT leaves the process as it is.
    #[allow(unsafe_code)]
    let (result, info, usage) = unsafe {
        let result = libc::syscall(
            libc::SYS_waitid,
            libc::P_PIDFD,
            pidfd.as_fd().as_raw_fd(),
            info.as_mut_ptr(),
            libc::WEXITED | libc::WNOWAIT | libc::WNOHANG,
            usage.as_mut_ptr(),
        );
        (result, info.assume_init(), usage.assume_init())
    };
    Errno::result(result)?;
    // SAFETY: these fields are there in what waitid fills in, and zero in what it does not.
    #[allow(unsafe_code)]
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    // Codes and signals fit a byte: the kernel has cut them to size.
    let number = status as u8;
    let status = match info.si_code {
        libc::CLD_EXITED => Status::Exited(number),
        code => Status::Signaled { signal: number, core_dumped: code == libc::CLD_DUMPED },
    };
    let micros = |time: libc::timeval| (time.tv_sec as u64) * 1_000_000 + time.tv_usec as u64;
    let usage = Usage {
        wall: u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX),
        user: micros(usage.ru_utime),
        system: micros(usage.ru_stime),
        peak_memory: usage.ru_maxrss as u64 * 1024,
    };
    Ok(Some(Ended { status, usage }))
}
