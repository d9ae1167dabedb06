//! What the messages of a session say, by the names of docs/PROTOCOL.md.

use labsh_proto::frame::{Frame, Kind};
use labsh_proto::limits::HEADER_LENGTH;
use labsh_proto::message::{
    Body, Credit, Ended, Eof, Exit, Open, Program, Started, Status, Welcome,
};
use labsh_proto::signal_name::signal_name;

use super::proxy::{Message, Sender};
use crate::language::{Language, Text, text};

/// Bytes of a stream's data that are shown.
const MAX_DATA_BYTES: usize = 24;

/// Returns a line for each message: direction, kind, channel, bytes of header and body, meaning.
pub(super) fn table(messages: &[Message]) -> Text {
    let line = |message: &Message| {
        let (frame, arrow) = (&message.frame, arrow(message.sender));
        let (kind, size, meaning) = (frame.kind.name(), frame.body.len(), meaning(frame));
        let columns =
            format!("{arrow} {kind:<9} ({})  {HEADER_LENGTH} + {size:<5}  ", frame.channel);
        let line = |language| format!("{columns}{}", meaning.get(language)).trim_end().to_owned();
        Text::new(line(Language::English), line(Language::Chinese))
    };
    Text::lines(messages.iter().map(line))
}

fn arrow(sender: Sender) -> char {
    match sender {
        Sender::Labsh => '→',
        Sender::Labshd => '←',
    }
}

fn meaning(frame: &Frame) -> Text {
    match frame.kind {
        Kind::Challenge => ("server_nonce: 32 random bytes", "server_nonce：32 个随机字节").into(),
        Kind::Response => {
            ("client_nonce, proof: HMAC-SHA256", "client_nonce、proof（HMAC-SHA256）").into()
        }
        Kind::Ping => ("probes the peer", "探测对端").into(),
        Kind::Welcome => decoded(frame, welcome),
        Kind::Open => Open::decode(&frame.body)
            .map_or_else(|error| error.to_string(), |open| program(&open.program))
            .into(),
        Kind::Started => decoded(frame, |started: Started| format!("pid {}", started.pid).into()),
        Kind::Eof => {
            decoded(frame, |Eof { stream }| text!("{stream} has ended", "{stream} 到此为止"))
        }
        Kind::Credit => decoded(frame, |Credit { stream, consumed, limit }| {
            text!(
                "{stream}: {consumed} consumed, up to {limit}",
                "{stream}：已取走 {consumed}，可以发到 {limit}"
            )
        }),
        Kind::Ended => decoded(frame, |ended: Ended| status(ended.status)),
        Kind::Exit => decoded(frame, exit),
        Kind::Close => ("frees the channel", "释放通道").into(),
        Kind::Stdin | Kind::Stdout | Kind::Stderr => data(&frame.body).into(),
        _ => Text::default(),
    }
}

/// Returns the meaning of a body, or why it cannot be decoded.
fn decoded<B: Body>(frame: &Frame, meaning: impl Fn(B) -> Text) -> Text {
    B::from_frame(frame).map_or_else(|error| error.to_string().into(), meaning)
}

fn welcome(welcome: Welcome) -> Text {
    let version = welcome.version.unwrap_or_else(|| "labshd".to_owned());
    let channels = welcome.channels;
    text!(
        "proof, up to {channels} channels, from {version}",
        "proof，最多 {channels} 个通道，来自 {version}"
    )
}

fn exit(exit: Exit) -> Text {
    let (status, stdout, stderr) = (status(exit.status), exit.stdout, exit.stderr);
    let (english, chinese) = (status.get(Language::English), status.get(Language::Chinese));
    text!(
        "{english}, stdout {stdout} bytes, stderr {stderr} bytes",
        "{chinese}，stdout {stdout} 字节，stderr {stderr} 字节"
    )
}

fn status(status: Status) -> Text {
    match status {
        Status::Exited(code) => text!("exited {code}", "退出码 {code}"),
        Status::Signaled { signal, .. } => {
            let name = signal_name(signal);
            text!("ended by signal {signal} ({name})", "被信号 {signal}（{name}）终止")
        }
    }
}

fn program(program: &Program) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match program {
        Program::Argv(arguments) => {
            let arguments: Vec<String> = arguments.iter().map(|bytes| text(bytes)).collect();
            format!("argv {arguments:?}")
        }
        Program::Shell(line) => format!("shell: {}", text(line)),
        Program::LoginShell => "login shell".to_owned(),
        Program::Subsystem(name) => format!("subsystem {}", text(name)),
    }
}

fn data(bytes: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_DATA_BYTES)]);
    format!("{shown:?}{}", if bytes.len() > MAX_DATA_BYTES { "…" } else { "" })
}
