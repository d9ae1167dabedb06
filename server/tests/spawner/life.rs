//! What becomes of a command, of the spawner, and of either when the other goes: changes with those
//! promises.

use std::future::ready;
use std::time::Duration;

use labsh_proto::message::Status;
use labsh_server::spawner::{
    Identity, SpawnError, SpawnRequest, Spawned, Spawner, SpawnerLost, launch,
};
use nix::libc::{SIGCONT, SIGKILL, SIGSTOP, SIGTERM};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::unix::pipe;
use tokio::task::JoinSet;

use super::*;

const NOBODY: u32 = 65534;

/// Prints the process id of something that runs in the background of its group, and stays.
const WITH_BACKGROUND: &str = "sleep 1000 & echo $!; wait";

fn with_background(world: &World, spawner: &Spawner, script: &str) -> (Spawned, u32) {
    world.run(async {
        let spawned = spawner.spawn(sh(script)).await.unwrap();
        let Streams::Pipes { stdout, .. } = &spawned.streams else {
            panic!("no terminal was asked for")
        };
        let stdout = stdout.try_clone().unwrap();
        let mut stdout = pipe::Receiver::from_owned_fd(stdout).unwrap();
        let pid = line(&mut stdout).await.parse().unwrap();
        assert!(is_alive(pid));
        (spawned, pid)
    })
}

fn mortal(world: &World) -> Spawner {
    let process = world.mortal.borrow_mut().pop().unwrap();
    world.run(async { Spawner::attach(process) }).unwrap()
}

/// The spawner as it is when nothing is going on.
fn is_idle(world: &World) -> bool {
    children(world.spawner.pid()).is_empty()
}

pub(crate) fn large_requests_at_once(world: &World) {
    // Far more than the socket holds, in either direction at once.
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

pub(crate) fn use_is_counted(world: &World) {
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

pub(crate) fn memory_is_the_commands_own(world: &World) {
    // This process is large by now, and the spawner has had large requests; the command shows
    // neither.
    let ballast = vec![1_u8; 100 << 20];
    let word = "x".repeat(100 << 10);
    world.output(words(&[&["true"], &[word.as_str(); 15][..]].concat()));
    let usage = world.output(words(&["true"])).ended.usage;
    assert!(usage.peak_memory > 0 && usage.peak_memory < 16 << 20, "{usage:?}");
    assert_eq!(ballast.len(), 100 << 20);
}

pub(crate) fn another_user_is_another_user(world: &World) {
    let nobody = Identity { uid: NOBODY, gid: NOBODY, groups: vec![NOBODY, 100] };
    let request = |script| SpawnRequest { identity: Some(nobody.clone()), ..sh(script) };
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

    // It still does when the leader has ended first.
    let (mut spawned, background) = with_background(world, &world.spawner, "sleep 1000 & echo $!");
    assert_eq!(world.run(spawned.process.ended()).unwrap().status, Status::Exited(0));
    assert!(is_alive(background));
    spawned.process.signal(SIGKILL);
    eventually("the background process has ended", || !is_alive(background));
}

pub(crate) fn every_signal_number_is_safe(world: &World) {
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
    // Another command's whole life has gone through the spawner since.
    world.output(words(&["true"]));
    assert_eq!(stat(spawned.pid).unwrap()[0], "Z");
    let pid = spawned.process.pid();
    drop(spawned);
    eventually("it is reaped", || stat(pid).is_none());
}

pub(crate) fn dropping_a_process_kills_its_group(world: &World) {
    let script = format!("trap '' HUP TERM; {WITH_BACKGROUND}");
    let (spawned, background) = with_background(world, &world.spawner, &script);
    let pid = spawned.pid;
    drop(spawned);
    eventually("both have ended", || !is_alive(background) && stat(pid).is_none());
}

pub(crate) fn an_abandoned_spawn_leaves_nothing(world: &World) {
    // Asked for, and dropped before any answer.
    world.run(async {
        for _ in 0..20 {
            tokio::select! {
                biased;
                _ = world.spawner.spawn(words(&["sleep", "1000"])) => {}
                () = ready(()) => {}
            }
        }
    });
    // A command of its own shows that the spawner has come to the end of those orders.
    world.output(words(&["true"]));
    eventually("none is left", || is_idle(world));

    // Dropped with the answer under way or arrived.
    world.run(async {
        let mut spawn = Box::pin(world.spawner.spawn(words(&["sleep", "1000"])));
        // Asked once; on a busy machine the answer may have been there already.
        let early = tokio::select! { biased; spawned = &mut spawn => Some(spawned),
        () = ready(()) => None };
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

pub(crate) fn the_end_can_be_asked_for_again(world: &World) {
    let mut spawned = world.spawn(words(&["cat"])).unwrap();
    world.run(async {
        tokio::select! { biased; _ = spawned.process.ended() => panic!("it still runs"),
        () = ready(()) => {} }
        drop(pipes(spawned.streams));
        let first = spawned.process.ended().await;
        assert_eq!(first.unwrap().status, Status::Exited(0));
        assert_eq!(spawned.process.ended().await, first);
    });
}

pub(crate) fn a_spawner_short_of_descriptors_says_so(world: &World) {
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

pub(crate) fn a_receiver_short_of_descriptors_says_so(world: &World) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    for free in 0..3 {
        let highest = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        setrlimit(Resource::RLIMIT_NOFILE, highest + 16, hard).unwrap();
        let mut fillers: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        fillers.truncate(fillers.len() - free);
        let result = world.spawn(words(&["sleep", "1000"]));
        // What did arrive has been closed: as much is free as before.
        let refill: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert!(matches!(result, Err(SpawnError::Resources { .. })), "{result:?}");
        assert_eq!(refill.len(), free);
        drop((fillers, refill));
        eventually("the command is gone", || is_idle(world));
    }
    assert_eq!(world.says("echo as before"), "as before\n");
}

pub(crate) fn launching_with_threads_is_refused(_world: &World) {
    assert!(launch().unwrap_err().to_string().contains("threads"));
}

pub(crate) fn the_spawner_keeps_to_itself(world: &World) {
    let pid = world.spawner.pid();
    assert!(is_named(pid, "labshd-spawner"));
    let session = stat(pid).unwrap()[3].clone();
    assert_eq!(session, pid.to_string());
    for signal in
        [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGPIPE, Signal::SIGCHLD]
    {
        kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
    }
    assert_eq!(world.says("echo still here"), "still here\n");
    // Input, output, last words, the socket and the event queue.
    eventually("nothing runs", || is_idle(world));
    assert_eq!(fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), 5);
    assert_eq!(fs::read_link(format!("/proc/{pid}/fd/0")).unwrap().to_str(), Some("/dev/null"));
}

pub(crate) fn commands_end_with_labshd(world: &World) {
    // A runtime that is shut down closes the socket as a killed labshd does: without a word.
    let runtime = Runtime::new().unwrap();
    let process = world.mortal.borrow_mut().pop().unwrap();
    let spawner = runtime.block_on(async { Spawner::attach(process) }).unwrap();
    let pid = spawner.pid();
    let (polite, in_background) = with_background(world, &spawner, WITH_BACKGROUND);
    let stubborn = format!("trap '' HUP TERM; {WITH_BACKGROUND}");
    let (stubborn, in_its_background) = with_background(world, &spawner, &stubborn);
    let mut done = world.run(spawner.spawn(sh("sleep 1000 >/dev/null 2>&1 & echo $!"))).unwrap();
    world.run(done.process.ended()).unwrap();
    let [_, stdout, _] = pipes(done.streams);
    let on_purpose: u32 = world.run(read(stdout)).trim().parse().unwrap();
    runtime.shutdown_background();
    for pid in [polite.pid, in_background, stubborn.pid, in_its_background, pid] {
        eventually("everything has ended", || !is_alive(pid));
    }
    // Its command was over: it had been left in the background on purpose.
    assert!(is_alive(on_purpose));
    kill(Pid::from_raw(on_purpose.cast_signed()), Signal::SIGKILL).unwrap();
}

pub(crate) fn a_killed_spawner_is_noticed(world: &World) {
    let spawner = mortal(world);
    let (mut spawned, background) = with_background(world, &spawner, WITH_BACKGROUND);
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

pub(crate) fn the_spawner_ends_with_its_last_handle(world: &World) {
    let spawner = mortal(world);
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
