//! More silent connections than labshd accepts: a real client still authenticates, and sessions are
//! not harmed.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use labsh_proto::frame::Kind;
use labsh_proto::message::{Body, Ping, Refuse, RefuseCode, Status};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::peer::{Peer, assert_well, connect_from, eof, message, open, stdin};
use crate::support::{
    LABSHD, Labshd, TEST_TIMEOUT, eventually, memory, processor_time, program, text,
};

/// The number of connections: 10,000, or fewer where the hard limit for descriptors is low, which
/// this process shares among its tests.
fn crowd() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    10_000.min(hard as usize / 8)
}

/// A loopback address for each connection.
fn own_address(number: usize) -> IpAddr {
    Ipv4Addr::new(127, 1, (number / 250) as u8, (number % 250) as u8 + 1).into()
}

/// Opens connections that send nothing.
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
fn a_client_authenticates_beside_thousands_of_silent_connections() {
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
fn a_client_authenticates_while_one_source_connects_without_end() {
    let labshd = Labshd::with("max_unauthenticated = 64");
    let (stop, started) = (AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        let pushing = scope.spawn(|| {
            let mut pushed = 0;
            while !stop.load(Relaxed) && started.elapsed() < TEST_TIMEOUT {
                pushed += sit(crowd().min(500), labshd.tls, |_| own_address(7)).len();
            }
            pushed
        });
        // The pushing thread must be stopped even if this fails.
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
fn the_source_with_most_connections_is_evicted_first() {
    let labshd = Labshd::with("max_unauthenticated = 16\nauthentication_deadline = '5m'");
    let mut modest = Peer::connect(labshd.plain);
    let greedy = sit(200, labshd.plain, |_| own_address(7));
    eventually("all but 15 are evicted", || gone(&labshd) >= 185);
    // 15 connections of the greedy source are left, and the first client is still connected.
    assert_eq!(modest.next().unwrap().kind, Kind::Challenge);
    get_in(&labshd);
    let lines = labshd.log().count("evicted to make room");
    assert_eq!(labshd.log().count("evicted to make room from=127.1.0.8"), lines);
    // The log does not grow with the flood.
    assert!(lines < 100, "{lines}");
    modest.send(&[0xff; 12]);
    assert_eq!(modest.refusal().code, RefuseCode::PROTOCOL);
    drop(greedy);
    assert_well(&labshd);
}

/// The number of connections that were evicted or turned away, whether each has a line in the log
/// or they are counted there.
fn gone(labshd: &Labshd) -> usize {
    let lines =
        ["evicted to make room", "one connection turned away"].map(|what| labshd.log().count(what));
    let text = labshd.log().text();
    let counted = text.lines().filter(|line| line.contains("than the log lists"));
    let counts = counted.flat_map(|line| line.split_whitespace()).filter_map(|field| {
        let (name, count) = field.split_once('=')?;
        ["evicted", "turned_away"].contains(&name).then(|| count.parse::<usize>().unwrap())
    });
    lines.iter().sum::<usize>() + counts.sum::<usize>()
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
fn silent_connections_leave_descriptors_for_sessions_and_commands() {
    let labshd = poor_labshd(128);
    let mut session = Peer::authenticated(&labshd);
    session.send(&open(1, &["cat"]));
    session.started(1);
    let crowd = sit(500, labshd.plain, own_address);
    // Silent connections get at most half of the descriptors; where accepting outruns closing, some
    // are turned away at once.
    eventually("all but half as many as there are descriptors are closed", || {
        gone(&labshd) >= 500 - 64
    });
    // The existing session goes on, and can start another command.
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

/// Asserts that labshd uses hardly any processor time.
fn assert_idle(labshd: &Labshd) {
    let before = processor_time(labshd.pid());
    thread::sleep(Duration::from_millis(500));
    let used = processor_time(labshd.pid()) - before;
    assert!(used <= 10, "{used} of 50 hundredths of a second");
}

#[test]
fn silent_connections_neither_harm_sessions_nor_spin_when_descriptors_run_out() {
    // A session holds two descriptors: the last one goes to a complete session, or to one that is
    // still authenticating.
    [40, 41].into_iter().for_each(use_all_descriptors_up);
}

fn use_all_descriptors_up(descriptors: usize) {
    let labshd = poor_labshd(descriptors);
    let mut sessions = Vec::new();
    let full = || labshd.log().count("no descriptors left") > 0;
    // No session can be evicted: the first connection too many is turned away, waits, or is refused
    // after its proof, when no descriptor is left to look up its user.
    let mut refused = false;
    while !refused && !full() {
        let mut peer = Peer::connect(labshd.plain);
        peer.stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let mut heard = 0;
        eventually("it is let in or not", || {
            heard = peer.stream.peek(&mut [0]).unwrap_or(0);
            heard > 0 || full()
        });
        if heard > 0 {
            peer.stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
            match peer.try_authenticate(&labshd) {
                Ok(()) => sessions.push(peer),
                Err(refuse) => {
                    assert_eq!(refuse.code, RefuseCode::BUSY, "{}", refuse.reason);
                    refused = true;
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
    // Connections that still wait to be accepted take descriptors once more before they turn out to
    // be closed.
    let runs = || labshd.output(&["true"]).status.code() == Some(0);
    eventually("descriptors are free again, and stay so", || (0..5).all(|_| runs()));
    assert_eq!(labshd.log().count("panicked"), 0, "{}", labshd.log().text());
}

#[test]
fn a_client_learns_that_labshd_has_no_descriptors_left() {
    // A command has three descriptors, so that between none and two are left: too few for a
    // connection, for its session, or for its command.
    let mut reasons = String::new();
    for descriptors in [64, 65, 66] {
        let labshd = poor_labshd(descriptors);
        let mut session = Peer::authenticated(&labshd);
        let mut id = 0;
        let refuse = loop {
            id += 1;
            session.send(&open(id, &["cat"]));
            let frame = session.next().unwrap();
            if frame.kind == Kind::Refuse {
                break Refuse::from_frame(&frame).unwrap();
            }
        };
        assert_eq!(refuse.code, RefuseCode::RESOURCES, "{refuse:?}");
        let output = labshd.output(&["true"]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{stderr}");
        assert!(stderr.contains("descriptors"), "{stderr}");
        reasons += &stderr;
        drop(session);
        eventually("there are descriptors again", || {
            labshd.output(&["true"]).status.code() == Some(0)
        });
    }
    assert!(reasons.contains("no descriptors left for another connection"), "{reasons}");
}

#[test]
fn connections_that_close_at_once_do_not_delay_others() {
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
