//! The texts of the lesson `wire`.

use crate::language::{ConstText, Text, counted, text};

pub(super) const NO_SESSION: ConstText = (
    "this program has no labshd to show; run `labsh lesson wire`",
    "这个程序没有可供观察的 labshd；请运行 `labsh lesson wire`",
);

pub(super) const MESSAGE_BY_MESSAGE: ConstText =
    ("One command, message by message", "一条命令，逐条消息地看");

pub(super) fn plain_mode(line: &str) -> Text {
    text!(
        "labsh runs `{line}` through a real labshd, in plain mode: without TLS, so that its bytes \
         are readable. Between the two is a proxy, which decodes every message and forwards it.",
        "labsh 通过真正的 labshd 执行 `{line}`，使用明文模式（plain mode）：没有 TLS，所以谁都能看\
         懂。两者之间是我们自己的代理，它解码每条消息，再原样转发。"
    )
}

pub(super) const LOG_IN: ConstText = (
    "the log-in: → from labsh, ← from labshd; kind, (channel), bytes of header + body",
    "登录：→ 来自 labsh，← 来自 labshd；类型、（通道）、消息头 + 正文的字节数",
);

pub(super) const COMMAND: ConstText = ("the command", "命令");

pub(super) const OUTPUT: ConstText =
    ("what labsh received from the command", "labsh 收到的命令输出");

pub(super) const PROOFS_FIRST: ConstText = (
    "First both ends prove that they know the key: challenge, response, welcome. Then `open` says \
     what to run. `exit` says how it ended and how many bytes each stream had, so that missing \
     bytes would be noticed.",
    "先由双方证明自己知道密钥：challenge、response、welcome。然后 `open` 说明要执行什么。`exit` 说\
     明怎样结束、每个流共有多少字节：少了一个字节也看得出来。",
);

pub(super) fn bodies_are_output(messages: usize, bytes: usize) -> Text {
    text!(
        "{messages} messages passed, and their stdout bodies are the {bytes} bytes of the output",
        "经过了 {messages} 条消息，其中 stdout 消息的正文正是输出的 {bytes} 字节"
    )
}

pub(super) const CHOPPED: ConstText =
    ("The same, chopped into single bytes", "同样的会话，切成一个个字节");

pub(super) const GLUED: ConstText = ("The same, glued into large blocks", "同样的会话，粘成大块");

pub(super) fn forwarded(messages: usize, pieces: usize, largest: usize) -> Text {
    let english = counted(largest, "byte");
    text!(
        "labshd's {messages} messages were forwarded in {pieces} pieces of at most {english}",
        "labshd 的 {messages} 条消息被分成 {pieces} 块转发，最大的一块 {largest} 字节"
    )
}

pub(super) fn not_repeatable(line: &str) -> Text {
    text!(
        "`{line}` does something else each time; choose a command that always prints the same",
        "`{line}` 每次的结果都不一样；请换一条输出固定的命令"
    )
}

pub(super) fn same_result(bytes: usize, digest: &str) -> Text {
    let english = counted(bytes, "byte");
    text!(
        "the result is the same: {english}, SHA-256 {digest}…",
        "结果相同：{bytes} 字节，SHA-256 {digest}…"
    )
}

pub(super) const HEADERS_SUFFICE: ConstText = (
    "Neither end noticed anything. Only its header says where a message begins and ends: not the \
     writes, not the segments, not the reads.",
    "两端都毫无察觉。一条消息从哪里开始、到哪里结束，只写在它的消息头里：与怎样写、怎样分段、怎样\
     读都无关。",
);
