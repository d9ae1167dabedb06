//! A login session of the test's own, with an agent that is started in it and ended with the test.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{LABSH_RSH, Labshd, PATIENCE, eventually, own_files, program, text};

/// A labshd, and a user whose runtime directory is the test's own.
pub struct Kept(pub Labshd);

impl Kept {
    pub fn start() -> Self {
        Self::of(Labshd::start())
    }

    pub fn of(labshd: Labshd) -> Self {
        let kept = Self(labshd);
        fs::create_dir(kept.runtime()).unwrap();
        fs::set_permissions(kept.runtime(), Permissions::from_mode(0o700)).unwrap();
        kept
    }

    /// With a connection that is kept.
    pub fn warm() -> Self {
        let kept = Self::start();
        kept.warm_up();
        kept
    }

    /// The login session's directory.
    pub fn runtime(&self) -> PathBuf {
        self.0.path().join("run")
    }

    /// `labsh` in the login session; what the default is depends on who runs the tests, a service
    /// for example.
    pub fn labsh(&self) -> Command {
        self.in_session(self.0.labsh())
    }

    pub fn in_session(&self, mut command: Command) -> Command {
        command.env("XDG_RUNTIME_DIR", self.runtime()).env("LABSH_KEEP", "5m");
        command
    }

    /// `labsh run TARGET …`, with these words behind it.
    pub fn run(&self, words: &[&str]) -> Command {
        self.in_session(self.0.run(words))
    }

    /// `labsh-rsh -p PORT …`, with these words behind it.
    pub fn rsh(&self, words: &[&str]) -> Command {
        let mut command = program(LABSH_RSH);
        own_files(&mut command, self.0.path());
        let mut command = self.in_session(command);
        command.arg("-p").arg(self.0.tls.port().to_string()).args(words);
        command
    }

    /// `labsh run TARGET …` to its end, with nothing on stdin.
    pub fn output(&self, words: &[&str]) -> Output {
        self.run(words).stdin(Stdio::null()).output().unwrap()
    }

    /// `labsh agent …` to its end.
    pub fn agent(&self, action: &str) -> Output {
        self.labsh().args(["agent", action]).stdin(Stdio::null()).output().unwrap()
    }

    pub fn list(&self) -> String {
        text(&self.agent("list").stdout)
    }

    /// Runs a command, and waits until a connection is kept.
    pub fn warm_up(&self) {
        let output = self.output(&["true"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        self.idle();
    }

    /// Waits until a connection is there to be lent.
    pub fn idle(&self) {
        eventually("a connection is kept", || self.list().contains(", idle for "));
    }

    /// Has this done until no connection was made for it; the agent may have been too slow on a
    /// busy machine. It must start one command each time.
    pub fn through_the_agent<T>(&self, done: impl Fn() -> T) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.idle();
            let (connections, commands) =
                (self.connections(), self.0.log().count("command started"));
            let result = done();
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

    /// How many connections the host has let in so far.
    pub fn connections(&self) -> usize {
        self.0.log().count("authenticated")
    }

    /// The agent that answers.
    pub fn pid(&self) -> Option<i32> {
        let said = text(&self.agent("status").stdout);
        said.strip_prefix("process ")?.split(',').next()?.parse().ok()
    }

    /// Every agent of this login session, whether it answers or not.
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

impl Drop for Kept {
    fn drop(&mut self) {
        for agent in self.agents() {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(agent), Signal::SIGKILL);
        }
    }
}
