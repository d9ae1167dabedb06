//! Commands with a terminal, seen from its master side: changes with what a terminal session may
//! count on.

use std::os::fd::AsFd;

use labsh_proto::message::Status;
use labsh_server::spawner::{Identity, Terminal, WindowSize};
use nix::libc::{SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGWINCH};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{self, Pid};

use super::*;

/// A terminal session and what it has written that was not asked for yet.
struct Line {
    spawned: Spawned,
    written: String,
}

impl Line {
    fn start(world: &World, spawner: &Spawner, request: SpawnRequest) -> Line {
        let terminal = request.terminal.unwrap_or_default();
        let request = SpawnRequest { terminal: Some(terminal), ..request };
        Line { spawned: world.run(spawner.spawn(request)).unwrap(), written: String::new() }
    }

    fn master(&self) -> impl AsFd + '_ {
        match &self.spawned.streams {
            Streams::Terminal(master) => master,
            Streams::Pipes { .. } => panic!("a terminal was asked for"),
        }
    }

    /// The next line that the session writes, without its end.
    fn line(&mut self) -> String {
        let start = Instant::now();
        loop {
            if let Some((line, rest)) = self.written.split_once("\r\n") {
                let line = line.to_owned();
                self.written = rest.to_owned();
                return line;
            }
            let mut bytes = [0; 4096];
            match unistd::read(self.master(), &mut bytes) {
                Ok(count) if count > 0 => {
                    self.written += std::str::from_utf8(&bytes[..count]).unwrap()
                }
                Err(nix::errno::Errno::EAGAIN) => std::thread::sleep(Duration::from_millis(2)),
                other => panic!("{other:?} behind {:?}", self.written),
            }
            assert!(start.elapsed() < Duration::from_secs(60), "no line behind {:?}", self.written);
        }
    }
}

fn on_terminal(world: &World, script: &str) -> Line {
    Line::start(world, &world.spawner, words(&["bash", "-c", script]))
}

pub(crate) fn it_is_the_controlling_terminal_and_nothing_else_is_open(world: &World) {
    let script =
        "tty; echo $LABSH_TTY; cut -d ' ' -f 6 /proc/$$/stat; readlink /dev/fd/{0..9}; echo .";
    let mut line = on_terminal(world, script);
    let path = line.line();
    assert!(path.starts_with("/dev/pts/"), "{path}");
    assert_eq!(line.line(), path);
    let pid = line.spawned.pid;
    assert_eq!(line.line().split(' ').next(), Some(pid.to_string().as_str()));
    assert_eq!([line.line(), line.line(), line.line()], [path.as_str(); 3]);
    let rest = line.line();
    // readlink's own, of the directory that it looks into, where the shell gave it one.
    assert!(rest == "." || rest.starts_with("/proc/"), "{rest}");
    let ended = world.run(line.spawned.process.ended()).unwrap();
    assert_eq!(ended.status, Status::Exited(0));
}

pub(crate) fn it_has_its_size_from_the_beginning(world: &World) {
    for (columns, rows) in [(132, 43), (0, 0), (u16::MAX, u16::MAX)] {
        let size = WindowSize { columns, rows, width: u16::MAX, height: 1 };
        let request = SpawnRequest {
            terminal: Some(Terminal { size, group: None }),
            ..words(&["stty", "size"])
        };
        let mut line = Line::start(world, &world.spawner, request);
        assert_eq!(line.line(), format!("{rows} {columns}"));
    }
}

pub(crate) fn it_belongs_to_the_user(world: &World) {
    if !is_root() {
        return;
    }
    let nobody = Identity { uid: 65534, gid: 65534, groups: vec![65534] };
    for (group, expected) in [(Some(5), "65534 5 620"), (None, "65534 65534 600")] {
        let terminal = Some(Terminal { group, ..Terminal::default() });
        let script =
            "stat -L -c '%u %g %a' /dev/fd/0; echo >/dev/tty; echo >$LABSH_TTY && echo written";
        let request = SpawnRequest { terminal, identity: Some(nobody.clone()), ..sh(script) };
        let mut line = Line::start(world, &world.spawner, request);
        assert_eq!(
            [line.line(), line.line(), line.line(), line.line()],
            [expected, "", "", "written"]
        );
    }
}

/// What an interactive shell does, its jobs in groups of their own: one in the background, another
/// there that ignores a hang-up, and one in the foreground, which begins with this.
fn jobs(foreground: &str) -> String {
    format!(
        "set -m; bash -c 'echo background $$; exec sleep 1000' & \
         bash -c 'trap \"\" HUP; echo stubborn $$; exec sleep 1000' & \
         bash -c '{foreground}; echo foreground $$; sleep 1000; sleep 1000'"
    )
}

/// The leader and its three jobs.
struct Jobs {
    leader: u32,
    background: u32,
    stubborn: u32,
    foreground: u32,
}

impl Jobs {
    /// All of them run.
    fn of(line: &mut Line) -> Jobs {
        let lines = [line.line(), line.line(), line.line()];
        let named = |name: &str| {
            let pid = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            pid.unwrap_or_else(|| panic!("{name} in {lines:?}")).parse().unwrap()
        };
        let jobs = Jobs {
            leader: line.spawned.pid,
            background: named("background"),
            stubborn: named("stubborn"),
            foreground: named("foreground"),
        };
        let group = |pid| stat(pid).unwrap()[2].clone();
        for job in [jobs.background, jobs.stubborn, jobs.foreground] {
            assert_eq!(group(job), job.to_string(), "each is in a group of its own");
        }
        assert_eq!(stat(jobs.leader).unwrap()[5], jobs.foreground.to_string());
        // A signal that bash has caught, and not acted upon before it executes another program, is
        // lost.
        for job in [jobs.background, jobs.stubborn] {
            eventually("bash has become sleep", || {
                fs::read_to_string(format!("/proc/{job}/comm")).unwrap() == "sleep\n"
            });
        }
        jobs
    }
}

impl Drop for Jobs {
    /// Who stays, as was promised, is ended with the test.
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.stubborn.cast_signed()), Signal::SIGKILL);
    }
}

pub(crate) fn a_signal_goes_to_the_foreground(world: &World) {
    let mut line = on_terminal(world, &jobs("trap : TERM"));
    let jobs = Jobs::of(&mut line);
    line.spawned.process.signal(SIGINT);
    eventually("the foreground is ended", || !is_alive(jobs.foreground));
    assert!(is_alive(jobs.background) && is_alive(jobs.stubborn));
    // Its leader ends by itself now, so nobody tells the background anything; it is not to outlive
    // the test.
    let _ = kill(Pid::from_raw(jobs.background.cast_signed()), Signal::SIGKILL);
}

pub(crate) fn a_flood_of_signals_hits_nobody_else_and_the_last_one_arrives(world: &World) {
    let mut lines = [(); 2].map(|()| on_terminal(world, &jobs("trap : TERM")));
    let [spared, ended] = lines.each_mut().map(Jobs::of);
    let [one, other] = lines.each_ref().map(|line| &line.spawned.process);
    for _ in 0..1000 {
        for signal in [SIGCONT, SIGWINCH] {
            one.signal(signal);
            other.signal(signal);
        }
    }
    other.signal(SIGINT);
    eventually("one foreground is ended", || !is_alive(ended.foreground));
    // Another command's whole life has gone through the spawner since.
    world.output(words(&["true"]));
    assert!(is_alive(spared.foreground));
    for left in [ended.background, spared.background, spared.stubborn, ended.stubborn] {
        assert!(is_alive(left));
        let _ = kill(Pid::from_raw(left.cast_signed()), Signal::SIGKILL);
    }
}

pub(crate) fn many_sessions_are_told_together(world: &World) {
    let mut lines = [(); 5].map(|()| on_terminal(world, &jobs("trap \"\" HUP TERM")));
    let jobs = lines.each_mut().map(Jobs::of);
    drop(lines);
    eventually("leaders and jobs are gone", || {
        jobs.iter().all(|jobs| {
            ![jobs.background, jobs.foreground].into_iter().any(is_alive)
                && stat(jobs.leader).is_none()
        })
    });
    assert!(jobs.iter().all(|jobs| is_alive(jobs.stubborn)));
}

pub(crate) fn a_hang_up_reaches_every_group_of_the_session(world: &World) {
    let mut line = on_terminal(world, &jobs(":"));
    let jobs = Jobs::of(&mut line);
    line.spawned.process.hang_up();
    eventually("who listens is gone", || {
        ![jobs.leader, jobs.background, jobs.foreground].into_iter().any(is_alive)
    });
    let ended = world.run(line.spawned.process.ended()).unwrap();
    assert_eq!(ended.status, Status::Signaled { signal: SIGHUP as u8, core_dumped: false });
    assert!(is_alive(jobs.stubborn));
}

pub(crate) fn firmer_signals_spare_what_was_put_in_the_background(world: &World) {
    let mut line = on_terminal(world, &format!("trap \"\" TERM; {}", jobs("trap \"\" HUP TERM")));
    let jobs = Jobs::of(&mut line);
    line.spawned.process.hang_up();
    eventually("the leader is gone", || !is_alive(jobs.leader));
    for signal in [SIGTERM, SIGCONT] {
        line.spawned.process.signal(signal);
    }
    // Another command's whole life has gone through the spawner since.
    world.output(words(&["true"]));
    assert!(is_alive(jobs.foreground), "it ignores that too");
    line.spawned.process.signal(SIGKILL);
    eventually("the foreground is gone", || !is_alive(jobs.foreground));
    assert!(is_alive(jobs.stubborn), "it was in the background");
    eventually("the background that did not ignore the hang-up is gone", || {
        !is_alive(jobs.background)
    });
}

pub(crate) fn dropping_a_process_ends_its_session(world: &World) {
    let mut line = on_terminal(world, &jobs("trap \"\" HUP TERM"));
    let jobs = Jobs::of(&mut line);
    drop(line);
    eventually("leader and jobs are gone", || {
        ![jobs.background, jobs.foreground].into_iter().any(is_alive) && stat(jobs.leader).is_none()
    });
    assert!(is_alive(jobs.stubborn));
}

pub(crate) fn sessions_end_with_labshd(world: &World) {
    // A runtime that is shut down closes the socket as a killed labshd does: without a word.
    let runtime = Runtime::new().unwrap();
    let process = world.mortal.borrow_mut().pop().unwrap();
    let spawner = runtime.block_on(async { Spawner::attach(process) }).unwrap();
    let request = words(&["bash", "-c", &jobs("trap \"\" HUP TERM")]);
    let mut line = Line::start(world, &spawner, request);
    let jobs = Jobs::of(&mut line);
    runtime.shutdown_background();
    eventually("leader and jobs are gone", || {
        ![jobs.leader, jobs.background, jobs.foreground].into_iter().any(is_alive)
    });
    assert!(is_alive(jobs.stubborn));
}
