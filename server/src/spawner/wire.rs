//! The private messages between labshd and its spawner: changes when either has something new to
//! say.
//!
//! Both ends are the same program, forked apart, so there are no versions. Every message is a fixed
//! header (`length: u32`, `kind: u8`, three zero bytes, `id: u64`, big-endian) and `length` bytes
//! of body. The id is the command's, chosen by labshd and never used twice.

use std::ffi::CStr;

use labsh_proto::message::{Status, Usage};
use nix::errno::Errno;
use nix::unistd::{Gid, Uid};

use super::{Ended, SpawnRequest, Terminal, WindowSize};

const HEADER: usize = 16;

/// The largest body: above the 6 MiB that Linux takes for arguments and environment whatever the
/// stack limit.
pub(super) const MAX_BODY: usize = 8 << 20;

/// How much is read from the socket at once.
pub(super) const CHUNK: usize = 64 << 10;

/// A message that cannot be: the two halves disagree, which is a bug and not a peer's doing.
#[derive(Debug, thiserror::Error)]
#[error("a malformed message between labshd and its spawner")]
pub(super) struct Malformed;

/// From labshd to the spawner.
pub(super) enum Order<'a> {
    /// Start a command. Answered by `Spawned` or `Failed`.
    Spawn(Request<'a>),
    /// Send this signal to the command.
    Signal(i32),
    /// Tell the command that nobody is there any more.
    HangUp,
    /// Kill the command if its leader still runs, and reap that once it has ended; nothing more
    /// will be asked, and nothing more is answered.
    Release,
}

/// From the spawner to labshd.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// The program has been executed. Descriptors travel with the first byte: the labshd ends of
    /// stdin, stdout and stderr, or the master of its terminal.
    Spawned(u32),
    /// The command did not start, and nothing of it remains.
    Failed(Failure),
    /// The leader has ended.
    Ended(Ended),
}

/// A [`SpawnRequest`] as the spawner sees it. Strings travel with their terminating zero, so that
/// exec can be pointed at the message itself.
#[derive(Clone)]
pub(super) struct Request<'a> {
    pub(super) argv: Vec<&'a CStr>,
    pub(super) program: Option<&'a CStr>,
    pub(super) env: Vec<&'a CStr>,
    pub(super) cwd: &'a CStr,
    pub(super) cwd_fallback_root: bool,
    pub(super) rehearse: bool,
    pub(super) identity: Option<Credentials>,
    pub(super) terminal: Option<Terminal>,
}

/// An [`Identity`](super::Identity) in the types of the system calls.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) groups: Vec<Gid>,
}

/// What was being done when starting a command failed, and the kernel's reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    pub(super) errno: Errno,
}

/// The steps to a running command, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    Pipes,
    Terminal,
    Fork,
    Watch,
    Session,
    Descriptors,
    Signals,
    Limits,
    Identity,
    Directory,
    Interpreter,
    Execute,
}

impl Stage {
    const ALL: [Stage; 12] = {
        use Stage::*;
        [
            Pipes,
            Terminal,
            Fork,
            Watch,
            Session,
            Descriptors,
            Signals,
            Limits,
            Identity,
            Directory,
            Interpreter,
            Execute,
        ]
    };

    pub(super) fn failed(self, errno: Errno) -> Failure {
        Failure { stage: self, errno }
    }
}

impl Failure {
    /// Small enough that a pipe takes it whole.
    pub(super) const SIZE: usize = 5;

    pub(super) fn encode(self) -> [u8; Self::SIZE] {
        let [a, b, c, d] = (self.errno as i32).to_be_bytes();
        [self.stage as u8, a, b, c, d]
    }

    pub(super) fn decode(bytes: [u8; Self::SIZE]) -> Result<Failure, Malformed> {
        let [stage, errno @ ..] = bytes;
        let stage = *Stage::ALL.get(usize::from(stage)).ok_or(Malformed)?;
        Ok(stage.failed(Errno::from_raw(i32::from_be_bytes(errno))))
    }
}

const SPAWN: u8 = 1;
const SIGNAL: u8 = 2;
const RELEASE: u8 = 3;
const SPAWNED: u8 = 4;
const FAILED: u8 = 5;
const ENDED: u8 = 6;
const HANG_UP: u8 = 7;

const HAS_PROGRAM: u8 = 1;
const FALLBACK_ROOT: u8 = 2;
const HAS_IDENTITY: u8 = 4;
const HAS_TERMINAL: u8 = 8;
const HAS_TERMINAL_GROUP: u8 = 16;
const REHEARSE: u8 = 32;

/// The bytes of a request to spawn, or the reason why no kernel would take it.
pub(super) fn spawn(id: u64, request: &SpawnRequest) -> Result<Vec<u8>, Unfit> {
    let strings =
        request.argv.iter().map(Vec::len).chain(request.env.iter().map(|(k, v)| k.len() + v.len()));
    if strings.sum::<usize>() > MAX_BODY / 2 {
        return Err(Unfit::TooLarge);
    }
    if request.argv.is_empty() {
        return Err(Unfit::Invalid("a command needs at least one word"));
    }
    let mut message = Message::new(SPAWN, id);
    message.u8(if request.program.is_some() { HAS_PROGRAM } else { 0 }
        | if request.cwd_fallback_root { FALLBACK_ROOT } else { 0 }
        | if request.identity.is_some() { HAS_IDENTITY } else { 0 }
        | if request.rehearse { REHEARSE } else { 0 }
        | if request.terminal.is_some() { HAS_TERMINAL } else { 0 }
        | if request.terminal.is_some_and(|terminal| terminal.group.is_some()) {
            HAS_TERMINAL_GROUP
        } else {
            0
        });
    if let Some(identity) = &request.identity {
        message.u32(identity.uid);
        message.u32(identity.gid);
        message.count(identity.groups.len());
        identity.groups.iter().for_each(|&group| message.u32(group));
    }
    if let Some(Terminal { size, group }) = &request.terminal {
        [size.columns, size.rows, size.width, size.height]
            .into_iter()
            .for_each(|value| message.u32(value.into()));
        group.iter().for_each(|&group| message.u32(group));
    }
    message.count(request.argv.len());
    message.count(request.env.len());
    message.string(&[&request.cwd])?;
    request.program.iter().try_for_each(|program| message.string(&[program]))?;
    request.argv.iter().try_for_each(|word| message.string(&[word]))?;
    for (name, value) in &request.env {
        if name.is_empty() || name.contains(&b'=') {
            return Err(Unfit::Invalid("an environment variable's name is empty or holds '='"));
        }
        message.string(&[name, b"=", value])?;
    }
    let bytes = message.finish();
    if bytes.len() - HEADER > MAX_BODY { Err(Unfit::TooLarge) } else { Ok(bytes) }
}

/// Why a request cannot be put into words.
#[derive(Debug, PartialEq)]
pub(super) enum Unfit {
    TooLarge,
    Invalid(&'static str),
}

/// The bytes of an order to send a signal.
pub(super) fn signal(id: u64, signal: i32) -> Vec<u8> {
    let mut message = Message::new(SIGNAL, id);
    message.u32(signal.cast_unsigned());
    message.finish()
}

/// The bytes of an order to hang up.
pub(super) fn hang_up(id: u64) -> Vec<u8> {
    Message::new(HANG_UP, id).finish()
}

/// The bytes of an order to reap.
pub(super) fn release(id: u64) -> Vec<u8> {
    Message::new(RELEASE, id).finish()
}

/// The bytes of an answer.
pub(super) fn answer(id: u64, answer: &Answer) -> Vec<u8> {
    let mut message;
    match answer {
        Answer::Spawned(pid) => {
            message = Message::new(SPAWNED, id);
            message.u32(*pid);
        }
        Answer::Failed(failure) => {
            message = Message::new(FAILED, id);
            message.0.extend(failure.encode());
        }
        Answer::Ended(Ended { status, usage }) => {
            message = Message::new(ENDED, id);
            message.0.extend(match *status {
                Status::Exited(code) => [0, code],
                Status::Signaled { signal, core_dumped } => [1 + u8::from(core_dumped), signal],
            });
            message.u64(usage.wall);
            message.u64(usage.user);
            message.u64(usage.system);
            message.u64(usage.peak_memory);
        }
    }
    message.finish()
}

/// A message being written.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u8, id: u64) -> Message {
        let mut message = Message(vec![0, 0, 0, 0, kind, 0, 0, 0]);
        message.u64(id);
        message
    }

    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_be_bytes());
    }

    /// Saturating: a count that does not fit makes a body above every limit.
    fn count(&mut self, value: usize) {
        self.u32(u32::try_from(value).unwrap_or(u32::MAX));
    }

    fn string(&mut self, parts: &[&[u8]]) -> Result<(), Unfit> {
        for part in parts {
            if part.contains(&0) {
                return Err(Unfit::Invalid("a word, path or variable holds a zero byte"));
            }
            self.0.extend_from_slice(part);
        }
        self.0.push(0);
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len() - HEADER).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

/// One whole message, not yet understood.
pub(super) struct Envelope<'a> {
    pub(super) id: u64,
    kind: u8,
    body: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// What labshd asks.
    pub(super) fn order(&self) -> Result<Order<'a>, Malformed> {
        let mut body = Reader(self.body);
        let order = match self.kind {
            SPAWN => Order::Spawn(body.request()?),
            SIGNAL => Order::Signal(body.u32()?.cast_signed()),
            HANG_UP => Order::HangUp,
            RELEASE => Order::Release,
            _ => return Err(Malformed),
        };
        body.finish(order)
    }

    /// What the spawner tells.
    pub(super) fn answer(&self) -> Result<Answer, Malformed> {
        let mut body = Reader(self.body);
        let answer = match self.kind {
            SPAWNED => Answer::Spawned(body.u32()?),
            FAILED => Answer::Failed(Failure::decode(body.array()?)?),
            ENDED => Answer::Ended(body.ended()?),
            _ => return Err(Malformed),
        };
        body.finish(answer)
    }
}

/// A body being read; every step checks that the bytes are there.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    fn string(&mut self) -> Result<&'a CStr, Malformed> {
        let string = CStr::from_bytes_until_nul(self.0).map_err(|_| Malformed)?;
        self.0 = &self.0[string.count_bytes() + 1..];
        Ok(string)
    }

    fn request(&mut self) -> Result<Request<'a>, Malformed> {
        let [flags] = self.array()?;
        let identity = if flags & HAS_IDENTITY == 0 { None } else { Some(self.credentials()?) };
        let terminal = if flags & HAS_TERMINAL == 0 { None } else { Some(self.terminal(flags)?) };
        let words = self.u32()?;
        let variables = self.u32()?;
        if words == 0 {
            return Err(Malformed);
        }
        Ok(Request {
            identity,
            terminal,
            cwd: self.string()?,
            cwd_fallback_root: flags & FALLBACK_ROOT != 0,
            rehearse: flags & REHEARSE != 0,
            program: if flags & HAS_PROGRAM == 0 { None } else { Some(self.string()?) },
            argv: (0..words).map(|_| self.string()).collect::<Result<_, _>>()?,
            env: (0..variables).map(|_| self.string()).collect::<Result<_, _>>()?,
        })
    }

    fn terminal(&mut self, flags: u8) -> Result<Terminal, Malformed> {
        let mut value = || u16::try_from(self.u32()?).map_err(|_| Malformed);
        let size =
            WindowSize { columns: value()?, rows: value()?, width: value()?, height: value()? };
        Ok(Terminal {
            size,
            group: if flags & HAS_TERMINAL_GROUP == 0 { None } else { Some(self.u32()?) },
        })
    }

    fn credentials(&mut self) -> Result<Credentials, Malformed> {
        let uid = Uid::from_raw(self.u32()?);
        let gid = Gid::from_raw(self.u32()?);
        let count = self.u32()?;
        let groups = (0..count).map(|_| self.u32().map(Gid::from_raw)).collect::<Result<_, _>>()?;
        Ok(Credentials { uid, gid, groups })
    }

    fn ended(&mut self) -> Result<Ended, Malformed> {
        let status = match self.array()? {
            [0, code] => Status::Exited(code),
            [how @ (1 | 2), signal] => Status::Signaled { signal, core_dumped: how == 2 },
            _ => return Err(Malformed),
        };
        let usage = Usage {
            wall: self.u64()?,
            user: self.u64()?,
            system: self.u64()?,
            peak_memory: self.u64()?,
        };
        Ok(Ended { status, usage })
    }

    fn finish<T>(self, value: T) -> Result<T, Malformed> {
        if self.0.is_empty() { Ok(value) } else { Err(Malformed) }
    }
}

/// Bytes that have arrived, given out as whole messages.
#[derive(Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    taken: usize,
}

impl Inbox {
    /// Adds what a read has brought.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        if self.bytes.is_empty() {
            // Every child starts with what the spawner holds: one huge request must not stay for
            // good.
            self.bytes.shrink_to(CHUNK);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more has arrived.
    pub(super) fn next(&mut self) -> Result<Option<Envelope<'_>>, Malformed> {
        let mut rest = Reader(&self.bytes[self.taken..]);
        if rest.0.len() < HEADER {
            return Ok(None);
        }
        let length = rest.u32()? as usize;
        let [kind, zeros @ ..]: [u8; 4] = rest.array()?;
        let id = rest.u64()?;
        if length > MAX_BODY || zeros != [0; 3] {
            return Err(Malformed);
        }
        let Some(body) = rest.0.get(..length) else { return Ok(None) };
        self.taken += HEADER + length;
        Ok(Some(Envelope { id, kind, body }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Identity;
    use super::*;

    const SIZE: WindowSize = WindowSize { columns: u16::MAX, rows: 0, width: 640, height: 480 };

    fn request() -> SpawnRequest {
        SpawnRequest {
            argv: vec![b"-sh".to_vec(), b"".to_vec(), vec![b'x'; 100_000]],
            program: Some(b"/bin/sh".to_vec()),
            env: vec![(b"A".to_vec(), b"1=2".to_vec())],
            cwd: b"/srv".to_vec(),
            cwd_fallback_root: true,
            rehearse: true,
            identity: Some(Identity { uid: 1, gid: 2, groups: vec![3, 4] }),
            terminal: Some(Terminal { size: SIZE, group: Some(5) }),
        }
    }

    #[test]
    fn a_request_arrives_as_it_was_made_however_it_is_cut() {
        let bytes = spawn(7, &request()).unwrap();
        for size in [1, 15, 16, 17, 4096, bytes.len()] {
            let mut inbox = Inbox::default();
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            let (last, first) = pieces.split_last().unwrap();
            for chunk in first {
                inbox.extend(chunk);
                assert!(inbox.next().unwrap().is_none());
            }
            inbox.extend(last);
            let envelope = inbox.next().unwrap().unwrap();
            assert_eq!(envelope.id, 7);
            let Ok(Order::Spawn(request)) = envelope.order() else { panic!("not a request") };
            assert_eq!(request.argv[..2], [c"-sh", c""]);
            assert_eq!(request.argv[2].count_bytes(), 100_000);
            assert_eq!(request.program, Some(c"/bin/sh"));
            assert_eq!(request.env, [c"A=1=2"]);
            assert_eq!(request.cwd, c"/srv");
            assert!(request.cwd_fallback_root && request.rehearse);
            let credentials = request.identity.unwrap();
            assert_eq!((credentials.uid.as_raw(), credentials.gid.as_raw()), (1, 2));
            assert_eq!(credentials.groups, [Gid::from_raw(3), Gid::from_raw(4)]);
            assert_eq!(request.terminal, Some(Terminal { size: SIZE, group: Some(5) }));
        }
    }

    #[test]
    fn a_request_that_is_too_short_or_too_long_is_an_error() {
        let whole = spawn(1, &SpawnRequest { argv: vec![b"true".to_vec()], ..request() }).unwrap();
        let body = &whole[HEADER..];
        for length in 0..body.len() {
            assert!(
                Envelope { id: 1, kind: SPAWN, body: &body[..length] }.order().is_err(),
                "{length}"
            );
        }
        let longer = [body, &[0]].concat();
        assert!(Envelope { id: 1, kind: SPAWN, body: &longer }.order().is_err());
    }

    #[test]
    fn what_no_kernel_would_take_is_not_sent() {
        let with = |change: fn(&mut SpawnRequest)| {
            let mut request = request();
            change(&mut request);
            spawn(1, &request).unwrap_err()
        };
        assert!(matches!(with(|r| r.argv.clear()), Unfit::Invalid(_)));
        assert!(matches!(with(|r| r.argv[1] = vec![0]), Unfit::Invalid(_)));
        assert!(matches!(with(|r| r.cwd = b"/a\0b".to_vec()), Unfit::Invalid(_)));
        assert!(matches!(with(|r| r.env[0].0.clear()), Unfit::Invalid(_)));
        assert!(matches!(with(|r| r.env[0].0 = b"A=".to_vec()), Unfit::Invalid(_)));
        assert_eq!(with(|r| r.argv[1] = vec![b'x'; MAX_BODY]), Unfit::TooLarge);
    }

    #[test]
    fn every_answer_arrives_as_it_was_given() {
        let usage = Usage { wall: 1, user: 2, system: 3, peak_memory: u64::MAX };
        let ended = |status| Answer::Ended(Ended { status, usage });
        let mut answers = vec![
            Answer::Spawned(4_194_304),
            ended(Status::Exited(255)),
            ended(Status::Signaled { signal: 64, core_dumped: false }),
            ended(Status::Signaled { signal: 11, core_dumped: true }),
        ];
        answers.extend(Stage::ALL.map(|stage| Answer::Failed(stage.failed(Errno::ENOENT))));
        let mut inbox = Inbox::default();
        for expected in &answers {
            inbox.extend(&answer(9, expected));
        }
        for expected in &answers {
            let envelope = inbox.next().unwrap().unwrap();
            assert_eq!((envelope.id, &envelope.answer().unwrap()), (9, expected));
            let short = &envelope.body[..envelope.body.len() - 1];
            assert!(Envelope { id: 9, kind: envelope.kind, body: short }.answer().is_err());
        }
        assert!(inbox.next().unwrap().is_none());
    }

    #[test]
    fn a_header_that_cannot_be_is_an_error() {
        for header in [[0xff, 0, 0, 0, SPAWN, 0, 0, 0], [0, 0, 0, 0, SPAWN, 0, 0, 1]] {
            let mut inbox = Inbox::default();
            inbox.extend(&[header, [0; 8]].concat());
            assert!(inbox.next().is_err());
        }
        assert!(Envelope { id: 1, kind: 99, body: &[] }.order().is_err());
        assert!(Envelope { id: 1, kind: 99, body: &[] }.answer().is_err());
    }
}
