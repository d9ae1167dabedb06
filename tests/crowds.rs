//! More connections than labshd wants: a real client gets in all the same, and those that are in
//! are not harmed.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use labsh_proto::frame::Kind;
use labsh_proto::message::{Ping, RefuseCode, Status};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::peer::{Peer, assert_well, connect_from, eof, message, open, stdin};
use crate::support::{LABSHD, Labshd, PATIENCE, eventually, memory, processor_time, program, text};

/// As many of 10,000 as this machine's hard limit on descriptors allows: labshd gives them half of
/// its own.
fn crowd() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    10_000.min(hard as usize / 2)
}

/// An address of this machine for each member of a crowd.
fn own_address(number: usize) -> IpAddr {
    Ipv4Addr::new(127, 1, (number / 250) as u8, (number % 250) as u8 + 1).into()
}

/// Connections that are opened and say nothing.
fn sit(count: usize, to: SocketAddr, from: impl Fn(usize) -> IpAddr) -> Vec<TcpStream> {
    (0..count).map(|number| connect_from(from(number), to).unwrap()).collect()
}

fn get_in(labshd: &Labshd) -> Duration {
    let start = Instant::now();
    let output = labshd.output(&["echo", "well"]);
    assert_eq!(
        (output.status.code(), text(&output.stdout).as_str()),
        (Some(0), "well\n"),
        "{output:?}"
    );
    start.elapsed()
}

fn half_open_sockets(labshd: &Labshd) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", labshd.pid())).unwrap().count()
}

#[test]
fn a_client_gets_in_while_thousands_sit_half_open() {
    let labshd =
        Labshd::with("max_unauthenticated = 20000\nauthentication_deadline = '5m'\nbacklog = 4096");
    let (quiet, before) = (get_in(&labshd), memory(labshd.pid()));
    let count = crowd();
    let crowd = sit(count, labshd.tls, own_address);
    eventually("all of them are in", || half_open_sockets(&labshd) > count);
    let (crowded, after) = (get_in(&labshd), memory(labshd.pid()));
    println!(
        "a client: {quiet:?}, with {count} half open {crowded:?}; labshd: {} KiB, {} KiB",
        before >> 10,
        after >> 10
    );
    assert!(after - before < 128 << 20, "{count} silent connections cost {} bytes", after - before);
    drop(crowd);
    assert_well(&labshd);
}

#[test]
fn a_client_gets_in_while_one_source_pushes_in_without_end() {
    let labshd = Labshd::with("max_unauthenticated = 64");
    let (stop, started) = (AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        let pushing = scope.spawn(|| {
            let mut pushed = 0;
            while !stop.load(Relaxed) && started.elapsed() < PATIENCE {
                pushed += sit(500, labshd.tls, |_| own_address(7)).len();
            }
            pushed
        });
        // Whatever happens here, the crowd leaves.
        let times = std::panic::catch_unwind(|| {
            labshd.log().wait_for("evicted to make room");
            (0..5).map(|_| get_in(&labshd)).collect::<Vec<Duration>>()
        });
        stop.store(true, Relaxed);
        println!("a client among {} that push in: {:?}", pushing.join().unwrap(), times.unwrap());
    });
    assert_well(&labshd);
}

#[test]
fn who_holds_most_makes_room_for_others() {
    let labshd = Labshd::with("max_unauthenticated = 16\nauthentication_deadline = '5m'");
    let mut modest = Peer::connect(labshd.plain);
    let greedy = sit(200, labshd.plain, |_| own_address(7));
    labshd.log().wait_for_nth("evicted to make room", 185);
    // 15 of the greedy are left, and the one who was there first is still being listened to.
    assert_eq!(modest.next().unwrap().kind, Kind::Challenge);
    get_in(&labshd);
    assert_eq!(
        labshd.log().count("evicted to make room from=127.1.0.8"),
        labshd.log().count("evicted")
    );
    modest.send(&[0xff; 12]);
    assert_eq!(modest.refusal().code, RefuseCode::PROTOCOL);
    drop(greedy);
    assert_well(&labshd);
}

/// A labshd with few descriptors.
fn poor_labshd(descriptors: usize) -> Labshd {
    Labshd::launch("authentication_deadline = '5m'", |command| {
        let arguments: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
        let mut shell = program("sh");
        shell
            .args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\""), LABSHD])
            .args(arguments);
        shell.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        shell.stderr(std::process::Stdio::piped());
        *command = shell;
    })
}

#[test]
fn a_crowd_leaves_sessions_and_commands_their_descriptors() {
    let labshd = poor_labshd(128);
    let mut session = Peer::authenticated(&labshd);
    session.send(&open(1, &["cat"]));
    session.started(1);
    let crowd = sit(500, labshd.plain, own_address);
    // Half of the descriptors are theirs, and no more; where accepting outruns closing, some are
    // not even let in.
    let gone = || {
        ["evicted to make room", "turned away"]
            .map(|what| labshd.log().count(what))
            .iter()
            .sum::<usize>()
    };
    eventually("all but half as many as there are descriptors have gone", || gone() >= 500 - 64);
    // The session that is there goes on, and can start another command.
    session.send(&stdin(1, b"still here"));
    assert_eq!(session.until(Kind::Stdout, 1).body[..], b"still here"[..]);
    session.check(2);
    get_in(&labshd);
    assert_idle(&labshd);
    session.send(&eof(1));
    assert_eq!(session.finish(1).exit.status, Status::Exited(0));
    drop(crowd);
    assert_well(&labshd);
}

/// There is nothing to do, and nothing is done.
fn assert_idle(labshd: &Labshd) {
    let before = processor_time(labshd.pid());
    thread::sleep(Duration::from_millis(500));
    let used = processor_time(labshd.pid()) - before;
    assert!(used <= 10, "{used} of 50 hundredths of a second");
}

#[test]
fn sessions_that_use_all_descriptors_up_are_not_harmed_by_a_crowd_and_nothing_spins() {
    // A session holds two: the last descriptor goes to a whole session, or to one that is still
    // authenticating.
    [40, 41].into_iter().for_each(use_all_descriptors_up);
}

fn use_all_descriptors_up(descriptors: usize) {
    let labshd = poor_labshd(descriptors);
    let mut sessions = Vec::new();
    let full = || labshd.log().count("no descriptors left") > 0;
    // Nobody can be evicted: the newcomer that is one too many is turned away, waits, or is told so
    // once it has proven who it is and nothing is left to look its user up with.
    let mut told = false;
    while !told && !full() {
        let mut peer = Peer::connect(labshd.plain);
        peer.stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let mut heard = 0;
        eventually("it is let in or not", || {
            heard = peer.stream.peek(&mut [0]).unwrap_or(0);
            heard > 0 || full()
        });
        if heard > 0 {
            peer.stream.set_read_timeout(Some(PATIENCE)).unwrap();
            match peer.try_authenticate(&labshd) {
                Ok(()) => sessions.push(peer),
                Err(refuse) => {
                    assert_eq!(refuse.code, RefuseCode::BUSY, "{}", refuse.reason);
                    told = true;
                }
            }
        }
    }
    assert!(sessions.len() >= 8, "{}", sessions.len());
    let crowd = sit(100, labshd.plain, own_address);
    assert_idle(&labshd);
    for session in &mut sessions {
        session.send(&message(&Ping { token: 5 }, 0));
        session.until(Kind::Pong, 0);
    }
    drop(crowd);
    drop(sessions);
    // What still waits to be accepted takes room once more before it is found to be gone.
    let runs = || labshd.output(&["true"]).status.code() == Some(0);
    eventually("there is room again, and it stays", || (0..5).all(|_| runs()));
    assert_eq!(labshd.log().count("panicked"), 0, "{}", labshd.log().text());
}

#[test]
fn connections_that_are_gone_at_once_do_not_hold_others_up() {
    let labshd = Labshd::start();
    for _ in 0..500 {
        let mut stream = TcpStream::connect(labshd.tls).unwrap();
        let _ = stream.write_all(b"x");
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    get_in(&labshd);
    assert_eq!(labshd.log().count("accept failed"), 0, "{}", labshd.log().text());
    assert_well(&labshd);
}
