//! Encodes and decodes the messages between labshd and its spawner.
//!
//! Both ends are forks of the same program, so the format has no version. Every message is a header
//! (`length: u32`, `kind: u8`, three zero bytes, `id: u64`, big-endian) and a body of `length`
//! bytes. labshd chooses the id of a command and never reuses it.

use std::ffi::CStr;

use labsh_proto::message::{Status, Usage};
use nix::unistd::{Gid, Uid};

use super::messages::{Credentials, Failure, Malformed, Request, SpawnerOrder, SpawnerReply};
use super::{Ended, SpawnRequest, Terminal, WindowSize};

/// Length of a header, in bytes.
const HEADER_LEN: usize = 16;

/// Limit on a body's length, in bytes. Linux accepts at most 6 MiB of arguments and environment,
/// whatever the stack limit.
pub(super) const MAX_BODY_LEN: usize = 8 << 20;

/// Size of one read from the socket, in bytes.
pub(super) const READ_SIZE: usize = 64 << 10;

const SPAWN: u8 = 1;
const SIGNAL: u8 = 2;
const RELEASE: u8 = 3;
const SPAWNED: u8 = 4;
const FAILED: u8 = 5;
const ENDED: u8 = 6;
const END: u8 = 7;
const VACANT: u8 = 8;
const ATTEMPTED: u8 = 9;
const GONE: u8 = 10;

const HAS_PROGRAM: u8 = 1;
const FALLBACK_ROOT: u8 = 2;
const HAS_IDENTITY: u8 = 4;
const HAS_TERMINAL: u8 = 8;
const HAS_TERMINAL_GROUP: u8 = 16;
const DRY_RUN: u8 = 32;

/// Why a request cannot be encoded.
#[derive(Debug, PartialEq)]
pub(super) enum EncodeError {
    TooLarge,
    Invalid(&'static str),
}

/// Encodes an order to spawn.
///
/// # Errors
///
/// When no kernel would accept the request.
pub(super) fn encode_spawn(id: u64, request: &SpawnRequest) -> Result<Vec<u8>, EncodeError> {
    let strings =
        request.argv.iter().map(Vec::len).chain(request.env.iter().map(|(k, v)| k.len() + v.len()));
    if strings.sum::<usize>() > MAX_BODY_LEN / 2 {
        return Err(EncodeError::TooLarge);
    }
    if request.argv.is_empty() {
        return Err(EncodeError::Invalid("a command needs at least one word"));
    }
    let has_terminal_group = request.terminal.is_some_and(|terminal| terminal.group.is_some());
    let flags = [
        (request.program.is_some(), HAS_PROGRAM),
        (request.cwd_fallback_root, FALLBACK_ROOT),
        (request.identity.is_some(), HAS_IDENTITY),
        (request.dry_run, DRY_RUN),
        (request.terminal.is_some(), HAS_TERMINAL),
        (has_terminal_group, HAS_TERMINAL_GROUP),
    ];
    let mut message = MessageWriter::new(SPAWN, id);
    message.u8(flags.into_iter().fold(0, |sum, (set, flag)| if set { sum | flag } else { sum }));
    if let Some(identity) = &request.identity {
        message.u32(identity.uid);
        message.u32(identity.gid);
        message.count(identity.groups.len());
        for &group in &identity.groups {
            message.u32(group);
        }
    }
    if let Some(Terminal { size, group }) = &request.terminal {
        for value in [size.columns, size.rows, size.width, size.height] {
            message.u32(value.into());
        }
        if let Some(group) = *group {
            message.u32(group);
        }
    }
    message.count(request.argv.len());
    message.count(request.env.len());
    message.string(&[&request.cwd])?;
    if let Some(program) = &request.program {
        message.string(&[program])?;
    }
    for word in &request.argv {
        message.string(&[word])?;
    }
    for (name, value) in &request.env {
        if name.is_empty() || name.contains(&b'=') {
            return Err(EncodeError::Invalid(
                "the name of an environment variable is empty or contains '='",
            ));
        }
        message.string(&[name, b"=", value])?;
    }
    let bytes = message.finish();
    if bytes.len() - HEADER_LEN > MAX_BODY_LEN { Err(EncodeError::TooLarge) } else { Ok(bytes) }
}

/// Encodes an order to send a signal.
pub(super) fn encode_signal(id: u64, signal: i32) -> Vec<u8> {
    let mut message = MessageWriter::new(SIGNAL, id);
    message.u32(signal.cast_unsigned());
    message.finish()
}

/// Encodes an order to end a command by a signal.
pub(super) fn encode_end(id: u64, signal: i32, everything: bool) -> Vec<u8> {
    let mut message = MessageWriter::new(END, id);
    message.u32(signal.cast_unsigned());
    message.u8(everything.into());
    message.finish()
}

/// Encodes an order to release a command.
pub(super) fn encode_release(id: u64) -> Vec<u8> {
    MessageWriter::new(RELEASE, id).finish()
}

/// Encodes a reply.
pub(super) fn encode_reply(id: u64, reply: &SpawnerReply) -> Vec<u8> {
    let mut message;
    match reply {
        SpawnerReply::Attempted => message = MessageWriter::new(ATTEMPTED, id),
        SpawnerReply::Spawned(pid) => {
            message = MessageWriter::new(SPAWNED, id);
            message.u32(*pid);
        }
        SpawnerReply::Failed(failure) => {
            message = MessageWriter::new(FAILED, id);
            message.0.extend(failure.encode());
        }
        SpawnerReply::Ended(Ended { status, usage }) => {
            message = MessageWriter::new(ENDED, id);
            message.0.extend(match *status {
                Status::Exited(code) => [0, code],
                Status::Signaled { signal, core_dumped } => [1 + u8::from(core_dumped), signal],
            });
            message.u64(usage.wall);
            message.u64(usage.user);
            message.u64(usage.system);
            message.u64(usage.peak_memory);
        }
        SpawnerReply::Vacant => message = MessageWriter::new(VACANT, id),
        SpawnerReply::Gone => message = MessageWriter::new(GONE, id),
    }
    message.finish()
}

/// A message being encoded.
struct MessageWriter(Vec<u8>);

impl MessageWriter {
    fn new(kind: u8, id: u64) -> Self {
        let mut message = Self(vec![0, 0, 0, 0, kind, 0, 0, 0]);
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

    /// Saturates: a count above `u32::MAX` belongs to a body that exceeds the limit anyway.
    fn count(&mut self, value: usize) {
        self.u32(u32::try_from(value).unwrap_or(u32::MAX));
    }

    fn string(&mut self, parts: &[&[u8]]) -> Result<(), EncodeError> {
        for part in parts {
            if part.contains(&0) {
                return Err(EncodeError::Invalid(
                    "an argument, path or variable contains a NUL byte",
                ));
            }
            self.0.extend_from_slice(part);
        }
        self.0.push(0);
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len() - HEADER_LEN).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

/// A complete message whose body is not decoded yet.
pub(super) struct Envelope<'a> {
    pub(super) id: u64,
    kind: u8,
    body: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Decodes an order of labshd.
    pub(super) fn order(&self) -> Result<SpawnerOrder<'a>, Malformed> {
        let mut body = BodyReader(self.body);
        let order = match self.kind {
            SPAWN => SpawnerOrder::Spawn(body.request()?),
            SIGNAL => SpawnerOrder::Signal(body.u32()?.cast_signed()),
            END => SpawnerOrder::End {
                signal: body.u32()?.cast_signed(),
                everything: body.array()? != [0],
            },
            RELEASE => SpawnerOrder::Release,
            _ => return Err(Malformed),
        };
        body.finish(order)
    }

    /// Decodes a reply of the spawner.
    pub(super) fn reply(&self) -> Result<SpawnerReply, Malformed> {
        let mut body = BodyReader(self.body);
        let reply = match self.kind {
            ATTEMPTED => SpawnerReply::Attempted,
            SPAWNED => SpawnerReply::Spawned(body.u32()?),
            FAILED => SpawnerReply::Failed(Failure::decode(body.array()?)?),
            ENDED => SpawnerReply::Ended(body.ended()?),
            VACANT => SpawnerReply::Vacant,
            GONE => SpawnerReply::Gone,
            _ => return Err(Malformed),
        };
        body.finish(reply)
    }
}

/// The part of a body that is not decoded yet. Every method checks that enough bytes remain.
struct BodyReader<'a>(&'a [u8]);

impl<'a> BodyReader<'a> {
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
            dry_run: flags & DRY_RUN != 0,
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

/// Received bytes, taken out as complete messages.
#[derive(Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    taken: usize,
}

impl Inbox {
    /// Appends the bytes of one read.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        if self.bytes.is_empty() {
            // Every forked child inherits this memory, so a large request must not keep it large.
            self.bytes.shrink_to(READ_SIZE);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the next complete message, or `None` if more bytes are needed.
    pub(super) fn next(&mut self) -> Result<Option<Envelope<'_>>, Malformed> {
        let mut rest = BodyReader(&self.bytes[self.taken..]);
        if rest.0.len() < HEADER_LEN {
            return Ok(None);
        }
        let length = rest.u32()? as usize;
        let [kind, zeros @ ..]: [u8; 4] = rest.array()?;
        let id = rest.u64()?;
        if length > MAX_BODY_LEN || zeros != [0; 3] {
            return Err(Malformed);
        }
        let Some(body) = rest.0.get(..length) else { return Ok(None) };
        self.taken += HEADER_LEN + length;
        Ok(Some(Envelope { id, kind, body }))
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::super::Identity;
    use super::super::messages::Stage;
    use super::*;

    const SIZE: WindowSize = WindowSize { columns: u16::MAX, rows: 0, width: 640, height: 480 };

    fn request() -> SpawnRequest {
        SpawnRequest {
            argv: vec![b"-sh".to_vec(), b"".to_vec(), vec![b'x'; 100_000]],
            program: Some(b"/bin/sh".to_vec()),
            env: vec![(b"A".to_vec(), b"1=2".to_vec())],
            cwd: b"/srv".to_vec(),
            cwd_fallback_root: true,
            dry_run: true,
            identity: Some(Identity { uid: 1, gid: 2, groups: vec![3, 4] }),
            terminal: Some(Terminal { size: SIZE, group: Some(5) }),
        }
    }

    #[test]
    fn a_request_is_decoded_whatever_the_sizes_of_the_reads() {
        let bytes = encode_spawn(7, &request()).unwrap();
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
            let Ok(SpawnerOrder::Spawn(request)) = envelope.order() else {
                panic!("not an order to spawn")
            };
            assert_eq!(request.argv[..2], [c"-sh", c""]);
            assert_eq!(request.argv[2].count_bytes(), 100_000);
            assert_eq!(request.program, Some(c"/bin/sh"));
            assert_eq!(request.env, [c"A=1=2"]);
            assert_eq!(request.cwd, c"/srv");
            assert!(request.cwd_fallback_root && request.dry_run);
            let credentials = request.identity.unwrap();
            assert_eq!((credentials.uid.as_raw(), credentials.gid.as_raw()), (1, 2));
            assert_eq!(credentials.groups, [Gid::from_raw(3), Gid::from_raw(4)]);
            assert_eq!(request.terminal, Some(Terminal { size: SIZE, group: Some(5) }));
        }
    }

    #[test]
    fn a_truncated_or_extended_request_is_malformed() {
        let whole =
            encode_spawn(1, &SpawnRequest { argv: vec![b"true".to_vec()], ..request() }).unwrap();
        let body = &whole[HEADER_LEN..];
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
    fn a_request_that_no_kernel_accepts_is_not_encoded() {
        let with = |change: fn(&mut SpawnRequest)| {
            let mut request = request();
            change(&mut request);
            encode_spawn(1, &request).unwrap_err()
        };
        assert!(matches!(with(|r| r.argv.clear()), EncodeError::Invalid(_)));
        assert!(matches!(with(|r| r.argv[1] = vec![0]), EncodeError::Invalid(_)));
        assert!(matches!(with(|r| r.cwd = b"/a\0b".to_vec()), EncodeError::Invalid(_)));
        assert!(matches!(with(|r| r.env[0].0.clear()), EncodeError::Invalid(_)));
        assert!(matches!(with(|r| r.env[0].0 = b"A=".to_vec()), EncodeError::Invalid(_)));
        assert_eq!(with(|r| r.argv[1] = vec![b'x'; MAX_BODY_LEN]), EncodeError::TooLarge);
    }

    #[test]
    fn every_reply_is_decoded_as_it_was_encoded() {
        let usage = Usage { wall: 1, user: 2, system: 3, peak_memory: u64::MAX };
        let ended = |status| SpawnerReply::Ended(Ended { status, usage });
        let mut replies = vec![
            SpawnerReply::Attempted,
            SpawnerReply::Spawned(4_194_304),
            ended(Status::Exited(255)),
            ended(Status::Signaled { signal: 64, core_dumped: false }),
            ended(Status::Signaled { signal: 11, core_dumped: true }),
            SpawnerReply::Vacant,
            SpawnerReply::Gone,
        ];
        replies.extend(Stage::ALL.map(|stage| SpawnerReply::Failed(stage.failed(Errno::ENOENT))));
        let mut inbox = Inbox::default();
        for expected in &replies {
            inbox.extend(&encode_reply(9, expected));
        }
        for expected in &replies {
            let envelope = inbox.next().unwrap().unwrap();
            assert_eq!((envelope.id, &envelope.reply().unwrap()), (9, expected));
            let Some((_, short)) = envelope.body.split_last() else { continue };
            assert!(Envelope { id: 9, kind: envelope.kind, body: short }.reply().is_err());
        }
        assert!(inbox.next().unwrap().is_none());
    }

    #[test]
    fn an_invalid_header_is_malformed() {
        for header in [[0xff, 0, 0, 0, SPAWN, 0, 0, 0], [0, 0, 0, 0, SPAWN, 0, 0, 1]] {
            let mut inbox = Inbox::default();
            inbox.extend(&[header, [0; 8]].concat());
            assert!(inbox.next().is_err());
        }
        assert!(Envelope { id: 1, kind: 99, body: &[] }.order().is_err());
        assert!(Envelope { id: 1, kind: 99, body: &[] }.reply().is_err());
    }
}
