//! A terminal as a user has it: a shell with job control in a tmux of its own, into which keys are
//! typed and whose screen is read back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{LABSH, Labshd, TEST_TIMEOUT, program, temp_dir, text, tools};

/// The prompt of the local shell.
const LOCAL_PROMPT: &str = "local>";

/// A script that runs a command, and prints its status and whether it left the terminal unchanged:
/// its modes, and the flags of the shared open file description (O_NONBLOCK among them).
const CHECKED: &str = "#!/bin/sh
state() { stty -g; grep flags /proc/self/fdinfo/0; }
state >\"$0.before\"
\"$@\"
echo \"status $?\"
state >\"$0.after\"
cmp \"$0.before\" \"$0.after\" && echo 'the terminal is as before'
";

/// A tmux with one pane, ended when this is dropped.
pub struct Screen {
    socket: PathBuf,
    _dir: TempDir,
}

impl Screen {
    /// Starts a shell in a window of 80 by 24, with labsh and `checked` in PATH, `$T` as the
    /// target, and further lines of setup. None if there is no tmux.
    pub fn start(labshd: &Labshd, more: &str) -> Option<Self> {
        let tmux = tools::need("tmux", "apt-get install tmux")?;
        let path = labshd.path();
        let bin = Path::new(LABSH).parent().unwrap().display();
        let rc = format!(
            "PS1='{LOCAL_PROMPT} '; HISTFILE=; T={}; export LABSH_KEEP=off XDG_CONFIG_HOME={}; \
             PATH='{bin}':{}:$PATH\n\
             unset TMUX LABSH_KEY; cd {2}\n{more}\n",
            labshd.target(),
            path.join("config").display(),
            path.display(),
        );
        fs::write(path.join("bashrc"), rc).unwrap();
        let conf =
            "set -g status off\nset -s escape-time 0\nset -g default-terminal screen-256color\n";
        fs::write(path.join("tmux.conf"), conf).unwrap();
        let checked = path.join("checked");
        fs::write(&checked, CHECKED).unwrap();
        super::run(program("chmod").arg("+x").arg(&checked));

        let dir = temp_dir();
        let socket = dir.path().join("socket");
        let mut tmux = program(tmux);
        tmux.arg("-u").arg("-S").arg(&socket).arg("-f").arg(path.join("tmux.conf"));
        tmux.args(["new-session", "-d", "-x", "80", "-y", "24", "bash", "--rcfile"])
            .arg(path.join("bashrc"));
        tmux.stdin(Stdio::null());
        let started = tmux.output().unwrap();
        assert!(started.status.success(), "{}", text(&started.stderr));
        let screen = Self { socket, _dir: dir };
        screen.wait_for_prompt(LOCAL_PROMPT);
        Some(screen)
    }

    fn tmux(&self, words: &[&str]) -> String {
        let output = program("tmux").arg("-S").arg(&self.socket).args(words).output().unwrap();
        assert!(output.status.success(), "tmux {words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Types text.
    pub fn keys(&self, keys: &str) {
        self.tmux(&["send-keys", "-l", "--", keys]);
    }

    /// Presses a key by tmux's name for it: `Enter`, `C-c`, `Escape`, …
    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Types a line and Enter.
    pub fn line(&self, line: &str) {
        self.keys(line);
        self.press("Enter");
    }

    /// The text on the screen.
    pub fn shown(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen meets a condition, and returns its text.
    pub fn wait_until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            let shown = self.shown();
            if holds(&shown) {
                return shown;
            }
            assert!(Instant::now() < deadline, "{what} was never shown; this was:\n{shown}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the screen shows this text.
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_until(&format!("{text:?}"), |shown| shown.contains(text))
    }

    /// Waits until a line of the screen is this, apart from surrounding blanks.
    pub fn wait_for_line(&self, line: &str) -> String {
        self.wait_until(&format!("the line {line:?}"), |shown| {
            shown.lines().any(|shown| shown.trim() == line)
        })
    }

    /// Waits until the last line of the screen is this prompt: the program has then read everything
    /// typed before.
    pub fn wait_for_prompt(&self, prompt: &str) -> String {
        self.wait_until(&format!("the prompt {prompt:?}"), |shown| {
            shown.trim_end().lines().last().is_some_and(|line| line.trim_end() == prompt)
        })
    }

    /// Changes the size of the window.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// The process id of the shell.
    pub fn shell(&self) -> i32 {
        self.tmux(&["display-message", "-p", "#{pane_pid}"]).trim().parse().unwrap()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = program("tmux").arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}
