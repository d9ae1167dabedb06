//! The texts of the lesson `length-first`.

use crate::language::{ConstText, Text, text};

pub(super) const WITH_ACKNOWLEDGEMENT: ConstText =
    ("Length, acknowledgement, data", "先发长度，等确认，再发数据");

pub(super) const LENGTH: ConstText = ("length", "长度");

pub(super) const DATA: ConstText = ("data", "数据");

pub(super) const HOW_IT_WORKS: ConstText = (
    "The server sends the length as text and waits. The client reads it, answers `ready`, and now \
     knows how many bytes to read: it calls recv() until it has them all. While the server waits \
     for `ready`, nothing can stick to the length.",
    "服务器先把长度以文本发出，然后等待。客户端读到长度，回一句 `ready`，从此知道要读多少字节：反\
     复 recv() 直到读够。服务器在等 `ready`，所以没有任何东西能粘在长度后面。",
);

/// The digest is shown as `sha256sum` prints it, its first four bytes only.
pub(super) fn first_answer(bytes: usize, digest: &[u8; 32], reads: usize) -> Text {
    let digest: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    text!(
        "The first answer has {bytes} bytes; its SHA-256 begins with {digest} on both sides. All \
         answers together took {reads} recv() calls.",
        "第一个回答有 {bytes} 字节，两边的 SHA-256 都以 {digest} 开头。全部回答一共用了 {reads} 次 \
         recv()。"
    )
}

pub(super) const ANSWERS_WHOLE: ConstText = (
    "every answer arrived whole, and none began with the leftovers of another: the digests are \
     equal",
    "每个回答都完整到达，没有一个以上一个回答的残余开头：两边的摘要（digest）相等",
);

pub(super) const TWO_WAITS: ConstText = (
    "The price: the client has to wait twice for each command, once for the length and once for \
     the data. Between continents a round trip takes about 0.2 s.",
    "代价：每条命令客户端都要等两次，一次等长度，一次等数据。跨洲的一个往返（round trip）约 0.2 \
     秒。",
);

pub(super) fn round_trips(commands: usize, round_trips: usize) -> Text {
    text!(
        "{commands} commands cost {round_trips} round trips; one for each would do",
        "{commands} 条命令用了 {round_trips} 个往返；本来每条一个就够"
    )
}

pub(super) const WITHOUT_WAITING: ConstText =
    ("Without the wait: length and data stick together", "不等确认：长度和数据粘在一起");

pub(super) const BOTH_ARRIVED: ConstText = ("both messages have arrived", "两条消息都已到达");

pub(super) const LENGTH_EXPECTED: ConstText =
    ("the client expected a length and received", "客户端想读长度，收到");

pub(super) fn wrong_number(length: &str, parsed: usize) -> Text {
    text!(
        "The length was {length}, and the data begins with 1. Text without an end mark has no end: \
         read as a number, this is {parsed}.",
        "长度是 {length}，数据以 1 开头。没有结束标记的文本没有尽头：按数字去读，就成了 {parsed}。"
    )
}

pub(super) fn waits_in_vain(bytes: usize, missing: usize) -> Text {
    text!(
        "the client would now wait for {bytes} bytes, of which {missing} will never arrive",
        "客户端接下来会去等 {bytes} 字节，其中 {missing} 字节永远不会来"
    )
}

pub(super) const ACKNOWLEDGEMENT_STICKS: ConstText =
    ("The acknowledgement sticks as well", "确认自己也会粘");

pub(super) const NEXT_COMMAND: ConstText = ("next command", "下一条命令");

pub(super) const READY_EXPECTED: ConstText =
    ("the server expected `ready` and received", "服务器在等 `ready`，收到");

pub(super) const SAME_PROBLEM: ConstText = (
    "what the server received is not `ready`: the fix suffers from the same problem, in a smaller \
     message",
    "服务器收到的不是 `ready`：药方自己也得了同样的病，只是消息更小",
);

pub(super) const FIXED_SIZE_NEEDED: ConstText = (
    "What is needed is a length that needs no end mark because it always has the same size. Then \
     no side has to wait: see the lesson fixed-header.",
    "需要的是一个不用结束标记的长度：它的大小永远不变。这样谁也不用等：见 fixed-header 一课。",
);
