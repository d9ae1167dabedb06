//! A real session of labsh, message by message, on a wire that chops it and glues it.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use labsh_proto::frame::{Decoder, Frame, Kind};
use labsh_proto::limits::{HEADER_LENGTH, MAX_BODY};
use labsh_proto::message::{
    Body, Credit, Ended, Eof, Exit, Open, Program, Started, Status, Welcome,
};
use sha2::{Digest, Sha256};

use crate::flow::{Carrier, Flow};
use crate::language::counted;
use crate::language::{Language, Text};
use crate::real_session::{CommandOutput, RealSession};
use crate::shell::output_of;
use crate::sockets::{recv, with_timeouts};
use crate::stage::{LessonError, LessonResult, Stage};

/// What the proxy does with the bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    /// Passes them on as they come.
    Straight,
    /// Passes every single byte on by itself.
    Chopped,
    /// Holds everything back until the other end waits for it, and passes it on at once.
    Glued,
}

/// The largest glued block. A stream's first credit is larger, so whoever waits for credit has
/// filled a block.
const BLOCK: usize = 64 << 10;

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    let Some(real) = &stage.options().real_session else {
        return Err(LessonError::BadOption(Text::new(
            "this program has no labshd to show; run `labsh lesson wire`",
            "这个程序没有可供观察的 labshd；请运行 `labsh lesson wire`",
        )));
    };
    let line = stage.options().command.clone().unwrap_or_else(|| "seq 3".to_owned());
    output_of(&line)?; // tells at once if the command is of no use
    let straight = straight(stage, real, &line)?;
    cut(stage, real, &line, &straight, Wire::Chopped)?;
    cut(stage, real, &line, &straight, Wire::Glued)
}

/// The session as it is, each message explained.
fn straight(
    stage: &mut Stage,
    real: &RealSession,
    line: &str,
) -> Result<CommandOutput, LessonError> {
    stage.scene(("One command, message by message", "一条命令，逐条消息地看"))?;
    stage.say(
        (format!(
            "labsh runs `{line}` through a real labshd, in plain mode: without TLS, so that \
             everybody can read along. \
             Between the two sits a proxy of ours, which decodes every message and passes it on."
        ),
        format!(
            "labsh 通过真正的 labshd 执行 `{line}`，使用明文模式（plain mode）：没有 TLS，所以谁都能看懂。两者之间是我们\
             自己的代理，它解码每条消息，再原样转发。"
        )),
    )?;
    let watched = watch(real, line, Wire::Straight)?;
    let (before, behind) = watched
        .frames
        .split_at(watched.frames.iter().take_while(|(_, frame)| frame.kind != Kind::Open).count());
    stage.list(
        (
            "who is there? → from labsh, ← from labshd; kind, (channel), bytes of header + body",
            "对方是谁？→ 来自 labsh，← 来自 labshd；类型、（通道）、消息头 + 正文的字节数",
        ),
        table(before),
    )?;
    stage.list(("the command", "命令"), table(behind))?;
    stage.show(
        ("what labsh received from the command", "labsh 收到的命令输出"),
        &watched.ran.stdout,
    )?;
    stage.draw(&watched.up)?;
    stage.draw(&watched.down)?;
    stage.notice(
        ("First both ends prove that they know the key: challenge, response, welcome. Then `open` \
         says what to run. \
         `exit` says how it ended and how many bytes there were on each stream: what is missing \
         would show.",
        "先由双方证明自己知道密钥：challenge、response、welcome。然后 `open` 说明要执行什么。`exit` 说明怎样结束、每个流共有\
         多少字节：少了一个字节也看得出来。"),
    )?;
    let count = |kind| watched.frames.iter().filter(|(_, frame)| frame.kind == kind).count();
    let (messages, data) = (watched.frames.len(), watched.ran.stdout.len());
    stage.fact(
        count(Kind::Open) == 1 && count(Kind::Exit) == 1 && watched.sent() == watched.ran.stdout,
        (format!(
            "{messages} messages passed, and their stdout bodies are the {data} bytes of the output"
        ),
        format!("经过了 {messages} 条消息，其中 stdout 消息的正文正是输出的 {data} 字节")),
    )?;
    Ok(watched.ran)
}

/// The same command through a proxy that does its worst.
fn cut(
    stage: &mut Stage,
    real: &RealSession,
    line: &str,
    straight: &CommandOutput,
    wire: Wire,
) -> LessonResult {
    if wire == Wire::Chopped {
        stage.scene(("The same, chopped into single bytes", "同样的会话，切成一个个字节"))?;
    } else {
        stage.scene(("The same, glued into large blocks", "同样的会话，粘成大块"))?;
    }
    let watched = watch(real, line, wire)?;
    let pieces = |flow: &Flow| {
        let record = flow.record();
        let lengths: Vec<u64> = record
            .steps
            .iter()
            .filter(|step| step.kind == crate::flow::StepKind::Read)
            .map(|step| step.end - step.start)
            .collect();
        (record.messages.len(), lengths.len(), lengths.into_iter().max().unwrap_or(0))
    };
    stage.draw(&watched.up)?;
    stage.draw(&watched.down)?;
    let (messages, writes, largest) = pieces(&watched.down);
    let holds = match wire {
        Wire::Chopped => largest == 1 && writes > messages,
        Wire::Straight | Wire::Glued => writes < messages,
    };
    stage.fact(
        holds,
        (
            format!(
                "labshd's {messages} messages were passed on in {writes} pieces, the largest of {}",
                counted(largest as usize, "byte")
            ),
            format!("labshd 的 {messages} 条消息被分成 {writes} 块转发，最大的一块 {largest} 字节"),
        ),
    )?;
    let whole = watched.sent() == watched.ran.stdout;
    if whole && watched.ran != *straight {
        // Not the wire's doing: labshd itself sent something else than before.
        return Err(LessonError::BadOption(Text::new(
            format!(
                "`{line}` does something else each time; choose a command that always prints the \
                 same"
            ),
            format!("`{line}` 每次的结果都不一样；请换一条输出固定的命令"),
        )));
    }
    let (size, digest) = (watched.ran.stdout.len(), digest(&watched.ran.stdout));
    stage.fact(
        whole,
        (
            format!("the result is the same: {}, SHA-256 {digest}…", counted(size, "byte")),
            format!("结果相同：{size} 字节，SHA-256 {digest}…"),
        ),
    )?;
    if wire == Wire::Glued {
        stage.notice(
            ("Neither end noticed anything. Where a message begins and ends stands in its header, \
             and nowhere else: not in \
             the writes, not in the segments, not in the reads.",
            "两端都毫无察觉。一条消息从哪里开始、到哪里结束，只写在它的消息头里：与怎样写、怎样分段、怎样读都无关。"),
        )?;
    }
    Ok(())
}

/// A session that has been watched: every message with its direction, in the order in which they
/// passed.
struct Watched {
    ran: CommandOutput,
    frames: Vec<(char, Frame)>,
    up: Flow,
    down: Flow,
}

impl Watched {
    /// What labshd sent of the command's stdout, whatever became of it behind the proxy.
    fn sent(&self) -> Vec<u8> {
        let stdout = self.frames.iter().filter(|(_, frame)| frame.kind == Kind::Stdout);
        stdout.flat_map(|(_, frame)| frame.body.to_vec()).collect()
    }
}

type Passed = Arc<Mutex<Vec<(char, Frame)>>>;

/// Runs a command through a proxy.
fn watch(real: &RealSession, line: &str, wire: Wire) -> Result<Watched, LessonError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let flow = |label: &str| Flow::over(Carrier::Proxy, label);
    let (up, down) = (flow("labsh → labshd"), flow("labshd → labsh"));
    let passed = Passed::default();
    let server = real.server;
    let ran = thread::scope(|scope| {
        let proxy = scope.spawn(|| proxy(&listener, server, wire, &passed, [&up, &down]));
        let ran = (real.run_line)(address, line);
        if ran.is_err() {
            // Where labsh never came, the proxy must not wait for it.
            let _ = TcpStream::connect(address);
        }
        let proxied = proxy.join().map_err(|_| io::Error::other("the proxy's thread panicked"))?;
        let ran =
            ran.map_err(|error| LessonError::BadOption(format!("`{line}`: {error}").into()))?;
        proxied?;
        Ok::<_, LessonError>(ran)
    })?;
    let frames = passed.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Watched { ran, frames, up, down })
}

/// Joins labsh to labshd, both ways, until both have closed.
fn proxy(
    listener: &TcpListener,
    labshd: SocketAddr,
    wire: Wire,
    passed: &Passed,
    [up, down]: [&Flow; 2],
) -> io::Result<()> {
    let client = with_timeouts(listener.accept()?.0)?;
    let server = with_timeouts(TcpStream::connect(labshd)?)?;
    for socket in [&client, &server] {
        socket.set_nodelay(true)?; // a single byte is to be a segment of its own
    }
    thread::scope(|scope| {
        let upwards = scope.spawn(|| pass_on('→', &client, &server, wire, up, passed));
        let downwards = pass_on('←', &server, &client, wire, down, passed);
        let upwards =
            upwards.join().map_err(|_| io::Error::other("the proxy's thread panicked"))?;
        upwards.and(downwards)
    })
}

/// One direction.
fn pass_on(
    arrow: char,
    from: &TcpStream,
    mut to: &TcpStream,
    wire: Wire,
    flow: &Flow,
    passed: &Passed,
) -> io::Result<()> {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; BLOCK];
    let mut block = Vec::new();
    loop {
        let count = recv(from, &mut buffer)?;
        block.extend_from_slice(&buffer[..count]);
        decoder.buffer().extend_from_slice(&buffer[..count]);
        let mut waited_for = count == 0;
        while let Some(frame) = decoder.next_frame(MAX_BODY).map_err(io::Error::other)? {
            flow.message(frame.kind.name());
            flow.wrote(&[&frame.header().encode()[..], &frame.body].concat());
            waited_for |= is_waited_for(arrow, frame.kind);
            passed.lock().unwrap_or_else(PoisonError::into_inner).push((arrow, frame));
        }
        if wire == Wire::Glued && !waited_for && block.len() < BLOCK {
            continue;
        }
        for piece in block.chunks(if wire == Wire::Chopped { 1 } else { BLOCK }) {
            to.write_all(piece)?;
            flow.read(piece);
        }
        block.clear();
        if count == 0 {
            break;
        }
    }
    // The end travels on; it may have arrived there by another way already.
    let _ = to.shutdown(Shutdown::Write);
    Ok(())
}

/// Whether the other end, or its command, does nothing before it has this message: to hold it back
/// would be to wait for ever.
fn is_waited_for(arrow: char, kind: Kind) -> bool {
    match arrow {
        '→' => !matches!(kind, Kind::Open | Kind::Close),
        _ => matches!(
            kind,
            Kind::Challenge | Kind::Welcome | Kind::Credit | Kind::Exit | Kind::Refuse
        ),
    }
}

/// A message a line: direction, kind, channel, bytes of header and body, and what it says.
fn table(frames: &[(char, Frame)]) -> Text {
    let row = |(arrow, frame): &(char, Frame), language| {
        let (kind, size, meaning) = (frame.kind.name(), frame.body.len(), meaning(frame));
        let meaning = meaning.get(language);
        let row = format!(
            "{arrow} {kind:<9} ({})  {HEADER_LENGTH} + {size:<5}  {meaning}",
            frame.channel
        );
        row.trim_end().to_owned()
    };
    let rows =
        |language| frames.iter().map(|passed| row(passed, language)).collect::<Vec<_>>().join("\n");
    Text::new(rows(Language::English), rows(Language::Chinese))
}

/// What stands in the body, by the names of docs/PROTOCOL.md.
fn meaning(frame: &Frame) -> Text {
    fn of<B: Body>(frame: &Frame, words: impl Fn(B) -> Text) -> Text {
        B::from_frame(frame).map_or_else(|error| error.to_string().into(), words)
    }
    match frame.kind {
        Kind::Challenge => ("server_nonce: 32 random bytes", "server_nonce：32 个随机字节").into(),
        Kind::Response => {
            ("client_nonce, proof: HMAC-SHA256", "client_nonce、proof（HMAC-SHA256）").into()
        }
        Kind::Ping => ("a sign of life", "报个到").into(),
        Kind::Welcome => of(frame, |welcome: Welcome| {
            let version = welcome.version.unwrap_or_else(|| "labshd".to_owned());
            let channels = welcome.channels;
            let english = format!("proof, up to {channels} channels, from {version}");
            (english, format!("proof，最多 {channels} 个通道，来自 {version}")).into()
        }),
        Kind::Open => Open::decode(&frame.body)
            .map_or_else(|error| error.to_string(), |open| program(&open))
            .into(),
        Kind::Started => of(frame, |started: Started| format!("pid {}", started.pid).into()),
        Kind::Eof => of(frame, |eof: Eof| {
            (format!("{} has ended", eof.stream), format!("{} 到此为止", eof.stream)).into()
        }),
        Kind::Credit => of(frame, |Credit { stream, consumed, limit }| {
            let english = format!("{stream}: {consumed} consumed, up to {limit}");
            (english, format!("{stream}：已取走 {consumed}，可以发到 {limit}")).into()
        }),
        Kind::Ended => of(frame, |ended: Ended| status(ended.status)),
        Kind::Exit => of(frame, |exit: Exit| {
            let (status, stdout, stderr) = (status(exit.status), exit.stdout, exit.stderr);
            let english = format!(
                "{}, stdout {stdout} bytes, stderr {stderr} bytes",
                status.get(Language::English)
            );
            let chinese = format!(
                "{}，stdout {stdout} 字节，stderr {stderr} 字节",
                status.get(Language::Chinese)
            );
            (english, chinese).into()
        }),
        Kind::Close => ("the channel's slot is free again", "交还通道").into(),
        Kind::Stdin | Kind::Stdout | Kind::Stderr => {
            let text =
                String::from_utf8_lossy(&frame.body[..frame.body.len().min(24)]).into_owned();
            format!("{text:?}{}", if frame.body.len() > 24 { "…" } else { "" }).into()
        }
        _ => Text::default(),
    }
}

fn program(open: &Open) -> String {
    match &open.program {
        Program::Argv(words) => {
            format!(
                "argv {:?}",
                words.iter().map(|w| String::from_utf8_lossy(w)).collect::<Vec<_>>()
            )
        }
        Program::Shell(line) => format!("shell: {}", String::from_utf8_lossy(line)),
        Program::LoginShell => "login shell".to_owned(),
        Program::Subsystem(name) => format!("subsystem {}", String::from_utf8_lossy(name)),
    }
}

fn status(status: Status) -> Text {
    match status {
        Status::Exited(code) => (format!("exited {code}"), format!("退出码 {code}")).into(),
        Status::Signaled { signal, .. } => {
            (format!("ended by signal {signal}"), format!("被信号 {signal} 终止")).into()
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
