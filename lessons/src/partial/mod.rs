//! `send` against `sendall`: a full send buffer takes only part, and whoever does not look loses
//! the rest.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;

use crate::flow::Flow;
use crate::sockets::{IO_TIMEOUT, pair, queued, unacknowledged, wait_until};
use crate::stage::{LessonResult, Stage};

/// How much the program wants to send: far more than both buffers hold.
const TOTAL: usize = 1 << 20;

/// What is asked for each buffer; Linux doubles it, for its own bookkeeping (socket(7)).
const BUFFER: usize = 16 << 10;

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    // Numbered lines of eight bytes: one sees at once which are missing.
    let data: Vec<u8> =
        (1..=TOTAL / 8).flat_map(|number| format!("{number:07}\n").into_bytes()).collect();
    the_naive_program(stage, &data)?;
    full(stage, &data)?;
    send_with_a_timeout(stage, &data)?;
    send_all(stage, &data)
}

/// A sender and a receiver whose buffers are small, whatever this machine's defaults are.
fn small_pair() -> io::Result<(TcpStream, TcpStream)> {
    let (sender, receiver) = pair()?;
    SockRef::from(&sender).set_send_buffer_size(BUFFER)?;
    SockRef::from(&receiver).set_recv_buffer_size(BUFFER)?;
    Ok((sender, receiver))
}

fn the_naive_program(stage: &mut Stage, data: &[u8]) -> LessonResult {
    stage.scene((
        "A program that does not look at what send returns",
        "一个不看 send 返回值的程序",
    ))?;
    let (sender, receiver) = small_pair()?;
    sender.set_nonblocking(true)?;
    let flow = Flow::new(("naive sender → receiver", "粗心的发送方 → 接收方"));
    let (mut out, mut input) = (flow.writer(&sender), flow.reader(&receiver));

    flow.message(("lines", "数字行"));
    let taken = out.write(data)?; // write(2), send(2): they return how much they took.
    stage.say(
        (format!(
            "The socket is non-blocking. One send was given {TOTAL} bytes and returned {taken}: so \
            many fitted into the send buffer."
        ),
        format!(
            "套接字是非阻塞（non-blocking）的。一次 send 交给它 {TOTAL} 字节，返回 {taken}：发送缓冲区\
            （send buffer）只装得下这么多。"
        )),
    )?;
    stage.fact(taken < data.len(), ("send took only part", "send 只收下了一部分"))?;

    // The receiver reads, there is room again, and the naive program goes on with its next message.
    let mut received = Vec::new();
    let mut buffer = [0; 8192];
    while received.len() < taken {
        let read = input.read(&mut buffer)?;
        received.extend_from_slice(&buffer[..read]);
        if read == 0 {
            break;
        }
    }
    wait_until(("the send buffer is empty", "发送缓冲区已空"), || {
        Ok(unacknowledged(&sender)? == 0)
    })?;
    flow.message("END");
    let end = out.write(b"END\n")?;
    drop(out);
    drop(sender);
    input.read_to_end(&mut received)?;

    stage.draw(&flow)?;
    stage.show(
        ("The last bytes that arrived", "最后到达的字节"),
        &received[received.len().saturating_sub(36)..],
    )?;
    stage.notice((
        "The lines stop in the middle, END follows directly, and no call reported an error.",
        "数字行在中途断掉，后面紧跟着 END，而且没有任何一次调用报错。",
    ))?;
    let lost = data.len() - taken;
    stage.fact(
        end == 4 && received == [&data[..taken], b"END\n"].concat() && lost > 0,
        (
            format!("{lost} of {TOTAL} bytes were never sent, and nobody was told"),
            format!("{TOTAL} 字节中有 {lost} 字节根本没有发出，而且没有人知道"),
        ),
    )
}

fn full(stage: &mut Stage, data: &[u8]) -> LessonResult {
    stage.scene(("A full buffer: EAGAIN", "缓冲区满了：EAGAIN"))?;
    let (mut sender, mut receiver) = small_pair()?;
    sender.set_nonblocking(true)?;
    let mut calls = Vec::new();
    let error = loop {
        match sender.write(data) {
            Ok(taken) => calls.push(taken),
            Err(error) => break error,
        }
    };
    stage.list(
        (
            "What send returned, call after call, while nobody read",
            "没有人读取时，send 各次的返回值",
        ),
        (format!("{calls:?}, then: {error}"), format!("{calls:?}，然后：{error}")),
    )?;
    stage.fact(
        error.kind() == ErrorKind::WouldBlock,
        (
            "a full buffer is no fault of the connection: EAGAIN means 'not now'",
            "缓冲区满并不是连接出错：EAGAIN 的意思是“现在不行”",
        ),
    )?;
    // Nobody reads yet. Once the kernel is quiet, every byte is in exactly one of the two buffers.
    let total: usize = calls.iter().sum();
    let (mut here, mut there) = (0, 0);
    wait_until(
        ("both buffers account for every byte", "两个缓冲区合起来正好是这些字节"),
        || {
            (here, there) = (unacknowledged(&sender)?, queued(&receiver)?);
            Ok(here + there == total)
        },
    )?;
    stage.say(
        (format!(
            "Where the {total} bytes are: {there} in the receive buffer (SIOCINQ), {here} in the \
             send \
            buffer (SIOCOUTQ). Both are full."
        ),
        format!(
            "这 {total} 字节在哪里：接收缓冲区（receive buffer）里 {there}（SIOCINQ），发送缓冲区里 \
            {here}（SIOCOUTQ）。两个都满了。"
        )),
    )?;
    // A slow receiver slows the sender down: that is flow control, and it reaches up to the
    // program.
    receiver.read_exact(&mut vec![0; total])?;
    wait_for_room(&sender)?;
    let taken = sender.write(data)?;
    stage.fact(
        taken > 0,
        (
            format!(
                "the receiver has read, poll says that there is room, and send takes {taken} more"
            ),
            format!("接收方读走了数据，poll 报告有了空间，send 又收下 {taken} 字节"),
        ),
    )
}

fn send_with_a_timeout(stage: &mut Stage, data: &[u8]) -> LessonResult {
    stage.scene(("A blocking socket with a timeout", "带超时的阻塞套接字"))?;
    stage.say(
        ("A blocking send waits until all of it is in the buffer, so on a good day it takes \
         everything and \
            the mistake stays hidden. A timeout or a signal ends the waiting early.",
        "阻塞的 send 会一直等到数据全部放进缓冲区，所以平时它总是全部收下，错误就此藏了起来。超时或信号会让\
            等待提前结束。"),
    )?;
    let (mut sender, _receiver) = small_pair()?;
    sender.set_write_timeout(Some(Duration::from_millis(100)))?;
    let taken = sender.write(data)?;
    stage.fact(
        taken < data.len(),
        (
            format!(
                "nobody reads, the time is up: a blocking send, too, returns {taken} of {TOTAL}"
            ),
            format!("没有人读取，时间到了：阻塞的 send 同样只返回 {taken}（共 {TOTAL}）"),
        ),
    )?;
    let failed = sender.write_all(data);
    stage.fact(
        failed.is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
        (
            "sendall fails as well, and does not say how much it had sent: after that a connection \
         can only be \
            closed",
            "sendall 也会失败，而且不说已经发出多少：这样的连接只能关闭",
        ),
    )
}

fn send_all(stage: &mut Stage, data: &[u8]) -> LessonResult {
    stage.scene((
        "The cure: send the rest, until there is none",
        "解决办法：把剩下的接着发，直到发完",
    ))?;
    let (sender, mut receiver) = small_pair()?;
    sender.set_nonblocking(true)?;
    let flow = Flow::new(("careful sender → receiver", "细心的发送方 → 接收方"));
    flow.message(("lines", "数字行"));
    let mut out = flow.writer(&sender);
    let mut rest = &data[out.write(data)?..]; // Before anybody reads, so that it takes only part.
    let mut waits = 0;
    let received = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut received = Vec::new();
            receiver.read_to_end(&mut received).map(|_| received)
        });
        // This loop is sendall; in Rust it is called write_all.
        let sent = loop {
            match out.write(rest) {
                Ok(taken) => rest = &rest[taken..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    waits += 1;
                    if let Err(error) = wait_for_room(&sender) {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error),
            }
            if rest.is_empty() {
                break Ok(());
            }
        };
        sender.shutdown(Shutdown::Write)?; // The reader's end of file.
        let received = reader.join().map_err(|_| io::Error::other("the reader panicked"))??;
        sent.map(|()| received)
    })?;
    let calls = flow.record().steps.len();
    stage.say(
        (format!(
            "{calls} sends took something, and {waits} times poll waited for room. Each time the \
             loop \
            went on behind the last byte taken."
        ),
        format!(
            "{calls} 次 send 收下了数据，poll 等待空间 {waits} 次。每一次都从上次收下的最后一个字节之后\
            接着发。"
        )),
    )?;
    stage.fact(
        calls > 1 && received == data,
        (
            format!("all {TOTAL} bytes arrived, in order, none twice"),
            format!("{TOTAL} 字节全部到达，次序不变，没有重复"),
        ),
    )?;

    let (sender, mut receiver) = small_pair()?;
    let received = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut received = Vec::new();
            receiver.read_to_end(&mut received).map(|_| received)
        });
        let sent = (&sender).write_all(data);
        sender.shutdown(Shutdown::Write)?;
        let received = reader.join().map_err(|_| io::Error::other("the reader panicked"))??;
        sent.map(|()| received)
    })?;
    stage.fact(
        received == data,
        (
            "write_all on a blocking socket does the same in one line (Python: sendall); it is the \
         one to use",
            "对阻塞套接字调用 write_all，一行代码就做到了（Python 里叫 sendall）；平时就该用它",
        ),
    )
}

/// Sleeps until the send buffer has room (poll(2)).
fn wait_for_room(socket: &TcpStream) -> io::Result<()> {
    let patience = PollTimeout::try_from(IO_TIMEOUT).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], patience)? {
        0 => Err(ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
