//! Commands with a terminal, observed from its master side: signals, hang-ups and job control.

use std::os::fd::AsFd;

use labsh_proto::message::Status;
use labsh_server::spawner::{Identity, Terminal, WindowSize};
use nix::libc::{SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGWINCH};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{self, Pid};

use super::*;

/// A command on a terminal, and its output that is not consumed yet.
struct Session {
    spawned: Spawned,
    output: String,
}

impl Session {
    fn start(world: &World, spawner: &Spawner, request: SpawnRequest) -> Session {
        let terminal = request.terminal.unwrap_or_default();
        let request = SpawnRequest { terminal: Some(terminal), ..request };
        Session { spawned: world.run(spawner.spawn(request)).unwrap(), output: String::new() }
    }

    fn master(&self) -> impl AsFd + '_ {
        match &self.spawned.streams {
            Streams::Terminal(master) => master,
            Streams::Pipes { .. } => panic!("a terminal was requested"),
        }
    }

    /// Returns the next line of the output, without its line ending.
    fn line(&mut self) -> String {
        let start = Instant::now();
        loop {
            if let Some((line, rest)) = self.output.split_once("\r\n") {
                let line = line.to_owned();
                self.output = rest.to_owned();
                return line;
            }
            let mut bytes = [0; 4096];
            match unistd::read(self.master(), &mut bytes) {
                Ok(count) if count > 0 => {
                    self.output += std::str::from_utf8(&bytes[..count]).unwrap()
                }
                Err(nix::errno::Errno::EAGAIN) => std::thread::sleep(Duration::from_millis(2)),
                other => panic!("{other:?} after {:?}", self.output),
            }
            assert!(start.elapsed() < Duration::from_secs(60), "no line after {:?}", self.output);
        }
    }
}

fn on_terminal(world: &World, script: &str) -> Session {
    Session::start(world, &world.spawner, words(&["bash", "-c", script]))
}

pub(crate) fn it_is_the_controlling_terminal_and_the_only_open_file(world: &World) {
    let script =
        "tty; echo $LABSH_TTY; cut -d ' ' -f 6 /proc/$$/stat; readlink /dev/fd/{0..9}; echo .";
    let mut session = on_terminal(world, script);
    let path = session.line();
    assert!(path.starts_with("/dev/pts/"), "{path}");
    assert_eq!(session.line(), path);
    let pid = session.spawned.pid;
    assert_eq!(session.line().split(' ').next(), Some(pid.to_string().as_str()));
    assert_eq!([session.line(), session.line(), session.line()], [path.as_str(); 3]);
    let rest = session.line();
    // The shell may give readlink a descriptor of the directory that it reads.
    assert!(rest == "." || rest.starts_with("/proc/"), "{rest}");
    let ended = world.run(session.spawned.process.ended()).unwrap();
    assert_eq!(ended.status, Status::Exited(0));
}

pub(crate) fn it_has_its_size_from_the_start(world: &World) {
    for (columns, rows) in [(132, 43), (0, 0), (u16::MAX, u16::MAX)] {
        let size = WindowSize { columns, rows, width: u16::MAX, height: 1 };
        let request = SpawnRequest {
            terminal: Some(Terminal { size, group: None }),
            ..words(&["stty", "size"])
        };
        let mut session = Session::start(world, &world.spawner, request);
        assert_eq!(session.line(), format!("{rows} {columns}"));
    }
}

pub(crate) fn it_belongs_to_the_user(world: &World) {
    if !is_root() {
        return;
    }
    let other = Identity { uid: 65534, gid: 65534, groups: vec![65534] };
    for (group, expected) in [(Some(5), "65534 5 620"), (None, "65534 65534 600")] {
        let terminal = Some(Terminal { group, ..Terminal::default() });
        let script =
            "stat -L -c '%u %g %a' /dev/fd/0; echo >/dev/tty; echo >$LABSH_TTY && echo written";
        let request = SpawnRequest { terminal, identity: Some(other.clone()), ..sh(script) };
        let mut session = Session::start(world, &world.spawner, request);
        assert_eq!(
            [session.line(), session.line(), session.line(), session.line()],
            [expected, "", "", "written"]
        );
    }
}

/// Returns a script with jobs in process groups of their own, as an interactive shell starts them:
/// two in the background, of which one ignores a hang-up, and one in the foreground, which runs
/// `foreground` first.
fn jobs(foreground: &str) -> String {
    format!(
        "set -m; bash -c 'echo background $$; exec sleep 1000' & \
         bash -c 'trap \"\" HUP; echo stubborn $$; exec sleep 1000' & \
         bash -c '{foreground}; echo foreground $$; sleep 1000; sleep 1000'"
    )
}

/// The process ids of the leader and its three jobs.
struct Jobs {
    leader: u32,
    background: u32,
    stubborn: u32,
    foreground: u32,
}

impl Jobs {
    /// Waits until all of them run.
    fn of(session: &mut Session) -> Jobs {
        let lines = [session.line(), session.line(), session.line()];
        let named = |name: &str| {
            let pid = lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            pid.unwrap_or_else(|| panic!("{name} in {lines:?}")).parse().unwrap()
        };
        let jobs = Jobs {
            leader: session.spawned.pid,
            background: named("background"),
            stubborn: named("stubborn"),
            foreground: named("foreground"),
        };
        let group = |pid| stat(pid).unwrap()[2].clone();
        for job in [jobs.background, jobs.stubborn, jobs.foreground] {
            assert_eq!(group(job), job.to_string(), "each is in a group of its own");
        }
        assert_eq!(stat(jobs.leader).unwrap()[5], jobs.foreground.to_string());
        // A signal that bash has caught but not handled before it executes another program is lost.
        for job in [jobs.background, jobs.stubborn] {
            eventually("bash has become sleep", || {
                fs::read_to_string(format!("/proc/{job}/comm")).unwrap() == "sleep\n"
            });
        }
        jobs
    }
}

impl Drop for Jobs {
    /// Kills the job that survives the test.
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.stubborn.cast_signed()), Signal::SIGKILL);
    }
}

pub(crate) fn a_signal_goes_to_the_foreground(world: &World) {
    let mut session = on_terminal(world, &jobs("trap : TERM"));
    let jobs = Jobs::of(&mut session);
    session.spawned.process.signal(SIGINT);
    eventually("the foreground is ended", || !is_alive(jobs.foreground));
    assert!(is_alive(jobs.background) && is_alive(jobs.stubborn));
    // The leader exits by itself now, so the background job is left running; it must not outlive
    // the test.
    let _ = kill(Pid::from_raw(jobs.background.cast_signed()), Signal::SIGKILL);
}

pub(crate) fn a_flood_of_signals_reaches_only_its_session_and_ends_with_the_last_one(
    world: &World,
) {
    let mut sessions = [(); 2].map(|()| on_terminal(world, &jobs("trap : TERM")));
    let [spared, ended] = sessions.each_mut().map(Jobs::of);
    let [one, other] = sessions.each_ref().map(|session| &session.spawned.process);
    for _ in 0..1000 {
        for signal in [SIGCONT, SIGWINCH] {
            one.signal(signal);
            other.signal(signal);
        }
    }
    other.signal(SIGINT);
    eventually("one foreground is ended", || !is_alive(ended.foreground));
    // By the end of another command, the spawner has handled everything before it.
    world.output(words(&["true"]));
    assert!(is_alive(spared.foreground));
    for left in [ended.background, spared.background, spared.stubborn, ended.stubborn] {
        assert!(is_alive(left));
        let _ = kill(Pid::from_raw(left.cast_signed()), Signal::SIGKILL);
    }
}

pub(crate) fn several_sessions_are_hung_up_together(world: &World) {
    let mut sessions = [(); 5].map(|()| on_terminal(world, &jobs("trap \"\" HUP TERM")));
    let jobs = sessions.each_mut().map(Jobs::of);
    drop(sessions);
    eventually("leaders and jobs are gone", || {
        jobs.iter().all(|jobs| {
            ![jobs.background, jobs.foreground].into_iter().any(is_alive)
                && stat(jobs.leader).is_none()
        })
    });
    assert!(jobs.iter().all(|jobs| is_alive(jobs.stubborn)));
}

pub(crate) fn a_hang_up_reaches_every_group_of_the_session(world: &World) {
    let mut session = on_terminal(world, &jobs(":"));
    let jobs = Jobs::of(&mut session);
    session.spawned.process.end(SIGHUP, false);
    eventually("all processes that do not ignore it are gone", || {
        ![jobs.leader, jobs.background, jobs.foreground].into_iter().any(is_alive)
    });
    let ended = world.run(session.spawned.process.ended()).unwrap();
    assert_eq!(ended.status, Status::Signaled { signal: SIGHUP as u8, core_dumped: false });
    assert!(is_alive(jobs.stubborn));
}

pub(crate) fn later_signals_spare_background_jobs(world: &World) {
    let mut session =
        on_terminal(world, &format!("trap \"\" TERM; {}", jobs("trap \"\" HUP TERM")));
    let jobs = Jobs::of(&mut session);
    session.spawned.process.end(SIGHUP, false);
    eventually("the leader is gone", || !is_alive(jobs.leader));
    session.spawned.process.end(SIGTERM, false);
    // By the end of another command, the spawner has handled everything before it.
    world.output(words(&["true"]));
    assert!(is_alive(jobs.foreground), "it ignores SIGTERM too");
    session.spawned.process.end(SIGKILL, false);
    eventually("the foreground is gone", || !is_alive(jobs.foreground));
    assert!(is_alive(jobs.stubborn), "it was in the background");
    eventually("the background that did not ignore the hang-up is gone", || {
        !is_alive(jobs.background)
    });
}

pub(crate) fn a_time_limit_spares_no_background_job(world: &World) {
    let mut session = on_terminal(world, &jobs(":"));
    let jobs = Jobs::of(&mut session);
    session.spawned.process.end(SIGHUP, true);
    eventually("all processes that do not ignore it are gone", || {
        ![jobs.leader, jobs.background, jobs.foreground].into_iter().any(is_alive)
    });
    assert!(is_alive(jobs.stubborn));
    session.spawned.process.end(SIGTERM, true);
    eventually("the job that ignores a hang-up is gone", || !is_alive(jobs.stubborn));
}

pub(crate) fn dropping_a_process_ends_its_session(world: &World) {
    let mut session = on_terminal(world, &jobs("trap \"\" HUP TERM"));
    let jobs = Jobs::of(&mut session);
    drop(session);
    eventually("leader and jobs are gone", || {
        ![jobs.background, jobs.foreground].into_iter().any(is_alive) && stat(jobs.leader).is_none()
    });
    assert!(is_alive(jobs.stubborn));
}

pub(crate) fn sessions_end_with_labshd(world: &World) {
    // A runtime that is shut down closes the socket like a killed labshd, without an order.
    let runtime = Runtime::new().unwrap();
    let process = world.disposable.borrow_mut().pop().unwrap();
    let spawner = runtime.block_on(async { Spawner::attach(process) }).unwrap();
    let request = words(&["bash", "-c", &jobs("trap \"\" HUP TERM")]);
    let mut session = Session::start(world, &spawner, request);
    let jobs = Jobs::of(&mut session);
    runtime.shutdown_background();
    eventually("leader and jobs are gone", || {
        ![jobs.leader, jobs.background, jobs.foreground].into_iter().any(is_alive)
    });
    assert!(is_alive(jobs.stubborn));
}
