//! Exits, signals and usage of commands, and what the loss of labshd or of the spawner ends.

use std::future::ready;
use std::time::Duration;

use labsh_proto::message::Status;
use labsh_server::spawner::{
    Identity, SpawnError, SpawnRequest, Spawned, Spawner, SpawnerLost, launch,
};
use nix::libc::{SIGCONT, SIGHUP, SIGKILL, SIGSTOP, SIGTERM};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::unix::pipe;
use tokio::task::JoinSet;

use super::*;

const OTHER_USER: u32 = 65534;

/// Prints the process id of a background process of its group, and waits.
const WITH_BACKGROUND: &str = "sleep 1000 & echo $!; wait";

/// The same, but the background process is in a group of its own, as with timeout(1).
const IN_OTHER_GROUP: &str = "exec bash -c 'set -m; sleep 1000 & echo $!; wait'";

fn with_background(world: &World, spawner: &Spawner, script: &str) -> (Spawned, u32) {
    world.run(async {
        let spawned = spawner.spawn(sh(script)).await.unwrap();
        let Streams::Pipes { stdout, .. } = &spawned.streams else {
            panic!("no terminal was requested")
        };
        let stdout = stdout.try_clone().unwrap();
        let mut stdout = pipe::Receiver::from_owned_fd(stdout).unwrap();
        let pid = line(&mut stdout).await.parse().unwrap();
        assert!(is_alive(pid));
        (spawned, pid)
    })
}

fn disposable_spawner(world: &World) -> Spawner {
    let process = world.disposable.borrow_mut().pop().unwrap();
    world.run(async { Spawner::attach(process) }).unwrap()
}

/// Returns whether the spawner has no child.
fn is_idle(world: &World) -> bool {
    children(world.spawner.pid()).is_empty()
}

pub(crate) fn large_requests_are_served_at_once(world: &World) {
    // Far more than the socket's buffers hold, in both directions at once.
    world.run(async {
        let word = "x".repeat(120 << 10);
        let mut commands = JoinSet::new();
        for _ in 0..60 {
            let spawner = world.spawner.clone();
            let request = words(&["sh", "-c", "echo ${#1}", "sh", &word]);
            commands.spawn(async move { output(&spawner, request).await.stdout });
        }
        assert!(commands.join_all().await.iter().all(|length| length == "122880\n"));
    });
}

pub(crate) fn usage_is_measured(world: &World) {
    let usage = world.output(sh("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")).ended.usage;
    assert!(usage.user > 1_000, "{usage:?}");
    assert!(usage.wall >= usage.user / 2, "{usage:?}");
    let usage = world
        .output(words(&["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]))
        .ended
        .usage;
    assert!(usage.system > 0, "{usage:?}");
    assert!(usage.peak_memory > 64 << 20, "{usage:?}");
}

pub(crate) fn peak_memory_excludes_labshd_and_the_spawner(world: &World) {
    // Neither the memory of this process nor large requests in the spawner are counted.
    let ballast = vec![1_u8; 100 << 20];
    let word = "x".repeat(100 << 10);
    world.output(words(&[&["true"], &[word.as_str(); 15][..]].concat()));
    let usage = world.output(words(&["true"])).ended.usage;
    assert!(usage.peak_memory > 0 && usage.peak_memory < 16 << 20, "{usage:?}");
    assert_eq!(ballast.len(), 100 << 20);
}

pub(crate) fn a_command_can_run_as_another_user(world: &World) {
    let other = Identity { uid: OTHER_USER, gid: OTHER_USER, groups: vec![OTHER_USER, 100] };
    let request = |script| SpawnRequest { identity: Some(other.clone()), ..sh(script) };
    if !is_root() {
        assert!(matches!(world.refusal(request("id")), SpawnError::Identity { .. }));
        return;
    }
    assert_eq!(world.output(request("id -u; id -g; id -G")).stdout, "65534\n65534\n65534 100\n");
    let status =
        world.output(request("grep -E '^(Uid|Gid|CapEff|CapPrm):' /proc/self/status")).stdout;
    let rows: Vec<_> = status.split_whitespace().collect();
    let four = ["65534"; 4];
    let none = "0000000000000000";
    assert_eq!(
        rows,
        [&["Uid:"], &four[..], &["Gid:"], &four[..], &["CapPrm:", none, "CapEff:", none]].concat()
    );

    // The directory is entered with the user's rights, not with root's.
    let private = tempfile::tempdir().unwrap();
    fs::set_permissions(private.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let cwd = private.path().to_str().unwrap();
    let request = SpawnRequest { cwd: cwd.into(), ..request("pwd") };
    assert!(matches!(world.refusal(request.clone()), SpawnError::Directory { .. }));
    assert_eq!(world.output(SpawnRequest { cwd_fallback_root: true, ..request }).stdout, "/\n");
}

pub(crate) fn a_background_process_receives_signals(world: &World) {
    let (mut spawned, background) = with_background(world, &world.spawner, WITH_BACKGROUND);
    spawned.process.signal(SIGTERM);
    let ended = world.run(spawned.process.ended()).unwrap();
    assert_eq!(ended.status, Status::Signaled { signal: SIGTERM as u8, core_dumped: false });
    eventually("the background process has ended", || !is_alive(background));

    // It still does after the leader has exited.
    let (mut spawned, background) = with_background(world, &world.spawner, "sleep 1000 & echo $!");
    assert_eq!(world.run(spawned.process.ended()).unwrap().status, Status::Exited(0));
    assert!(is_alive(background));
    spawned.process.signal(SIGKILL);
    eventually("the background process has ended", || !is_alive(background));
}

pub(crate) fn invalid_signal_numbers_are_ignored(world: &World) {
    let mut spawned = world.spawn(words(&["sleep", "1000"])).unwrap();
    for invalid in [0, -1, -SIGKILL, 65, 1000, i32::MIN, i32::MAX] {
        spawned.process.signal(invalid);
    }
    spawned.process.signal(SIGSTOP);
    eventually("it is stopped", || stat(spawned.pid).is_some_and(|fields| fields[0] == "T"));
    spawned.process.signal(SIGCONT);
    eventually("it goes on", || stat(spawned.pid).is_some_and(|fields| fields[0] != "T"));
    spawned.process.signal(SIGKILL);
    let ended = world.run(spawned.process.ended()).unwrap();
    assert_eq!(ended.status, Status::Signaled { signal: SIGKILL as u8, core_dumped: false });
    spawned.process.signal(SIGTERM);
}

pub(crate) fn the_leader_stays_a_zombie_until_it_is_dropped(world: &World) {
    let mut spawned = world.spawn(words(&["true"])).unwrap();
    world.run(spawned.process.ended()).unwrap();
    // By the end of another command, the spawner has handled everything before it.
    world.output(words(&["true"]));
    assert_eq!(stat(spawned.pid).unwrap()[0], "Z");
    let pid = spawned.process.pid();
    drop(spawned);
    eventually("it is reaped", || stat(pid).is_none());
}

pub(crate) fn dropping_a_process_kills_its_session(world: &World) {
    let script = format!("trap '' HUP TERM; {IN_OTHER_GROUP}");
    let (spawned, background) = with_background(world, &world.spawner, &script);
    let pid = spawned.pid;
    drop(spawned);
    eventually("both have ended", || !is_alive(background) && stat(pid).is_none());
}

pub(crate) fn a_command_is_ended_whatever_the_groups_of_its_processes(world: &World) {
    for signal in [SIGHUP, SIGTERM, SIGKILL] {
        let (mut spawned, background) = with_background(world, &world.spawner, IN_OTHER_GROUP);
        assert_ne!(stat(background).unwrap()[2], spawned.pid.to_string(), "its own group");
        spawned.process.end(signal, false);
        let ended = world.run(spawned.process.ended()).unwrap();
        assert_eq!(ended.status, Status::Signaled { signal: signal as u8, core_dumped: false });
        world.run(spawned.process.vacant());
        assert!(!is_alive(background), "after signal {signal}");
    }
}

pub(crate) fn a_command_is_vacant_only_once_its_last_process_has_ended(world: &World) {
    let script = "set -m; (trap '' TERM; echo ready; exec sleep 1000) & wait";
    let mut spawned = world.spawn(words(&["bash", "-c", script])).unwrap();
    let Streams::Pipes { stdout, .. } = &spawned.streams else { panic!("no terminal") };
    let mut stdout =
        world.run(async { pipe::Receiver::from_owned_fd(stdout.try_clone().unwrap()).unwrap() });
    assert_eq!(world.run(line(&mut stdout)), "ready");
    spawned.process.end(SIGTERM, false);
    world.run(spawned.process.ended()).unwrap();
    let early =
        async { tokio::time::timeout(Duration::from_millis(200), spawned.process.vacant()).await };
    assert!(world.run(early).is_err(), "a process ignores SIGTERM");
    spawned.process.end(SIGKILL, false);
    world.run(spawned.process.vacant());
}

pub(crate) fn what_a_command_leaves_that_ended_by_itself_is_not_signalled(world: &World) {
    // The second leader ignores the hang-up that precedes its exit.
    for script in
        ["sleep 1000 & echo $!", "trap '' HUP; sleep 1000 & echo $!; read -r line; exit 3"]
    {
        let (mut spawned, background) = with_background(world, &world.spawner, script);
        let waits = script.contains("read");
        if waits {
            spawned.process.end(SIGHUP, false);
        }
        let Streams::Pipes { stdin, .. } = spawned.streams else { panic!("no terminal") };
        drop(stdin);
        let ended = world.run(spawned.process.ended()).unwrap();
        assert_eq!(ended.status, Status::Exited(if waits { 3 } else { 0 }));
        for signal in [SIGHUP, SIGTERM, SIGKILL] {
            spawned.process.end(signal, true);
        }
        world.run(spawned.process.vacant());
        assert!(is_alive(background));
        kill(Pid::from_raw(background.cast_signed()), Signal::SIGKILL).unwrap();
    }
}

pub(crate) fn a_dropped_spawn_leaves_no_process(world: &World) {
    // Dropped before any reply.
    world.run(async {
        for _ in 0..20 {
            tokio::select! {
                biased;
                _ = world.spawner.spawn(words(&["sleep", "1000"])) => {}
                () = ready(()) => {}
            }
        }
    });
    // By the end of another command, the spawner has handled those orders.
    world.output(words(&["true"]));
    eventually("none is left", || is_idle(world));

    // Dropped when the reply is sent or received.
    world.run(async {
        let mut spawn = Box::pin(world.spawner.spawn(words(&["sleep", "1000"])));
        // Polled once; on a busy machine the reply may have arrived already.
        let early = tokio::select! {
            biased;
            spawned = &mut spawn => Some(spawned),
            () = ready(()) => None,
        };
        eventually("it sleeps", || {
            children(world.spawner.pid()).iter().any(|&pid| is_named(pid, "sleep"))
        });
        drop((spawn, early));
    });
    eventually("it is gone", || is_idle(world));
}

fn is_named(pid: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
}

pub(crate) fn the_exit_can_be_awaited_again(world: &World) {
    let mut spawned = world.spawn(words(&["cat"])).unwrap();
    world.run(async {
        tokio::select! {
            biased;
            _ = spawned.process.ended() => panic!("it still runs"),
            () = ready(()) => {}
        }
        drop(pipes(spawned.streams));
        let first = spawned.process.ended().await;
        assert_eq!(first.unwrap().status, Status::Exited(0));
        assert_eq!(spawned.process.ended().await, first);
    });
}

pub(crate) fn a_spawner_without_free_descriptors_reports_it(world: &World) {
    let pid = world.spawner.pid();
    let limit = |soft: &str| {
        let arguments = [&format!("--pid={pid}"), &format!("--nofile={soft}:")];
        assert!(Command::new("prlimit").args(arguments).status().unwrap().success());
    };
    eventually("nothing runs", || is_idle(world));
    let open = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let before = open();
    let mut refused = 0;
    for soft in before..before + 12 {
        limit(&soft.to_string());
        match world.spawn(words(&["true"])) {
            Ok(mut spawned) => drop(world.run(spawned.process.ended())),
            Err(SpawnError::Resources { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!((1..12).contains(&refused), "{refused}");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    limit(&hard.to_string());
    world.output(words(&["true"]));
    eventually("nothing is left open", || is_idle(world) && open() == before);
}

pub(crate) fn a_receiver_without_free_descriptors_reports_it(world: &World) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    for free in 0..3 {
        let highest = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        setrlimit(Resource::RLIMIT_NOFILE, highest + 16, hard).unwrap();
        let mut fillers: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        fillers.truncate(fillers.len() - free);
        let result = world.spawn(words(&["sleep", "1000"]));
        // The descriptors that did arrive are closed, so as many are free as before.
        let refill: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert!(matches!(result, Err(SpawnError::Resources { .. })), "{result:?}");
        assert_eq!(refill.len(), free);
        drop((fillers, refill));
        eventually("the command is gone", || is_idle(world));
    }
    assert_eq!(world.stdout_of("echo as before"), "as before\n");
}

pub(crate) fn launching_with_threads_is_refused(_world: &World) {
    assert!(launch().unwrap_err().to_string().contains("threads"));
}

pub(crate) fn the_spawner_has_its_own_session_and_few_descriptors(world: &World) {
    let pid = world.spawner.pid();
    assert!(is_named(pid, "labshd-spawner"));
    let session = stat(pid).unwrap()[3].clone();
    assert_eq!(session, pid.to_string());
    for signal in
        [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGPIPE, Signal::SIGCHLD]
    {
        kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
    }
    assert_eq!(world.stdout_of("echo still here"), "still here\n");
    // stdin, stdout, stderr, the socket and the epoll instance.
    eventually("nothing runs", || is_idle(world));
    assert_eq!(fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), 5);
    assert_eq!(fs::read_link(format!("/proc/{pid}/fd/0")).unwrap().to_str(), Some("/dev/null"));
}

pub(crate) fn commands_end_with_labshd(world: &World) {
    // A runtime that is shut down closes the socket like a killed labshd, without an order.
    let runtime = Runtime::new().unwrap();
    let process = world.disposable.borrow_mut().pop().unwrap();
    let spawner = runtime.block_on(async { Spawner::attach(process) }).unwrap();
    let pid = spawner.pid();
    let (plain, background) = with_background(world, &spawner, IN_OTHER_GROUP);
    let stubborn = format!("trap '' HUP TERM; {WITH_BACKGROUND}");
    let (stubborn, stubborn_background) = with_background(world, &spawner, &stubborn);
    let mut done = world.run(spawner.spawn(sh("sleep 1000 >/dev/null 2>&1 & echo $!"))).unwrap();
    world.run(done.process.ended()).unwrap();
    let [_, stdout, _] = pipes(done.streams);
    let left_running: u32 = world.run(read(stdout)).trim().parse().unwrap();
    runtime.shutdown_background();
    for pid in [plain.pid, background, stubborn.pid, stubborn_background, pid] {
        eventually("everything has ended", || !is_alive(pid));
    }
    // Its leader had exited, so it was left in the background on purpose.
    assert!(is_alive(left_running));
    kill(Pid::from_raw(left_running.cast_signed()), Signal::SIGKILL).unwrap();
}

pub(crate) fn a_killed_spawner_is_detected(world: &World) {
    let spawner = disposable_spawner(world);
    let (mut spawned, background) = with_background(world, &spawner, IN_OTHER_GROUP);
    let pid = Pid::from_raw(spawner.pid().cast_signed());
    kill(pid, Signal::SIGKILL).unwrap();
    world.run(async {
        spawner.lost().await;
        assert_eq!(spawned.process.ended().await, Err(SpawnerLost));
        assert_eq!(spawned.process.ended().await, Err(SpawnerLost));
        assert!(matches!(spawner.spawn(words(&["true"])).await, Err(SpawnError::Lost)));
        spawned.process.signal(SIGTERM);
    });
    eventually("the spawner is reaped", || stat(spawner.pid()).is_none());
    eventually("its commands have ended", || !is_alive(spawned.pid) && !is_alive(background));
}

pub(crate) fn the_spawner_exits_with_its_last_handle(world: &World) {
    let spawner = disposable_spawner(world);
    let pid = spawner.pid();
    let mut spawned = world.run(spawner.spawn(words(&["cat"]))).unwrap();
    drop(spawner);
    drop(pipes(spawned.streams));
    assert_eq!(world.run(spawned.process.ended()).unwrap().status, Status::Exited(0));
    drop(spawned.process);
    eventually("the spawner has ended and is reaped", || stat(pid).is_none());
    assert!(
        world
            .run(async { tokio::time::timeout(Duration::ZERO, world.spawner.lost()).await })
            .is_err()
    );
}
