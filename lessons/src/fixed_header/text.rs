//! The texts of the lesson `fixed-header`.

use labsh_proto::frame::{ChannelId, Frame};

use crate::language::{ConstText, Text, text};

pub(super) const FOUR_BYTES: ConstText =
    ("Four bytes, a description, the data", "4 字节长度、描述、数据");

pub(super) const LENGTH: ConstText = ("length", "长度");

pub(super) const DESCRIPTION: ConstText = ("description", "描述");

pub(super) const DATA: ConstText = ("data", "数据");

pub(super) const PACKED_NUMBER: ConstText = (
    "A number packed into 4 bytes always has 4 bytes (in Python: struct.pack(\"!I\", n)), whether \
     it is 6 or 4 billion. It needs no end mark. So the sender sends first the length of a \
     description, then the description, which says how long the data is, then the data.",
    "把一个数打包成 4 字节（Python 里是 struct.pack(\"!I\", n)），不管它是 6 还是 40 亿，永远占 4 \
     字节，不需要结束标记。于是：先发描述的长度，再发描述，描述里写明数据有多长，最后发数据。",
);

pub(super) fn first_bytes(bytes: [u8; 4], length: usize) -> Text {
    let digits = hex(&bytes);
    text!(
        "The first 4 bytes, in hexadecimal: {digits} = {length}.",
        "最前面的 4 个字节，十六进制：{digits} = {length}。"
    )
}

pub(super) const THE_DESCRIPTION: ConstText = ("the description", "描述");

pub(super) fn read_exactly(description: usize, data: usize) -> Text {
    text!(
        "Read exactly 4 bytes: they say {description}. Read exactly {description} bytes: they say \
         size={data}. Read exactly that many. Neither side had to wait, and nothing has to be \
         guessed.",
        "正好读 4 字节：得到 {description}。正好读 {description} 字节：得到 size={data}。再正好读\
         那么多。谁也不用等，什么也不用猜。"
    )
}

pub(super) fn digest_matches(bytes: usize, digest: &str) -> Text {
    let digest = &digest[..16];
    text!(
        "{bytes} bytes arrived, and their SHA-256 is the one in the description: {digest}…",
        "收到 {bytes} 字节，SHA-256 与描述中的一致：{digest}…"
    )
}

pub(super) const LABSH_HEADER: ConstText = (
    "labsh's header: 12 bytes before every message",
    "labsh 的消息头（也叫报头，header）：每条消息前 12 字节",
);

pub(super) fn channel(channel: ChannelId) -> Text {
    text!("channel {channel}", "通道 {channel}")
}

pub(super) const ALL_ARRIVED: ConstText = ("all frames have arrived", "所有帧都已到达");

pub(super) const THREE_MESSAGES: ConstText = (
    "Three messages, the second of them empty, are sent at once, as labshd would send them. Each \
     begins with labsh's header of 12 bytes.",
    "三条消息一口气发出，其中第二条是空的，和 labshd 发的一样。每条前面都是 labsh 的 12 字节消息\
     头。",
);

pub(super) const HEADER_FIELDS: ConstText =
    ("the header of the first message, in hexadecimal", "第一条消息的头，十六进制");

/// A line for each field of a frame's header.
pub(super) fn header(frame: &Frame) -> Text {
    let (length, kind, flags, channel) = (frame.body.len(), frame.kind, frame.flags, frame.channel);
    let header = frame.header().encode();
    let line = |bytes: &[u8], english: String, chinese: String| {
        let digits = hex(bytes);
        text!("{digits:<8}  {english}", "{digits:<8}  {chinese}")
    };
    Text::lines([
        line(
            &header[..4],
            format!("length: {length} bytes follow the header"),
            format!("长度：后面还有 {length} 字节"),
        ),
        line(&header[4..5], format!("kind: {kind}"), format!("类型：{kind}")),
        line(&header[5..6], format!("flags: {flags}"), format!("标志：{flags}")),
        line(&header[6..8], "reserved: always 0".to_owned(), "保留：总是 0".to_owned()),
        line(&header[8..], format!("channel: {channel}"), format!("通道（channel）：{channel}")),
    ])
}

pub(super) const ONE_RECV: ConstText = ("one recv() returned", "一次 recv() 返回");

pub(super) const DECODED: ConstText =
    ("and the decoder found in it: header | body", "解码器从中找到：消息头 | 正文");

pub(super) const EMPTY_ARRIVES: ConstText = (
    "The second message is empty. Its header arrived all the same: unlike in the lesson loop, \
     neither side hangs.",
    "第二条消息是空的，但它的头照样到达：不会像 loop 一课那样卡死。",
);

pub(super) fn separated(bytes: usize, messages: usize) -> Text {
    text!(
        "one recv() of {bytes} bytes contained exactly the {messages} messages that were sent",
        "一次 recv() 读到 {bytes} 字节，从中取出的正是发出的 {messages} 条消息"
    )
}

pub(super) const ANY_READ_SIZE: ConstText = (
    "1 byte, 1,024 bytes, 64 KiB: the same messages",
    "每次读 1 字节、1,024 字节、64 KiB：消息都一样",
);

pub(super) fn sent_three_times(command: &str, bytes: usize, messages: usize) -> Text {
    text!(
        "The output of `{command}`, {bytes} bytes, and that of `seq 5` become {messages} messages. \
         They are sent three times and read in three ways.",
        "`{command}` 的输出（{bytes} 字节）和 `seq 5` 的输出，装成 {messages} 条消息。同样的消息发\
         三次，用三种方式读。"
    )
}

pub(super) fn same_messages(size: usize, reads: usize, messages: usize, digest: &str) -> Text {
    let digest = &digest[..16];
    text!(
        "recv({size}): {reads} reads, {messages} messages, SHA-256 {digest}…",
        "recv({size})：读 {reads} 次，{messages} 条消息，SHA-256 {digest}…"
    )
}

pub(super) const NEVER_GUESS: ConstText = (
    "How TCP splits the bytes and how the program reads them no longer matters. That is the whole \
     fix: the receiver never guesses where a message ends. labsh and labshd talk to each other \
     with these 12 bytes.",
    "TCP 怎样切分字节、我们怎样读，都不再有影响。这就是全部的根治办法：接收方从不猜测消息在哪里结\
     束。labsh 和 labshd 之间用的正是这 12 个字节。",
);

/// Returns bytes as two hexadecimal digits each, in groups of four bytes.
pub(super) fn hex(bytes: &[u8]) -> String {
    let group = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(4).map(group).collect::<Vec<_>>().join(" ")
}
