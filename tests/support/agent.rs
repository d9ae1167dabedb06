//! A login session of the test's own, with an agent that is started in it and ended with the test.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{LABSH_RSH, Labshd, TEST_TIMEOUT, eventually, own_files, program, text};

/// A labshd, and a login session with a runtime directory of its own, in which an agent can run.
pub struct Login(pub Labshd);

impl Login {
    pub fn start() -> Self {
        Self::of(Labshd::start())
    }

    pub fn of(labshd: Labshd) -> Self {
        let login = Self(labshd);
        fs::create_dir(login.runtime()).unwrap();
        fs::set_permissions(login.runtime(), Permissions::from_mode(0o700)).unwrap();
        login
    }

    /// With a connection in the agent's pool.
    pub fn warm() -> Self {
        let login = Self::start();
        login.warm_up();
        login
    }

    /// The login session's directory.
    pub fn runtime(&self) -> PathBuf {
        self.0.path().join("run")
    }

    /// `labsh` in the login session, with the agent enabled: the default differs in a service.
    pub fn labsh(&self) -> Command {
        self.in_session(self.0.labsh())
    }

    /// Has a command run in the login session, with the agent enabled.
    pub fn in_session(&self, mut command: Command) -> Command {
        command.env("XDG_RUNTIME_DIR", self.runtime()).env("LABSH_KEEP", "5m");
        command
    }

    /// `labsh run TARGET WORDS…`.
    pub fn run(&self, words: &[&str]) -> Command {
        self.in_session(self.0.run(words))
    }

    /// `labsh-rsh -p PORT WORDS…`.
    pub fn rsh(&self, words: &[&str]) -> Command {
        let mut command = program(LABSH_RSH);
        own_files(&mut command, self.0.path());
        let mut command = self.in_session(command);
        command.arg("-p").arg(self.0.tls.port().to_string()).args(words);
        command
    }

    /// Runs `labsh run TARGET WORDS…` to its end, with empty stdin.
    pub fn output(&self, words: &[&str]) -> Output {
        self.run(words).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs `labsh agent ACTION` to its end.
    pub fn agent(&self, action: &str) -> Output {
        self.labsh().args(["agent", action]).stdin(Stdio::null()).output().unwrap()
    }

    pub fn list(&self) -> String {
        text(&self.agent("list").stdout)
    }

    /// Runs a command, and waits until its agent has a connection open.
    pub fn warm_up(&self) {
        let output = self.output(&["true"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        self.idle();
    }

    /// Waits until a connection in the pool is idle.
    pub fn idle(&self) {
        eventually("a connection is idle", || self.list().contains(", idle for "));
    }

    /// Repeats an action that starts one command until it made no connection of its own: on a busy
    /// machine the agent may answer too late.
    pub fn through_the_agent<T>(&self, action: impl Fn() -> T) -> T {
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            self.idle();
            let (connections, commands) =
                (self.connections(), self.0.log().count("command started"));
            let result = action();
            self.0.log().wait_for_nth("command started", commands + 1);
            if self.connections() == connections {
                return result;
            }
            assert!(
                Instant::now() < deadline,
                "always a connection of its own:\n{}",
                self.0.log().text()
            );
        }
    }

    /// How many connections have authenticated so far.
    pub fn connections(&self) -> usize {
        self.0.log().count("authenticated")
    }

    /// The process id of the agent that answers.
    pub fn pid(&self) -> Option<i32> {
        let stdout = text(&self.agent("status").stdout);
        stdout.strip_prefix("process ")?.split(',').next()?.parse().ok()
    }

    /// The process ids of all agents of this login session, whether they answer or not.
    pub fn agents(&self) -> Vec<i32> {
        let ours = format!("XDG_RUNTIME_DIR={}", self.runtime().display());
        let processes = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let holds = |pid: i32, file: &str, word: &str| {
            let words = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            words.split(|byte| *byte == 0).any(|found| found == word.as_bytes())
        };
        let is_agent = |pid: &i32| holds(*pid, "cmdline", "serve") && holds(*pid, "environ", &ours);
        processes.filter_map(|name| name.parse().ok()).filter(is_agent).collect()
    }

    pub fn socket(&self) -> PathBuf {
        self.runtime().join("labsh/agent.sock")
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        for agent in self.agents() {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(agent), Signal::SIGKILL);
        }
    }
}
