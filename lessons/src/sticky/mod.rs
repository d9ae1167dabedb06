//! 粘包: two messages arrive as one, and one arrives as many.
//!
//! TCP carries bytes, in order. It knows nothing of messages: where one ends is for the application
//! to say. A program that takes one recv for one message is lucky until it is not.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use socket2::SockRef;

use crate::flow::{Flow, Record, StepKind};
use crate::kernel::segments_sent;
use crate::language::Text;
use crate::language::counted;
use crate::segments::Segments;
use crate::shell::{answer_of, output_of};
use crate::sockets::{IO_TIMEOUT, TO_CLIENT, TO_SERVER, pair, queued, recv, unsent, wait_until};
use crate::stage::{LessonError, LessonResult, Stage};

/// What every first program uses: `recv(1024)`.
const RECV: usize = 1024;

/// What fits into a receive buffer for certain, whatever this machine's defaults are.
const ALL_AT_ONCE: usize = 32 << 10;

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    let small = small_messages(stage)?;
    let (command, size) = large_answer(stage)?;
    glued_by_the_receiver(stage, &small)?;
    glued_by_the_sender(stage, &small)?;
    the_rest_of_a_large_answer(stage, &command, size)?;
    Ok(stage.say(
        ("TCP has done nothing wrong: it promised a stream of bytes in order, and kept that. The \
         mistake \
        is the application's, which took one recv() for one message. It must say itself where a \
        message \
        ends: see the lessons length-first and fixed-header.",
        "TCP 没有做错任何事：它承诺的是有序的字节流（byte stream），也做到了。错在应用程序：把一次 \
        recv() 当成一条消息。消息到哪里结束，必须由应用程序自己说明：见 length-first 与 fixed-header 两\
        课。"),
    )?)
}

/// Labels and bytes of the messages: three commands, or as many bytes as the teacher wants.
fn small_messages(stage: &Stage) -> Result<Vec<(String, Vec<u8>)>, LessonError> {
    let sizes = &stage.options().sizes;
    if sizes.is_empty() {
        return Ok(["ls -l", "pwd", "whoami"].map(|line| (line.to_owned(), line.into())).to_vec());
    }
    let total: usize = sizes.iter().map(|size| size.get()).sum();
    if sizes.len() < 2 || total > ALL_AT_ONCE {
        return Err(LessonError::BadOption(Text::new(
            format!(
                "--sizes must name at least two messages, of {ALL_AT_ONCE} bytes together at most"
            ),
            format!("--sizes 至少要写两条消息，加起来不超过 {ALL_AT_ONCE} 字节"),
        )));
    }
    let message = |(index, size): (usize, &std::num::NonZeroUsize)| {
        let letter = b'a' + (index % 26) as u8;
        (format!("{size} × {}", letter as char), vec![letter; size.get()])
    };
    Ok(sizes.iter().enumerate().map(message).collect())
}

/// A command and a read size that does not take its whole answer; told at once if there is no such
/// thing.
fn large_answer(stage: &Stage) -> Result<(String, usize), LessonError> {
    let recv_size = stage.options().recv.map_or(RECV, |size| size.get());
    let command = stage.options().command.clone().unwrap_or_else(|| "ls -l /usr/bin".to_owned());
    let size = output_of(&command)?.len();
    if size > recv_size {
        return Ok((command, recv_size));
    }
    Err(LessonError::BadOption(Text::new(
        format!(
            "'{command}' prints {} and one recv of {recv_size} takes them all; choose a command \
             that prints \
            more, or a smaller --recv",
            counted(size, "byte")
        ),
        format!(
            "'{command}' 只输出 {size} 字节，一次 {recv_size} 字节的 recv 就全部取走；请换一条输出更多的命\
            令，或把 --recv 改小"
        ),
    )))
}

fn glued_by_the_receiver(stage: &mut Stage, messages: &[(String, Vec<u8>)]) -> LessonResult {
    stage.scene((
        "Small messages stick together in the receive buffer",
        "小消息在接收缓冲区里粘在一起",
    ))?;
    let (client, server) = pair()?;
    // Every write leaves at once, without Nagle's algorithm: what follows is not the sender's
    // doing.
    client.set_nodelay(true)?;
    let flow = Flow::new(TO_SERVER);
    let mut segments = Segments::new(&flow, &client);
    send_each(&flow, &client, messages, &mut segments)?;
    segments.record();
    let total: usize = messages.iter().map(|(_, bytes)| bytes.len()).sum();
    // The server is busy elsewhere. Meanwhile everything arrives and waits: SIOCINQ counts it.
    wait_until(
        ("all messages are in the receive buffer", "所有消息都进了接收缓冲区"),
        || Ok(queued(&server)? == total),
    )?;
    let mut buffer = vec![0; total.max(RECV)];
    let count = flow.reader(&server).read(&mut buffer)?; // one recv

    let sent = messages.len();
    stage.say(
        (format!(
            "The client called send() {sent} times. When the server got round to recv(), {total} \
            bytes were waiting in its receive buffer (counted by SIOCINQ)."
        ),
        format!(
            "客户端调用了 {sent} 次 send()。等服务器去 recv() 时，它的接收缓冲区（receive buffer）里\
            已经有 {total} 字节（由 SIOCINQ 数得）。"
        )),
    )?;
    stage.show(("one recv() returned", "一次 recv() 返回"), &buffer[..count])?;
    stage.draw(&flow)?;
    stage.notice(
        ("At the top: one block for each send(). At the bottom: a single block. The borders \
         between the messages are \
        gone; nothing in the bytes says where they were.",
        "最上面一行：每次 send() 一块。最下面一行：只有一块。消息之间的边界消失了，字节里没有任何东西能说明\
        边界在哪里。"),
    )?;
    stage.fact(
        count == total,
        (
            format!("{sent} messages, 1 recv(): 粘包, stuck together"),
            format!("{sent} 条消息，1 次 recv()：这就是粘包（sticky packets）"),
        ),
    )
}

fn send_each(
    flow: &Flow,
    client: &TcpStream,
    messages: &[(String, Vec<u8>)],
    segments: &mut Segments,
) -> io::Result<()> {
    for (label, bytes) in messages {
        flow.message(label.as_str());
        flow.writer(client).write_all(bytes)?;
        segments.observe()?; // What has left the kernel, and in how many segments?
    }
    Ok(())
}

fn glued_by_the_sender(stage: &mut Stage, messages: &[(String, Vec<u8>)]) -> LessonResult {
    stage.scene((
        "The sender's kernel glues as well: Nagle and TCP_CORK",
        "发送方的内核也会粘：Nagle 算法与 TCP_CORK",
    ))?;
    let total: usize = messages.iter().map(|(_, bytes)| bytes.len()).sum();
    // The kernel pulls the cork by itself after 200 ms (tcp(7)). A machine so busy that this
    // happens tries again.
    for _ in 0..50 {
        let (client, server) = pair()?;
        let flow = Flow::new(TO_SERVER);
        SockRef::from(&client).set_tcp_cork(true)?;
        let mut carried = Segments::new(&flow, &client);
        send_each(&flow, &client, messages, &mut carried)?;
        let (held, arrived) = (unsent(&client)?, queued(&server)?);
        if held + arrived != total || arrived > total / 2 {
            continue;
        }
        SockRef::from(&client).set_tcp_cork(false)?;
        wait_until(("all messages have arrived", "所有消息都已到达"), || {
            Ok(queued(&server)? == total)
        })?;
        let segments = segments_sent(&client)? as usize;
        if segments >= messages.len() {
            continue;
        }
        carried.observe()?;
        carried.record();
        let mut buffer = vec![0; total];
        flow.reader(&server).read_exact(&mut buffer)?;
        stage.say(
            ("Nagle's algorithm holds small writes back while earlier bytes are not acknowledged, \
             to \
            send them in one segment. On loopback acknowledgements come at once, so we hold the \
            bytes \
            back ourselves, with TCP_CORK; the gluing is the same.",
            "只要之前的字节还没有被确认（ACK），Nagle 算法就会攒着后面的小数据，合成一个报文段\
            （segment）再发。环回（loopback）上确认来得太快，看不出来，所以我们用 TCP_CORK 自己把数据攒住；粘\
            合的过程是一样的。"),
        )?;
        stage.say((
            format!(
                "After {} send() the sender's kernel held {held} bytes back, and {arrived} had \
                arrived. Uncorked, {total} bytes went out in {} (counted by \
                TCP_INFO).",
                messages.len(),
                counted(segments, "segment")
            ),
            format!(
                "{} 次 send() 之后，发送方内核里攒着 {held} 字节，对方收到 {arrived} 字节。拔掉“塞\
                子”，{total} 字节装在 {segments} 个报文段里发出（由 TCP_INFO 数得）。",
                messages.len()
            ),
        ))?;
        stage.draw(&flow)?;
        return stage.fact(
            segments < messages.len(),
            (format!(
                "{} writes, {}: TCP_NODELAY would avoid that, but not what the receive buffer does",
                messages.len(),
                counted(segments, "segment")
            ),
            format!(
                "{} 次写，{segments} 个报文段：TCP_NODELAY 能避免这一处粘合，却管不了接收缓冲区那一处",
                messages.len()
            )),
        );
    }
    stage.fact(false, ("the kernel held small writes back", "内核攒住了小数据"))
}

fn the_rest_of_a_large_answer(stage: &mut Stage, first: &str, size: usize) -> LessonResult {
    stage.scene((
        "A large answer comes apart, and its rest answers the next command",
        "大消息被拆开（半包），剩下的部分冒充下一条命令的结果",
    ))?;
    let commands = [first, "ps", "seq 5"];

    let (client, server) = pair()?;
    let (up, down) = (Flow::new(TO_SERVER), Flow::new(TO_CLIENT));
    let (sizes, answers) = channel();
    let (server_up, server_down) = (up.clone(), down.clone());
    let server = thread::spawn(move || serve(&server, &server_up, &server_down, &sizes));
    let asked = ask_naively(&client, &up, &down, &commands, size, &answers);
    // The naive client would leave now. Instead it lets the server end well: what it never read, we
    // throw away.
    client.shutdown(Shutdown::Write)?;
    io::copy(&mut &client, &mut io::sink())?;
    let served = server.join().map_err(|_| io::Error::other("the server's thread panicked"))?;
    served?;
    let received = asked?;

    stage.say((
        format!(
            "A server that runs what it receives, and a client that asks three times: \
            send(command), recv({size}). One recv() for each answer, as if it were a message."
        ),
        format!(
            "服务器执行收到的命令；客户端问三次：send(命令)、recv({size})。它把一次 recv() 当成一条\
            完整的回答。"
        ),
    ))?;
    for (command, bytes) in commands.iter().zip(&received) {
        stage.show(
            (format!("asked `{command}`, received"), format!("问 `{command}`，收到")),
            bytes,
        )?;
    }
    stage.draw(&down)?;
    let record = down.record();
    let owners = owners_of_reads(&record);
    let left = record.messages[0].end as usize - received[0].len();
    stage.notice((
        format!(
            "The answer to `{first}` has {} bytes; the first recv() took {}. The other {left} \
            stayed in the socket, in front of everything that follows: `ps` was answered with \
            them.",
            record.messages[0].end,
            received[0].len()
        ),
        format!(
            "`{first}` 的结果有 {} 字节，第一次 recv() 只取走了 {} 字节。剩下的 {left} 字节留在套接\
            字里，排在后面所有数据的前面：`ps` 得到的回答就是它\
            们。",
            record.messages[0].end,
            received[0].len()
        ),
    ))?;
    stage.fact(
        owners[0] == 0 && owners[1] == 0 && left > 0,
        (
            "the second command was answered with the first one's leftovers",
            "第二条命令得到的，是第一条命令剩下的结果",
        ),
    )?;
    Ok(stage.say(
        ("A larger recv() only puts the problem off: how large would be large enough? And from now \
         on \
        each recv() begins with what the one before left behind.",
        "把 recv() 的参数改大，只是推迟问题：多大才算够？而且从此每一次 recv() 都从上一次剩下的地方读起。"),
    )?)
}

/// Runs each command that comes in, and sends what it prints; how much that is, is also told to
/// whoever watches.
fn serve(socket: &TcpStream, up: &Flow, down: &Flow, sizes: &Sender<usize>) -> LessonResult {
    thread::scope(|scope| {
        // Answers leave by a thread of their own: a full send buffer must not keep us from reading
        // the next command.
        let (answers, waiting) = channel::<(String, Vec<u8>)>();
        let sender = scope.spawn(move || -> io::Result<()> {
            for (command, answer) in waiting {
                down.message(command);
                down.writer(socket).write_all(&answer)?;
            }
            socket.shutdown(Shutdown::Write)
        });
        let served = answer_all(socket, up, sizes, &answers);
        drop(answers); // the sender ends when it has sent everything
        let sent = sender.join().map_err(|_| io::Error::other("the sending thread panicked"))?;
        served.and(sent.map_err(LessonError::Io))
    })
}

fn answer_all(
    socket: &TcpStream,
    up: &Flow,
    sizes: &Sender<usize>,
    answers: &Sender<(String, Vec<u8>)>,
) -> LessonResult {
    let mut buffer = [0; 4096];
    loop {
        // a command: the client waits for the answer, so nothing follows it yet
        let count = recv(socket, &mut buffer)?;
        up.read(&buffer[..count]);
        if count == 0 {
            return Ok(());
        }
        let command = String::from_utf8_lossy(&buffer[..count]).into_owned();
        let answer = answer_of(&command)?;
        let size = answer.len();
        if answers.send((command, answer)).is_err() || sizes.send(size).is_err() {
            return Ok(()); // the connection or the client is gone
        }
    }
}

/// The naive client: one recv for one answer. What each brought.
fn ask_naively(
    socket: &TcpStream,
    up: &Flow,
    down: &Flow,
    commands: &[&str],
    recv_size: usize,
    sizes: &Receiver<usize>,
) -> Result<Vec<Vec<u8>>, LessonError> {
    let mut received = Vec::new();
    let mut left = 0;
    for command in commands {
        up.message(*command);
        up.writer(socket).write_all(command.as_bytes())?;
        let size = sizes
            .recv_timeout(IO_TIMEOUT)
            .map_err(|_| io::Error::other("the server has not answered"))?;
        left += size;
        // So that a recv() brings as much as it can, and not by chance less.
        wait_until(("the answer has arrived", "回答已到达"), || {
            Ok(queued(socket)? >= left.min(recv_size).min(ALL_AT_ONCE))
        })?;
        let mut buffer = vec![0; recv_size];
        let count = down.reader(socket).read(&mut buffer)?;
        buffer.truncate(count);
        received.push(buffer);
        left -= count;
    }
    Ok(received)
}

/// Of each read, the message that its first byte belongs to.
fn owners_of_reads(record: &Record) -> Vec<usize> {
    let reads = record.steps.iter().filter(|step| step.kind == StepKind::Read);
    let owner = |place| {
        record.messages.iter().position(|message| place < message.end).unwrap_or(usize::MAX)
    };
    reads.map(|step| owner(step.start)).collect()
}
