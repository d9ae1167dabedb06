//! A client that sends without end: labshd's memory does not grow, and other clients are served.

use std::io::Write;
use std::thread;

use labsh_proto::frame::{FLAG_MORE, Kind};
use labsh_proto::limits;
use labsh_proto::message::{
    Body, CommandId, Open, Ping, Pong, Program, RefuseCode, Status, Stream,
};

use crate::peer::{
    Peer, assert_well, bytes, close, commands, credit, header, message, open, open_body,
    open_frames, signal, stdin,
};
use crate::support::{Labshd, children, eventually, kill, memory, settled, stop, text};

const MIB: u64 = 1 << 20;

/// The memory of labshd and its spawner together, in bytes.
fn held(labshd: &Labshd) -> u64 {
    let spawner: u64 = children(labshd.pid()).into_iter().map(memory).sum();
    memory(labshd.pid()) + spawner
}

/// Runs an action, during which memory may grow by fewer than `most` bytes; returns the growth.
fn growing_at_most(labshd: &Labshd, most: u64, flood: impl FnOnce() + Send) -> u64 {
    let before = held(labshd);
    let highest = thread::scope(|scope| {
        let flood = scope.spawn(flood);
        let mut highest = before;
        while !flood.is_finished() {
            highest = highest.max(held(labshd));
            thread::sleep(std::time::Duration::from_millis(2));
        }
        flood.join().unwrap();
        highest.max(held(labshd))
    });
    println!("labshd and its spawner: {} KiB, at most {} KiB", before >> 10, highest >> 10);
    assert!(highest < before + most, "{before} grew to {highest}");
    highest - before
}

/// Waits until everything sent so far has been processed.
fn round_trip(peer: &mut Peer, token: u64) {
    peer.send(&message(&Ping { token }, 0));
    while Pong::from_frame(&peer.until(Kind::Pong, 0)).unwrap().token != token {}
}

#[test]
fn pings_without_end_cost_nothing() {
    let labshd = Labshd::start();
    let mut peer = Peer::authenticated(&labshd);
    growing_at_most(&labshd, 8 * MIB, || {
        // 10 MB of pings, while no answer is read.
        let flood = message(&Ping { token: 1 }, 0).repeat(10_000);
        (0..50).for_each(|_| peer.send(&flood));
        round_trip(&mut peer, 2);
    });
    peer.check(1);
    assert_well(&labshd);
}

#[test]
fn signals_without_end_cost_nothing() {
    let labshd = Labshd::start();
    let mut peer = Peer::authenticated(&labshd);
    peer.send(&open(1, &["sh", "-c", "trap '' USR1; echo ready; while :; do sleep 1000; done"]));
    peer.until(Kind::Stdout, 1);
    growing_at_most(&labshd, 8 * MIB, || {
        let flood = signal(1, 10).repeat(10_000);
        (0..100).for_each(|_| peer.send(&flood));
        round_trip(&mut peer, 2);
        // Another connection's command still starts.
        assert_eq!(labshd.output(&["true"]).status.code(), Some(0));
    });
    peer.send(&signal(1, 9));
    assert_eq!(peer.finish(1).exit.status, Status::Signaled { signal: 9, core_dumped: false });
    peer.check(2);
    assert_well(&labshd);
}

#[test]
fn an_endless_open_is_refused_and_not_buffered() {
    let labshd = Labshd::start();
    let mut peer = Peer::authenticated(&labshd);
    growing_at_most(&labshd, 8 * MIB, || {
        let part =
            [header(limits::MAX_BODY, Kind::Open as u8, FLAG_MORE, 0, 1), vec![0; 65_536]].concat();
        (0..1_000).for_each(|_| peer.send(&part));
        peer.send(&bytes(Kind::Open, 1, b""));
        let refuse = peer.refused(1);
        assert_eq!(refuse.code, RefuseCode::BAD_COMMAND);
        assert!(refuse.reason.contains("1 MiB"), "{refuse:?}");
    });
    peer.send(&close(1));
    peer.check(2);
    assert_well(&labshd);
}

#[test]
fn an_endless_series_of_commands_is_started_and_ended() {
    let labshd = Labshd::with("max_channels = 16");
    let mut peer = Peer::authenticated(&labshd);
    growing_at_most(&labshd, 16 * MIB, || {
        for id in 1..=500 {
            peer.send(&[open(id, &["sleep", "1000"]), close(id)].concat());
        }
        round_trip(&mut peer, 1);
    });
    peer.check(501);
    drop(peer);
    assert_well(&labshd);
}

#[test]
fn an_endless_series_of_long_commands_does_not_accumulate() {
    let labshd = Labshd::start();
    let mut peer = Peer::authenticated(&labshd);
    let word = vec![b'x'; 100_000];
    let body = open_body(&[
        b"sleep", &word, &word, &word, &word, &word, &word, &word, &word, &word, &word,
    ]);
    growing_at_most(&labshd, 80 * MIB, || {
        for id in 1..=100 {
            peer.send(&[open_frames(id, &body), close(id)].concat());
        }
        round_trip(&mut peer, 1);
    });
    peer.check(101);
    assert_well(&labshd);
}

#[test]
fn unread_stdin_costs_no_more_than_its_window() {
    let labshd = Labshd::start();
    let mut peer = Peer::authenticated(&labshd);
    peer.send(&[open(1, &["true"]), close(1)].concat());
    for id in 2..=33 {
        peer.send(&open(id, &["sleep", "1000"]));
        peer.started(id);
    }
    // Small pieces that labshd buffers, each between large ones that it discards: together they
    // fill a read buffer.
    growing_at_most(&labshd, 64 * MIB, || {
        let filler = stdin(1, &[0; 60_000]).repeat(4);
        let piece = vec![b'x'; 4_096];
        for id in (2..=33).cycle().take(32 * 32) {
            peer.send(&[stdin(id, &piece), filler.clone()].concat());
            if id == 2 {
                round_trip(&mut peer, 1);
            }
        }
        round_trip(&mut peer, 2);
    });
    drop(peer);
    assert_well(&labshd);
}

#[test]
fn a_client_that_does_not_read_blocks_only_its_command() {
    let labshd = Labshd::start();
    // It gives no credit: one stream blocks.
    let mut starving = Peer::authenticated(&labshd);
    // It gives unlimited credit and reads nothing: its connection blocks.
    let mut deaf = Peer::authenticated(&labshd);
    growing_at_most(&labshd, 16 * MIB, || {
        starving.send(&open(1, &["yes"]));
        let credit = credit(1, Stream::Stdout, 0, 1 << 30);
        deaf.send(&[open(1, &["yes"]), credit].concat());
        eventually("both commands run", || commands(&labshd).len() == 2);
        for pid in commands(&labshd) {
            settled("what yes has written", || written(pid));
        }
        let mut received = 0;
        while received < limits::FIRST_OUTPUT_LIMIT {
            received += starving.until(Kind::Stdout, 1).body.len() as u64;
        }
        starving.check(2);
        assert_eq!(labshd.output(&["true"]).status.code(), Some(0));
    });
    // Once it reads, everything arrives.
    let mut received = 0;
    while received < 8 * MIB {
        received += deaf.until(Kind::Stdout, 1).body.len() as u64;
    }
    drop((starving, deaf));
    assert_well(&labshd);
}

fn written(pid: i32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    io.split_whitespace().nth(3).unwrap().parse().unwrap()
}

#[test]
fn a_flood_on_one_connection_does_not_stop_another() {
    let labshd = Labshd::start();
    let mut greedy = Peer::authenticated(&labshd);
    greedy.send(&[open(1, &["cat"]), credit(1, Stream::Stdout, 0, 1 << 30)].concat());
    let mut writer = greedy.writer();
    let flood = thread::spawn(move || {
        let pings = message(&Ping { token: 1 }, 0).repeat(1_000);
        while writer.write_all(&pings).is_ok() {}
    });
    for _ in 0..10 {
        assert_eq!(text(&labshd.output(&["echo", "well"]).stdout), "well\n");
    }
    greedy.stream.shutdown(std::net::Shutdown::Both).unwrap();
    flood.join().unwrap();
    drop(greedy);
    assert_well(&labshd);
}

#[test]
fn commands_with_very_many_words_and_variables_do_not_delay_others() {
    // With a single worker thread, a request that holds it blocks all others.
    let labshd = Labshd::launch("", |labshd| {
        labshd.env("TOKIO_WORKER_THREADS", "1");
    });
    let mut peer = Peer::authenticated(&labshd);
    let (words, variables) = (80_000, limits::MAX_VARIABLES);
    let words = [vec![b"env".to_vec()], vec![b"A=1".to_vec(); words]].concat();
    let open = Open {
        environment: (0..variables).map(|number| (format!("A{number}").into(), vec![])).collect(),
        ..Open::new(CommandId([7; 16]), Program::Argv(words))
    };
    let body = open.encode().unwrap();
    let last = 8;
    (1..=last).for_each(|id| peer.send(&open_frames(id, &body)));
    assert_eq!(labshd.output(&["true"]).status.code(), Some(0));
    let stdout = text(&peer.finish(last).stdout);
    let received = stdout.lines().filter(|line| line.starts_with('A')).count();
    assert_eq!(received, variables + 1, "variables are missing");
    drop(peer);
    assert_well(&labshd);
}

#[test]
fn the_memory_of_a_flood_is_returned() {
    let labshd = Labshd::start();
    assert_well(&labshd);
    let before = memory(labshd.pid());
    let mut peers: Vec<Peer> = (0..4).map(|_| Peer::authenticated(&labshd)).collect();
    let words: Vec<&[u8]> = [&b"true"[..]].into_iter().chain(vec![&b"x"[..]; 80_000]).collect();
    let body = open_body(&words);
    thread::scope(|scope| {
        for peer in &mut peers {
            let body = &body;
            scope.spawn(move || {
                (1..=20).for_each(|id| peer.send(&[open_frames(id, body), close(id)].concat()));
                round_trip(peer, 1);
            });
        }
    });
    println!("labshd: {} KiB, {} KiB after the flood", before >> 10, memory(labshd.pid()) >> 10);
    drop(peers);
    eventually("its memory is returned", || memory(labshd.pid()) < before + before / 2);
    assert_well(&labshd);
}

/// Lets a stopped process go on, at the end of a test too.
struct Stopped(i32);

impl Drop for Stopped {
    fn drop(&mut self) {
        kill(self.0, 18);
    }
}

#[test]
fn the_commands_of_one_key_do_not_delay_those_of_another() {
    let labshd = Labshd::start();
    let other_key = labshd.another_key("other");
    let mut greedy = Peer::authenticated(&labshd);
    let mut other = Peer::authenticated_with(&labshd, &other_key);
    let spawner = children(labshd.pid())[0];
    stop(spawner);
    let stopped = Stopped(spawner);
    const COMMANDS: u32 = 100;
    (1..=COMMANDS).for_each(|id| greedy.send(&open(id, &["true"])));
    round_trip(&mut greedy, 1);
    other.send(&open(1, &["true"]));
    round_trip(&mut other, 1);
    drop(stopped);
    other.finish(1);
    labshd.log().wait_for_nth("command started", COMMANDS as usize + 1);
    let log = labshd.log().text();
    let starts = log.lines().filter(|line| line.contains("command started"));
    let before = starts.take_while(|line| !line.contains("key=other")).count();
    assert!(before <= 20, "{before} commands of the other key came first");
    drop((greedy, other));
    assert_well(&labshd);
}

#[test]
fn commands_that_are_closed_before_they_start_hold_no_share_of_their_key() {
    let labshd = Labshd::start();
    let mut peer = Peer::authenticated(&labshd);
    let spawner = children(labshd.pid())[0];
    stop(spawner);
    let stopped = Stopped(spawner);
    // Closed before they have started: they hold no share afterwards.
    (1..=50).for_each(|id| peer.send(&[open(id, &["sleep", "1000"]), close(id)].concat()));
    round_trip(&mut peer, 1);
    drop(stopped);
    peer.check(51);
    drop(peer);
    assert_well(&labshd);
}

#[test]
fn an_endless_series_of_small_frames_does_not_delay_others() {
    // With a single worker thread, a task that does not yield blocks all others.
    let labshd = Labshd::launch("", |labshd| {
        labshd.env("TOKIO_WORKER_THREADS", "1");
    });
    let mut peer = Peer::authenticated(&labshd);
    peer.send(&[open(1, &["true"]), close(1)].concat());
    let mut writer = peer.writer();
    let (sent, first_sent) = std::sync::mpsc::channel();
    let flood = thread::spawn(move || {
        let frames = close(1).repeat(100_000);
        for _ in 0..40 {
            if writer.write_all(&frames).is_err() {
                return;
            }
            let _ = sent.send(());
        }
    });
    first_sent.recv().unwrap();
    assert_eq!(labshd.output(&["true"]).status.code(), Some(0));
    assert!(!flood.is_finished(), "the flood was processed first");
    peer.stream.shutdown(std::net::Shutdown::Both).unwrap();
    flood.join().unwrap();
    drop(peer);
    assert_well(&labshd);
}
