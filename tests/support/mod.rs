//! Starts a labshd in a process of its own, enrols keys and runs commands. Nothing here relies on
//! sleeping: tests wait for a line in the log, a process that ends, or bytes that arrive.

pub mod agent;
pub mod browser;
pub mod dead_mount;
pub mod fleet;
pub mod help;
pub mod json_schema;
pub mod markdown;
pub mod screen;
pub mod tools;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, Once};
use std::time::{Duration, Instant};

use labsh_client::{Address, ConnectOptions, Session};
use labsh_proto::auth::Mode;
use labsh_proto::key::{HostId, HostKey, Key};
use nix::sys::signal::Signal;
use nix::sys::stat::{self, Mode as FileMode};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// How long tests wait for anything before they fail. No outcome depends on it.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(60);

pub const LABSH: &str = env!("CARGO_BIN_EXE_labsh");
pub const LABSH_RSH: &str = env!("CARGO_BIN_EXE_labsh-rsh");
pub const LABSHD: &str = env!("CARGO_BIN_EXE_labshd");

/// The host id under which the test key is enrolled for TCP targets.
pub const HOST: &str = "127.0.0.1";

/// A command that runs this program in the environment of the tests, with no signal ignored.
pub fn program(path: impl AsRef<OsStr>) -> Command {
    set_defaults();
    tools::program(path)
}

/// Gives this process the umask and the signals that tests expect, whatever it was started with.
fn set_defaults() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        stat::umask(FileMode::from_bits_truncate(0o022));
        // In a thread of its own, as a runtime must not end inside another, which async tests have.
        std::thread::spawn(catch_ignored_signals).join().unwrap();
    });
}

/// Catches the signals that this process ignores, as a script's background job does: programs would
/// inherit that, but execve(2) gives a signal that was caught its default action.
fn catch_ignored_signals() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    // The handlers stay when the runtime has gone.
    let _entered = runtime.enter();
    for number in [1, 2, 3, 15].into_iter().filter(|number| ignored & (1 << (number - 1)) != 0) {
        drop(signal(SignalKind::from_raw(number)).unwrap());
    }
}

/// A running labshd with a TLS port, a plain port and a unix socket, and a client with an enrolled
/// key.
pub struct Labshd {
    pub child: Child,
    pub dir: TempDir,
    pub tls: SocketAddr,
    pub plain: SocketAddr,
    pub key: Key,
    log: Log,
}

/// The lines that labshd has logged so far.
#[derive(Clone, Default)]
pub struct Log(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Log {
    fn follow(&self, stderr: impl std::io::Read + Send + 'static) {
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                log.0.0.lock().unwrap().push(line);
                log.0.1.notify_all();
            }
        });
    }

    /// Waits for a line with this text, and returns it.
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_for_nth(text, 1)
    }

    /// Waits for the nth line with this text, and returns it.
    pub fn wait_for_nth(&self, text: &str, count: usize) -> String {
        let deadline = Instant::now() + TEST_TIMEOUT;
        let mut lines = self.0.0.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().filter(|line| line.contains(text)).nth(count - 1) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "no {text:?} (number {count}) in the log:\n{}",
                lines.join("\n")
            );
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    pub fn count(&self, text: &str) -> usize {
        self.0.0.lock().unwrap().iter().filter(|line| line.contains(text)).count()
    }

    pub fn text(&self) -> String {
        self.0.0.lock().unwrap().join("\n")
    }
}

impl Labshd {
    pub fn start() -> Self {
        Self::with("")
    }

    /// With more lines in its configuration.
    pub fn with(more: &str) -> Self {
        Self::launch(more, |_| {})
    }

    /// With more lines in its configuration and changes to how it is started.
    pub fn launch(more: &str, change: impl FnOnce(&mut Command)) -> Self {
        let dir = temp_dir();
        let path = dir.path();
        fs::write(path.join("labshd.toml"), configuration(path, more)).unwrap();
        run(labsh_in(path).args(["key", "new", "test"]));
        for host in [HOST, "localhost"] {
            enroll(path, "test", host);
        }
        let key =
            Key::from_line(&fs::read_to_string(path.join("config/labsh/keys/test.key")).unwrap())
                .unwrap();

        let mut command = program(LABSHD);
        command.arg("--config").arg(path.join("labshd.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let log = Log::default();
        log.follow(child.stderr.take().unwrap());
        log.wait_for("labshd is ready");
        let bound = |count| -> SocketAddr {
            let line = log.wait_for_nth("listening address=127.0.0.1:", count);
            line.split("address=")
                .nth(1)
                .unwrap()
                .split_whitespace()
                .next()
                .unwrap()
                .parse()
                .unwrap()
        };
        let (tls, plain) = (bound(1), bound(2));
        Self { child, dir, tls, plain, key, log }
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn unix_path(&self) -> PathBuf {
        self.path().join("socket")
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The target of the TLS port.
    pub fn target(&self) -> String {
        self.tls.to_string()
    }

    /// `labsh` with the enrolled key.
    pub fn labsh(&self) -> Command {
        labsh_in(self.path())
    }

    /// `labsh run TARGET WORDS…`.
    pub fn run(&self, words: &[&str]) -> Command {
        let mut command = self.labsh();
        command.arg("run").arg(self.target()).args(words);
        command
    }

    /// Runs `labsh run TARGET WORDS…` to its end, with empty stdin.
    pub fn output(&self, words: &[&str]) -> Output {
        self.run(words).stdin(Stdio::null()).output().unwrap()
    }

    /// The test key as the host knows it.
    pub fn host_key(&self) -> HostKey {
        self.key.for_host(&HostId::new(HOST).unwrap())
    }

    /// Makes and enrols another key, and returns it as the host knows it.
    pub fn another_key(&self, name: &str) -> HostKey {
        // Elsewhere, as `labsh` asks which key to use where there are several.
        let files = self.path().join(name);
        run(labsh_in(&files).args(["key", "new", name]));
        enroll_from(&files, self.path(), name, HOST);
        self.reload();
        let file = files.join(format!("config/labsh/keys/{name}.key"));
        let key = Key::from_line(&fs::read_to_string(file).unwrap()).unwrap();
        key.for_host(&HostId::new(HOST).unwrap())
    }

    /// For the client library, over TLS.
    pub fn options(&self) -> ConnectOptions {
        let address = Address::Tcp { host: self.tls.ip().to_string(), port: self.tls.port() };
        ConnectOptions::new(address, self.host_key())
    }

    /// For the client library, in plain mode over TCP.
    pub fn plain_options(&self) -> ConnectOptions {
        let address = Address::Tcp { host: self.plain.ip().to_string(), port: self.plain.port() };
        ConnectOptions { mode: Mode::Plain, ..ConnectOptions::new(address, self.host_key()) }
    }

    pub async fn session(&self) -> Session {
        Session::connect(&self.options()).await.unwrap()
    }

    /// Makes and enrols another key.
    pub fn add_key(&self, key: &str) {
        run(self.labsh().args(["key", "new", key]));
        enroll(self.path(), key, HOST);
        self.reload();
    }

    /// Sends a signal to labshd itself.
    pub fn signal(&self, signal: i32) {
        kill(self.pid(), signal);
    }

    /// Reads configuration and keys again, and waits until that is done (or refused).
    pub fn reload(&self) {
        let before = self.log.count("reloaded");
        self.signal(1);
        self.log.wait_for_nth("reloaded", before + 1);
    }

    /// Replaces the configuration file, which takes effect with [`Labshd::reload`].
    pub fn configure(&self, more: &str) {
        fs::write(self.path().join("labshd.toml"), configuration(self.path(), more)).unwrap();
    }

    /// Waits until labshd has ended, and returns its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Labshd {
    fn drop(&mut self) {
        // It may have ended already. Its spawner ends commands that still run.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(path: &Path, more: &str) -> String {
    let socket = path.join("socket");
    format!(
        "{more}\nlisten = ['127.0.0.1:0', 'plain://127.0.0.1:0', 'unix:{}']\n",
        socket.display()
    )
}

/// Has a program use labsh's files in this directory, and start no agent.
pub fn own_files(command: &mut Command, path: &Path) {
    command.env("XDG_CONFIG_HOME", path.join("config")).env("XDG_STATE_HOME", path.join("state"));
    command.env("LABSH_KEEP", "off");
}

/// `labsh` with its files in this directory, without an agent.
pub fn labsh_in(path: &Path) -> Command {
    let mut command = program(LABSH);
    own_files(&mut command, path);
    command
}

/// Enrols a key of [`labsh_in`] for a host id on the labshd whose files are in this directory.
pub fn enroll(path: &Path, key: &str, host: &str) {
    enroll_from(path, path, key, host);
}

/// Enrols a key of [`labsh_in`] `files` on the labshd whose files are in `path`.
fn enroll_from(files: &Path, path: &Path, key: &str, host: &str) {
    let line = run(labsh_in(files).args(["key", "enroll", key, "--host", host])).stdout;
    let mut add = program(LABSHD);
    add.arg("--config").arg(path.join("labshd.toml")).args(["key", "add"]);
    if am_root() {
        add.args(["--user", "root"]);
    }
    feed(&mut add, &line);
}

/// A line with which any login shell prints the name it was started under, in brackets; fish has no
/// `$0`.
pub const OWN_SHELL: &str = r#"sh -c 'echo "[$(tr "\0" "\n" </proc/$PPID/cmdline | head -n 1)]"'"#;

/// The words that run a script with sh(1); a single word would be run by the user's login shell.
pub fn sh(script: &str) -> [&str; 3] {
    ["sh", "-c", script]
}

/// A script that an interrupt ends at any time after `ready`: by then its shell waits for the
/// process that printed it. A shell can miss an interrupt that arrives while it forks.
pub const INTERRUPTIBLE: &str = "sh -c 'echo ready; exec sleep 300'; echo not reached";

/// The same with the client library.
pub fn sh_on(session: &Session, script: &str) -> labsh_client::Command {
    let [sh, words @ ..] = sh(script);
    let mut command = session.command(sh);
    command.args(words);
    command
}

/// A temporary directory, removed when it is dropped.
pub fn temp_dir() -> TempDir {
    set_defaults();
    tempfile::Builder::new().prefix("labsh-test-").tempdir_in(tools::temp_root()).unwrap()
}

pub fn am_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    output
}

/// Runs a command that must succeed, with this on its stdin.
pub fn feed(command: &mut Command, input: &[u8]) -> Output {
    let output = pipe_through(command, input);
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    output
}

/// Runs a command with this on its stdin, however it ends.
pub fn pipe_through(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // The command may end before it has read everything.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    })
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Sends a signal to one process that this test started.
pub fn kill(pid: i32, signal: i32) {
    let sent = nix::sys::signal::kill(Pid::from_raw(pid), Signal::try_from(signal).unwrap());
    assert_eq!(sent, Ok(()), "kill -{signal} {pid}");
}

/// Stops a process, and waits until each of its threads is stopped.
pub fn stop(pid: i32) {
    kill(pid, 19);
    let is_stopped = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|state| state.starts_with('T'))
    };
    eventually("it is stopped", || {
        fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(|task| is_stopped(task.unwrap()))
    });
}

/// Waits until a condition holds, for changes of which the kernel sends no notice.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process exists and is not a zombie.
pub fn is_alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the name, which is in parentheses and may contain anything.
    !stat.rsplit(") ").next().unwrap_or_default().starts_with('Z')
}

impl Labshd {
    /// `labsh run OPTIONS… TARGET WORDS…`.
    pub fn run_with(&self, options: &[&str], words: &[&str]) -> Command {
        let mut command = self.labsh();
        command.arg("run").args(options).arg(self.target()).args(words);
        command
    }

    /// Runs the same to its end, with empty stdin.
    pub fn output_with(&self, options: &[&str], words: &[&str]) -> Output {
        self.run_with(options, words).stdin(Stdio::null()).output().unwrap()
    }

    /// Waits for the nth command to start, and returns its process id.
    pub fn command_pid(&self, count: usize) -> i32 {
        let line = self.log.wait_for_nth("command started", count);
        line.split(" pid=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    }

    /// The path of a file in the directory of labshd's files.
    pub fn file(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }
}

/// A process with piped stdout and stderr, killed when it is dropped.
pub struct Running {
    pub child: Child,
    stdout: Option<BufReader<std::process::ChildStdout>>,
    stderr: Option<BufReader<std::process::ChildStderr>>,
}

impl Running {
    /// Starts it with empty stdin.
    pub fn start(command: &mut Command) -> Self {
        Self::adopt(command.stdin(Stdio::null()))
    }

    /// Starts it with the command's own stdin.
    pub fn adopt(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().map(BufReader::new);
        let stderr = child.stderr.take().map(BufReader::new);
        Self { child, stdout, stderr }
    }

    /// The next line of stdout, without its newline.
    pub fn line(&mut self) -> String {
        line(self.stdout.as_mut().unwrap())
    }

    /// The next line of stderr, without its newline.
    pub fn error_line(&mut self) -> String {
        line(self.stderr.as_mut().unwrap())
    }

    /// The next line of stderr, without its newline; none at its end.
    pub fn next_error_line(&mut self) -> Option<String> {
        self.stderr.as_mut().unwrap().lines().next().map(Result::unwrap)
    }

    /// The next line of stdout, which is a process id.
    pub fn pid_line(&mut self) -> i32 {
        self.line().parse().unwrap()
    }

    pub fn signal(&self, signal: i32) {
        kill(self.child.id() as i32, signal);
    }

    /// The rest of both outputs, and the exit status.
    pub fn finish(mut self) -> Output {
        let (mut stdout, mut stderr) = (self.stdout.take().unwrap(), self.stderr.take().unwrap());
        drop(self.child.stdin.take());
        let errors = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut stderr, &mut bytes).unwrap();
            bytes
        });
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut stdout, &mut bytes).unwrap();
        Output { status: self.child.wait().unwrap(), stdout: bytes, stderr: errors.join().unwrap() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    assert!(line.ends_with('\n'), "the output ended at {line:?}");
    line.pop();
    line
}

/// A bash script in which `"$@"` is this command.
pub fn in_shell(script: &str, command: &Command) -> Command {
    let mut shell = program("bash");
    shell.arg("-c").arg(script).arg("bash");
    under(shell, command)
}

/// A program that starts this command: the command's words follow its own, and the environment is
/// the command's.
pub fn under(mut starter: Command, command: &Command) -> Command {
    starter.arg(command.get_program()).args(command.get_args());
    starter.env_clear();
    starter.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    starter
}

/// A process that a command left behind on purpose, killed when this is dropped.
pub struct Background(pub i32);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(Pid::from_raw(self.0), Signal::SIGKILL);
    }
}

/// The stdout of a command, which must succeed, without trailing blanks.
pub fn stdout_of(name: &str, words: &[&str]) -> String {
    text(&run(program(name).args(words)).stdout).trim_end().to_owned()
}

/// A field of the current user's line in passwd(5), counted from 0.
pub fn own_account(field: usize) -> String {
    stdout_of("getent", &["passwd", &stdout_of("id", &["-u"])])
        .split(':')
        .nth(field)
        .unwrap()
        .to_owned()
}

/// The child processes of a process, zombies included.
pub fn children(pid: i32) -> Vec<i32> {
    let parent = |stat: String| stat.rsplit(") ").next()?.split(' ').nth(1)?.parse::<i32>().ok();
    let processes = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let numbers = processes.filter_map(|name| name.parse::<i32>().ok());
    numbers
        .filter(|child| {
            fs::read_to_string(format!("/proc/{child}/stat")).ok().and_then(parent) == Some(pid)
        })
        .collect()
}

/// The resident memory of a process (VmRSS), in bytes.
pub fn memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// The processor time that a process has used, in hundredths of a second.
pub fn processor_time(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    [11, 12].into_iter().map(|field| fields[field].parse::<u64>().unwrap()).sum()
}

/// The bytes that a process has read so far, from any file.
pub fn bytes_read(pid: i32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    io.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Waits until a value has not changed for a while, and returns it.
pub fn settled(what: &str, mut value: impl FnMut() -> u64) -> u64 {
    let (mut last, mut same) = (value(), 0);
    eventually(&format!("{what} does not change"), || {
        let now = value();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same == 40
    });
    last
}
