//! The early cure for 粘包: send the length, wait until the other side has acknowledged it, then send
//! the data.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::{self, ScopedJoinHandle};

use sha2::{Digest, Sha256};

use crate::flow::{Flow, StepKind};
use crate::shell::{answer_of, output_of};
use crate::sockets::{TO_CLIENT, TO_SERVER, pair, queued, wait_until};
use crate::stage::{LessonError, LessonResult, Stage};

/// What the client says when it has understood a length.
const READY: &[u8] = b"ready";

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    it_works(stage)?;
    without_waiting(stage)?;
    the_acknowledgement_sticks(stage)
}

fn it_works(stage: &mut Stage) -> LessonResult {
    stage.scene(("Length, acknowledgement, data", "先发长度，等确认，再发数据"))?;
    let first = stage.options().command.clone().unwrap_or_else(|| "ls -l /usr/bin".to_owned());
    output_of(&first)?; // tells at once if the command is of no use
    let commands = [first.as_str(), "seq 5", "pwd"];
    let (client, server) = pair()?;
    let (up, down) = (Flow::new(TO_SERVER), Flow::new(TO_CLIENT));
    let (answers, sent, trips) = thread::scope(|scope| {
        let serving = scope.spawn(|| serve(&server, &up, &down));
        let mut client = Client { socket: &client, up: &up, down: &down, round_trips: 0 };
        let asked: io::Result<Vec<Vec<u8>>> =
            commands.iter().map(|command| client.ask(command)).collect();
        client.socket.shutdown(Shutdown::Write)?; // the server's recv() returns 0: it ends
        let sent = joined(serving);
        Ok::<_, LessonError>((asked?, sent?, client.round_trips))
    })?;

    stage.say(
        ("The server sends the length as text and waits. The client reads it, answers `ready`, and \
         now \
        knows how many bytes to read: it calls recv() until it has them all. While the server \
        waits for \
        `ready`, nothing can stick to the length.",
        "服务器先把长度以文本发出，然后等待。客户端读到长度，回一句 `ready`，从此知道要读多少字节：反复 \
        recv() 直到读够。服务器在等 `ready`，所以没有任何东西能粘在长度后面。"),
    )?;
    stage.draw(&down)?;
    stage.draw(&up)?;
    let reads = down.record().steps.iter().filter(|step| step.kind == StepKind::Read).count();
    stage.say((
        format!(
            "The first answer has {} bytes; its SHA-256 begins with {} on either side. All answers \
            together took {reads} recv().",
            answers[0].len(),
            short(&answers[0])
        ),
        format!(
            "第一个回答有 {} 字节，两边的 SHA-256 都以 {} 开头。全部回答一共用了 {reads} 次 \
            recv()。",
            answers[0].len(),
            short(&answers[0])
        ),
    ))?;
    let whole =
        answers.len() == sent.len() && answers.iter().zip(&sent).all(|(a, b)| digest(a) == *b);
    stage.fact(
        whole,
        (
            "every answer arrived whole, and none began with the leftovers of another: the digests \
         are equal",
            "每个回答都完整到达，没有一个以别人的残余开头：两边的摘要（digest）相等",
        ),
    )?;
    stage.notice(
        ("The price: the client had to wait twice for each command, once for the length and once \
         for the \
        data. Between continents a round trip takes about 0.2 s.",
        "代价：每条命令客户端都要等两次，一次等长度，一次等数据。跨洲的一个往返（round trip）约 0.2 秒。"),
    )?;
    stage.fact(
        trips == 2 * commands.len(),
        (
            format!("{} commands cost {trips} round trips; one for each would do", commands.len()),
            format!("{} 条命令用了 {trips} 个往返；本来每条一个就够", commands.len()),
        ),
    )
}

/// The client, which counts how often it could only go on after the server had answered.
struct Client<'a> {
    socket: &'a TcpStream,
    up: &'a Flow,
    down: &'a Flow,
    round_trips: usize,
}

impl Client<'_> {
    /// Sends something and waits for the first part of what comes back.
    fn round_trip(&mut self, label: &str, bytes: &[u8], buffer: &mut [u8]) -> io::Result<usize> {
        self.up.message(label);
        self.up.writer(self.socket).write_all(bytes)?;
        self.round_trips += 1;
        self.down.reader(self.socket).read(buffer)
    }

    fn ask(&mut self, command: &str) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 64 << 10];
        let count = self.round_trip(command, command.as_bytes(), &mut buffer)?;
        let length = number(&buffer[..count]).ok_or_else(|| io::Error::other("no length came"))?;
        let count = self.round_trip("ready", READY, &mut buffer)?;
        let mut answer = buffer[..count].to_vec();
        while answer.len() < length {
            let count = self.down.reader(self.socket).read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            answer.extend_from_slice(&buffer[..count]);
        }
        Ok(answer)
    }
}

/// Answers commands until the client has no more; the digest of each answer as it was before it was
/// sent.
fn serve(socket: &TcpStream, up: &Flow, down: &Flow) -> Result<Vec<[u8; 32]>, LessonError> {
    let mut digests = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = up.reader(socket).read(&mut buffer)?;
        if count == 0 {
            return Ok(digests);
        }
        let answer = answer_of(&String::from_utf8_lossy(&buffer[..count]))?;
        digests.push(digest(&answer));
        down.message(("length", "长度"));
        down.writer(socket).write_all(answer.len().to_string().as_bytes())?;
        let count = up.reader(socket).read(&mut buffer)?; // wait: is the client ready?
        if &buffer[..count] != READY {
            return Err(io::Error::other("the client is not ready").into());
        }
        down.message(("data", "数据"));
        down.writer(socket).write_all(&answer)?;
    }
}

fn without_waiting(stage: &mut Stage) -> LessonResult {
    stage.scene((
        "Without the wait: length and data stick together",
        "不等确认：长度和数据粘在一起",
    ))?;
    let data = answer_of("seq 3")?;
    let (client, server) = pair()?;
    let flow = Flow::new(TO_CLIENT);
    let length = data.len().to_string();
    flow.message(("length", "长度"));
    flow.writer(&server).write_all(length.as_bytes())?;
    flow.message(("data", "数据"));
    flow.writer(&server).write_all(&data)?;
    let all = length.len() + data.len();
    wait_until(("length and data have arrived", "长度和数据都已到达"), || {
        Ok(queued(&client)? == all)
    })?;
    let mut buffer = [0; 1024];
    let count = flow.reader(&client).read(&mut buffer)?;
    let digits = buffer[..count].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let understood = number(&buffer[..digits]).unwrap_or(0);
    stage.show(
        ("the client looked for a length and received", "客户端想读长度，收到"),
        &buffer[..count],
    )?;
    stage.draw(&flow)?;
    stage.notice((
        format!(
            "The length was {length}, and the data begins with 1. A text without an end mark has \
             no \
            end: read as a number, this says {understood}."
        ),
        format!(
            "长度是 {length}，数据以 1 开头。没有结束标记的文本没有尽头：按数字去读，就成了 \
            {understood}。"
        ),
    ))?;
    stage.fact(
        count == all && understood != data.len(),
        (
            format!(
                "the client would now wait for {understood} bytes, of which {} will never come",
                understood.saturating_sub(data.len())
            ),
            format!(
                "客户端接下来会去等 {understood} 字节，其中 {} 字节永远不会来",
                understood.saturating_sub(data.len())
            ),
        ),
    )
}

fn the_acknowledgement_sticks(stage: &mut Stage) -> LessonResult {
    stage.scene(("The acknowledgement sticks as well", "确认自己也会粘"))?;
    let (client, server) = pair()?;
    let flow = Flow::new(TO_SERVER);
    flow.message("ready");
    flow.writer(&client).write_all(READY)?;
    // A client that wants to save time, and asks for the next thing at once.
    flow.message(("next command", "下一条命令"));
    flow.writer(&client).write_all(b"pwd")?;
    let all = READY.len() + 3;
    wait_until(("both have arrived", "两者都已到达"), || Ok(queued(&server)? == all))?;
    let mut buffer = [0; 1024];
    let count = flow.reader(&server).read(&mut buffer)?;
    stage.show(
        ("the server waited for `ready` and received", "服务器在等 `ready`，收到"),
        &buffer[..count],
    )?;
    stage.draw(&flow)?;
    stage.fact(
        &buffer[..count] != READY && buffer[..count].starts_with(READY),
        (
            "what the server received is not `ready`: the cure has the same disease, in a smaller \
         message",
            "服务器收到的不是 `ready`：药方自己也得了同样的病，只是消息更小",
        ),
    )?;
    Ok(stage.say((
        "What is needed is a length that needs no end mark, because it always has the same size. \
         Then \
        nobody has to wait: see the lesson fixed-header.",
        "需要的是一个不用结束标记的长度：它的大小永远不变。这样谁也不用等：见 fixed-header 一课。",
    ))?)
}

/// A decimal number, if that is all there is.
fn number(bytes: &[u8]) -> Option<usize> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The first digits of a digest, as `sha256sum` prints them.
fn short(bytes: &[u8]) -> String {
    digest(bytes)[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T, LessonError>>) -> Result<T, LessonError> {
    thread.join().map_err(|_| io::Error::other("the server's thread panicked"))?
}
