//! The cure for 粘包: a header of fixed size in front of every message, which says how long the
//! message is.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use labsh_proto::frame::{ChannelId, Decoder, Frame, Kind};
use labsh_proto::limits::{HEADER_LENGTH, MAX_BODY};
use sha2::{Digest, Sha256};

use crate::flow::Flow;
use crate::shell::{answer_of, output_of};
use crate::sockets::{TO_CLIENT, pair, queued, recv, wait_until};
use crate::stage::{LessonError, LessonResult, Stage};

/// How the receiver may read: none of it may make a difference.
const READ_SIZES: [usize; 3] = [1, 1024, 64 << 10];

/// One recv() asks for no more.
const MOST_AT_ONCE: usize = 64 << 10;

/// Of each frame at most so many bytes are body: a large answer becomes many frames.
const CHUNK: usize = 16 << 10;

/// Nobody's description is longer: a length that a stranger has sent is a claim, not a fact.
const LONGEST_DESCRIPTION: usize = 4096;

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    let command = stage.options().command.clone().unwrap_or_else(|| "ls -l /usr/bin".to_owned());
    let output = output_of(&command)?;
    four_bytes(stage, &command, &output)?;
    glued_and_yet_apart(stage)?;
    any_read_size(stage, &command, &output)
}

/// As in many courses (Python's `struct.pack`): four bytes, then a description of that length, then
/// the data.
fn four_bytes(stage: &mut Stage, command: &str, output: &[u8]) -> LessonResult {
    stage.scene(("Four bytes, a description, the data", "4 字节长度、描述性的头、数据"))?;
    let (client, server) = pair()?;
    let flow = Flow::new(TO_CLIENT);
    let description = format!("command={command}\nsize={}\nsha256={}\n", output.len(), hex(output));
    // A u32 in network byte order.
    let length = (description.len() as u32).to_be_bytes();
    let received = thread::scope(|scope| {
        let sending = scope.spawn(|| -> io::Result<()> {
            let mut out = flow.writer(&server);
            flow.message(("length", "长度"));
            out.write_all(&length)?;
            flow.message(("description", "描述"));
            out.write_all(description.as_bytes())?;
            flow.message(("data", "数据"));
            out.write_all(output) // and no waiting in between
        });
        let received = receive(&flow, &client);
        // Whatever went wrong here, the sender must not wait for us.
        client.shutdown(Shutdown::Both).ok();
        let sent = sending.join().map_err(|_| io::Error::other("the server's thread panicked"))?;
        sent.and(received)
    })?;
    stage.say(
        ("A number packed into 4 bytes always has 4 bytes (in Python: struct.pack(\"!I\", n)), \
         whether it is 6 \
        or 4 billion. It needs no end mark. So: first the length of a description, then the \
        description, \
        which says how long the data are, then the data.",
        "把一个数打包成 4 字节（Python 里是 struct.pack(\"!I\", n)），不管它是 6 还是 40 亿，永远占 4 字节，\
        不需要结束标记。于是：先发描述的长度，再发描述，描述里写明数据有多长，最后发数据。"),
    )?;
    stage.say((
        format!(
            "The first 4 bytes, in hexadecimal: {} = {}.",
            spaced(&received.length),
            received.description.len()
        ),
        format!(
            "最前面的 4 个字节，十六进制：{} = {}。",
            spaced(&received.length),
            received.description.len()
        ),
    ))?;
    stage.show(("the description", "描述"), received.description.as_bytes())?;
    stage.draw(&flow)?;
    stage.notice((
        format!(
            "Read exactly 4 bytes: they say {}. Read exactly {} bytes: they say size={}. Read \
            exactly that many. Nobody had to wait, and nothing has to be \
            guessed.",
            received.description.len(),
            received.description.len(),
            received.data.len()
        ),
        format!(
            "正好读 4 字节：得到 {}。正好读 {} 字节：得到 size={}。再正好读那么多。谁也不用等，什么\
            也不用猜。",
            received.description.len(),
            received.description.len(),
            received.data.len()
        ),
    ))?;
    let promised = field(&received.description, "sha256").unwrap_or_default();
    stage.fact(
        promised == hex(&received.data) && received.data.len() == output.len(),
        (
            format!(
                "{} bytes arrived, and their SHA-256 is the one in the description: {}…",
                received.data.len(),
                &hex(&received.data)[..16]
            ),
            format!(
                "收到 {} 字节，SHA-256 与描述中的一致：\
            {}…",
                received.data.len(),
                &hex(&received.data)[..16]
            ),
        ),
    )
}

struct Received {
    length: [u8; 4],
    description: String,
    data: Vec<u8>,
}

fn receive(flow: &Flow, socket: &TcpStream) -> io::Result<Received> {
    let mut input = flow.reader(socket);
    // read_exact() is a loop around recv(): it goes on until it has all that was asked for, and
    // never takes more.
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let announced = u32::from_be_bytes(length) as usize;
    if announced > LONGEST_DESCRIPTION {
        return Err(io::Error::other(format!("a description of {announced} bytes is too long")));
    }
    let mut description = vec![0; announced];
    input.read_exact(&mut description)?;
    let description = String::from_utf8_lossy(&description).into_owned();
    let size = field(&description, "size").and_then(|size| size.parse().ok()).unwrap_or(0);
    let (mut data, mut buffer) = (Vec::new(), vec![0; MOST_AT_ONCE]);
    while data.len() < size {
        // Never more than is still missing: what follows belongs to the next message.
        let missing = (size - data.len()).min(MOST_AT_ONCE);
        let count = input.read(&mut buffer[..missing])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // grows with what really comes, not with what was claimed
        data.extend_from_slice(&buffer[..count]);
    }
    Ok(Received { length, description, data })
}

/// The value behind `name=` in a description of one field a line.
fn field<'a>(description: &'a str, name: &str) -> Option<&'a str> {
    description.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// The answers to two commands at once, as labshd would send them.
fn glued_and_yet_apart(stage: &mut Stage) -> LessonResult {
    stage.scene((
        "labsh's header: 12 bytes in front of everything",
        "labsh 的消息头（也叫报头，header）：每条消息前 12 字节",
    ))?;
    let frames =
        [frame(1, answer_of("seq 3")?), frame(2, Vec::new()), frame(2, answer_of("echo labsh")?)];
    let (client, server) = pair()?;
    let flow = Flow::new(TO_CLIENT);
    let mut total = 0;
    for frame in &frames {
        let bytes = encode(frame);
        total += bytes.len();
        let channel = frame.channel;
        flow.message((format!("channel {channel}"), format!("通道 {channel}")));
        flow.writer(&server).write_all(&bytes)?;
    }
    wait_until(("all frames have arrived", "所有帧都已到达"), || {
        Ok(queued(&client)? == total)
    })?;
    let mut buffer = [0; 1024];
    let count = flow.reader(&client).read(&mut buffer)?; // glued together, as in the lesson sticky
    stage.say(
        ("Three messages, the second of them empty, are sent at once, as labshd would send them. \
         In front of each are \
        the 12 bytes that labsh puts in front of everything.",
        "三条消息一口气发出，其中第二条是空的，和 labshd 发的一样。每条前面都是 labsh 的 12 字节消息头。"),
    )?;
    let (length, channel) = (frames[0].body.len(), frames[0].channel);
    let (kind, flags, header) = (frames[0].kind, frames[0].flags, frames[0].header().encode());
    let fields = [
        (
            &header[..4],
            format!("length: {length} bytes follow the header"),
            format!("长度：后面还有 {length} 字节"),
        ),
        (&header[4..5], format!("kind: {kind}"), format!("类型：{kind}")),
        (&header[5..6], format!("flags: {flags}"), format!("标志：{flags}")),
        (&header[6..8], "reserved: always 0".to_owned(), "保留：总是 0".to_owned()),
        (&header[8..], format!("channel: {channel}"), format!("通道（channel）：{channel}")),
    ];
    let rows = fields.into_iter().map(|(bytes, english, chinese)| {
        let digits = spaced(bytes);
        (format!("{digits:<8}  {english}"), format!("{digits:<8}  {chinese}"))
    });
    let (english, chinese): (Vec<_>, Vec<_>) = rows.unzip();
    stage.list(
        ("the header of the first message, in hexadecimal", "第一条消息的头，十六进制"),
        (english.join("\n"), chinese.join("\n")),
    )?;
    stage.show(("one recv() returned", "一次 recv() 返回"), &buffer[..count])?;
    stage.draw(&flow)?;

    // The very decoder that labsh and labshd use: bytes go in, messages come out.
    let mut decoder = Decoder::default();
    decoder.buffer().extend_from_slice(&buffer[..count]);
    let mut decoded = Vec::new();
    while let Some(frame) = decoder.next_frame(MAX_BODY).map_err(wrong)? {
        decoded.push(frame);
    }
    let apart = decoded.iter().map(|frame| {
        let (header, body) =
            (frame.header().encode(), String::from_utf8_lossy(&frame.body).into_owned());
        format!("{} | {body:?}", spaced(&header))
    });
    stage.list(
        ("and the decoder found in it: header | body", "解码器从中找到：消息头 | 正文"),
        apart.collect::<Vec<_>>().join("\n"),
    )?;
    stage.notice((
        "The second message is empty. Its header arrived all the same: here nobody hangs, as in \
         the \
        lesson loop.",
        "第二条消息是空的，但它的头照样到达：不会像 loop 一课那样卡死。",
    ))?;
    stage.fact(
        decoded == frames && count == total,
        (
            format!(
                "one recv() of {count} bytes, and out of it came the {} messages that were sent",
                frames.len()
            ),
            format!("一次 recv() 读到 {count} 字节，从中取出的正是发出的 {} 条消息", frames.len()),
        ),
    )
}

fn any_read_size(stage: &mut Stage, command: &str, output: &[u8]) -> LessonResult {
    stage.scene((
        "1 byte, 1,024 bytes, 64 KiB: the same messages",
        "每次读 1 字节、1,024 字节、64 KiB：消息都一样",
    ))?;
    let mut frames: Vec<Frame> =
        output.chunks(CHUNK).map(|chunk| frame(1, chunk.to_vec())).collect();
    frames.push(frame(2, answer_of("seq 5")?));
    stage.say((
        format!(
            "The output of `{command}`, {} bytes, and that of `seq 5` become {} messages. They are \
            sent three times, and read in three ways.",
            output.len(),
            frames.len()
        ),
        format!(
            "`{command}` 的输出（{} 字节）和 `seq 5` 的输出，装成 {} 条消息。同样的消息发三次，用三\
            种方式读。",
            output.len(),
            frames.len()
        ),
    ))?;
    for size in READ_SIZES {
        let (reads, decoded) = send_and_read(&frames, size)?;
        let data: Vec<u8> = decoded
            .iter()
            .filter(|frame| frame.channel == ChannelId(1))
            .flat_map(|frame| frame.body.to_vec())
            .collect();
        stage.fact(
            decoded == frames && hex(&data) == hex(output),
            (
                format!(
                    "recv({size}): {reads} reads, {} messages, SHA-256 {}…",
                    decoded.len(),
                    &hex(&data)[..16]
                ),
                format!(
                    "recv({size})：读 {reads} 次，{} 条消息，SHA-256 \
                {}…",
                    decoded.len(),
                    &hex(&data)[..16]
                ),
            ),
        )?;
    }
    Ok(stage.notice(
        ("How TCP cut the bytes, and how we read them, has become all the same. That is the whole \
         cure: \
        the receiver never guesses where a message ends. labsh and labshd talk to each other with \
        these \
        very 12 bytes.",
        "TCP 怎样切分字节、我们怎样读，都不再有影响。这就是全部的根治办法：接收方从不猜测消息在哪里结\
        束。labsh 和 labshd 之间用的正是这 12 个字节。"),
    )?)
}

/// Sends frames through a connection of their own and decodes them at the other end; how many reads
/// that took, too.
fn send_and_read(frames: &[Frame], size: usize) -> Result<(usize, Vec<Frame>), LessonError> {
    let (client, server) = pair()?;
    thread::scope(|scope| {
        let sending = scope.spawn(move || -> io::Result<()> {
            frames.iter().try_for_each(|frame| (&server).write_all(&encode(frame)))
        }); // the socket is closed here: the other end will read 0
        let read = read_frames(client, size);
        let sent = sending.join().map_err(|_| io::Error::other("the server's thread panicked"))?;
        let read = read?;
        sent?;
        Ok(read)
    })
}

fn read_frames(socket: TcpStream, size: usize) -> Result<(usize, Vec<Frame>), LessonError> {
    let (mut decoder, mut frames, mut reads) = (Decoder::default(), Vec::new(), 0);
    let mut buffer = vec![0; size];
    loop {
        let count = recv(&socket, &mut buffer)?;
        if count == 0 {
            // an end in the middle of a message would be an error, not an end
            decoder.finish().map_err(wrong)?;
            return Ok((reads, frames));
        }
        reads += 1;
        decoder.buffer().extend_from_slice(&buffer[..count]);
        while let Some(frame) = decoder.next_frame(MAX_BODY).map_err(wrong)? {
            frames.push(frame);
        }
    }
}

fn frame(channel: u32, body: Vec<u8>) -> Frame {
    Frame::new(Kind::Stdout, ChannelId(channel), body)
}

fn encode(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LENGTH + frame.body.len());
    bytes.extend_from_slice(&frame.header().encode());
    bytes.extend_from_slice(&frame.body);
    bytes
}

fn wrong(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes as two digits each, in groups of four.
fn spaced(bytes: &[u8]) -> String {
    let group = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(4).map(group).collect::<Vec<_>>().join(" ")
}
