//! Many messages on one connection: an empty one hangs both sides, and the end of the connection
//! must be noticed.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::flow::Flow;
use crate::kernel::segments_sent;
use crate::sockets::{TO_SERVER, pair, queued, recv, unacknowledged, wait_until, with_timeouts};
use crate::stage::{LessonError, LessonResult, Stage};

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    many_messages(stage)?;
    an_empty_message(stage)?;
    the_end(stage)?;
    a_reset(stage)?;
    the_next_client(stage)
}

fn many_messages(stage: &mut Stage) -> LessonResult {
    stage.scene(("A loop on both sides", "两边各一个循环"))?;
    let (client, server) = pair()?;
    let up = Flow::new(TO_SERVER);
    let listened = up.clone();
    let echo = thread::spawn(move || echo(&server, &listened));
    let mut buffer = [0; 1024];
    let mut answers = Vec::new();
    for word in ["hello", "good morning", "bye"] {
        up.message(word);
        up.writer(&client).write_all(word.as_bytes())?;
        let count = recv(&client, &mut buffer)?;
        answers.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
    }
    drop(client);
    joined(echo)?;
    stage.say((
        format!(
            "Each side sends, then receives, again and again on the same connection. The echoes: \
             {}.",
            answers.join(", ")
        ),
        format!("双方在同一条连接上反复地发、收。回声依次是：{}。", answers.join("、")),
    ))?;
    stage.draw(&up)?;
    stage.fact(
        answers == ["hello", "good morning", "bye"],
        ("three messages, three echoes: as long as everybody waits for the answer, nothing sticks \
         together",
        "三条消息，三个回声：只要每次都等到回答再发，就不会粘在一起"),
    )
}

/// Answers everything until the client has gone.
fn echo(mut server: &TcpStream, up: &Flow) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let count = up.reader(server).read(&mut buffer)?;
        if count == 0 {
            // the end of the connection: without this line the loop would spin, see below
            return Ok(());
        }
        server.write_all(&buffer[..count])?;
    }
}

fn an_empty_message(stage: &mut Stage) -> LessonResult {
    stage.scene(("Somebody just presses Enter: the empty message", "只按了回车：空消息"))?;
    let (client, server) = pair()?;
    let flow = Flow::new(TO_SERVER);
    flow.message("b\"\"");
    let written = flow.writer(&client).write(b"")?; // send(b"")
    stage.draw(&flow)?;
    let (segments, here, there) =
        (segments_sent(&client)?, unacknowledged(&client)?, queued(&server)?);
    stage.say(
        (format!(
            "`send(b\"\")` returned {written}. Segments with data sent: {segments}. Bytes on their \
            way: {here}. Bytes in the server's receive buffer: {there}."
        ),
        format!(
            "`send(b\"\")` 返回 {written}。发出的数据段：{segments} 个；在途字节：{here}；服务器接收\
            缓冲区（receive buffer）里：{there} 字节。"
        )),
    )?;
    stage.fact(
        (written, segments, here, there) == (0, 0, 0, 0),
        ("an empty message puts nothing on the wire", "空消息不会在线路上产生任何东西"),
    )?;
    // Now both do what their loops say: the server waits for the message, the client for the
    // answer. Without a time limit they would wait for ever.
    let limit = Duration::from_millis(200);
    client.set_read_timeout(Some(limit))?;
    server.set_read_timeout(Some(limit))?;
    // Each keeps its socket open until both have given up: a closed one would be the end for the
    // other.
    let waiting = thread::spawn(move || {
        (recv(&server, &mut [0; 1024]).map_err(|error| error.kind()), server)
    });
    let client_waited = recv(&client, &mut [0; 1024]).map_err(|error| error.kind());
    let (server_waited, _server) =
        waiting.join().map_err(|_| io::Error::other("the server's thread panicked"))?;
    stage.notice(
        ("The server waits in recv() for a message that was never sent; the client waits in recv() \
         for \
        an answer to it. Both wait for ever: that is the hang.",
        "服务器在 recv() 里等一条从未发出的消息；客户端在 recv() 里等它的回答。双方永远等下去：程序就这\
        样卡死（hang）了。"),
    )?;
    stage.fact(
        client_waited == Err(ErrorKind::WouldBlock) && server_waited == Err(ErrorKind::WouldBlock),
        (
            format!(
                "only a time limit of {} ms ended both recv(): neither had received a \
            byte",
                limit.as_millis()
            ),
            format!(
                "两个 recv() 都靠 {} 毫秒的超时（timeout）才结束，一个字节也没收到",
                limit.as_millis()
            ),
        ),
    )?;
    Ok(stage.say(
        ("The cure of beginners: do not send empty messages. The real cure: a header in front of \
         every \
        message. A message of length 0 is then a header, which is 4 or 12 bytes, and arrives.",
        "初学者的办法：不发空消息。真正的办法：每条消息前加消息头（header）。长度为 0 的消息也有 4 或 \
        12 字节的头，能够送达。"),
    )?)
}

fn the_end(stage: &mut Stage) -> LessonResult {
    stage.scene((
        "The client has gone: recv returns 0, again and again",
        "客户端走了：recv 一次又一次返回 \
        0",
    ))?;
    const ENOUGH: usize = 1000;
    let (client, server) = pair()?;
    let flow = Flow::new(TO_SERVER);
    flow.message("bye");
    flow.writer(&client).write_all(b"bye")?;
    drop(client); // close(): a FIN follows the three bytes
    let mut input = flow.reader(&server);
    let mut buffer = [0; 1024];
    let mut empty = 0;
    // The naive loop, which takes the end of the connection for one more message; we stop it after
    // a while.
    while empty < ENOUGH {
        if input.read(&mut buffer)? == 0 {
            empty += 1;
        }
    }
    stage.say((
        "The client said bye and closed. The naive server's loop goes on: recv(), recv(), recv() …",
        "客户端说完 bye 就关闭了连接。不做判断的服务器还在循环：recv()、recv()、recv()……",
    ))?;
    stage.draw(&flow)?;
    let steps = flow.record().steps;
    let spun = match (steps.iter().find(|step| step.start == 3), steps.last()) {
        (Some(first), Some(last)) => last.at - first.at,
        _ => Duration::ZERO,
    };
    stage.notice(
        (format!(
            "None of these {empty} calls waited: at the end of a stream recv() returns at once, \
            with 0 bytes. A naive server spins and keeps a processor busy for nothing."
        ),
        format!(
            "这 {empty} 次调用没有一次在等待：流（stream）到了尽头，recv() 立刻返回 0 字节。不做判断\
            的服务器会空转（busy loop），白白占满一个 CPU 核。"
        )),
    )?;
    stage.fact(
        empty == ENOUGH,
        (
            format!("{empty} reads of 0 bytes, in {} µs", spun.as_micros()),
            format!("{empty} 次读到 0 字节，共用 {} 微秒", spun.as_micros()),
        ),
    )
}

/// How a conversation ended: by end of file, or by an error.
type End = Option<ErrorKind>;

/// A server for one client after the other. The naive one lets any client's error end it.
fn sequential(naive: bool) -> io::Result<(SocketAddr, JoinHandle<io::Result<Vec<End>>>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || {
        let mut ends = Vec::new();
        loop {
            let mut client = with_timeouts(listener.accept()?.0)?;
            match talk(&mut client) {
                Ok(Said::Bye) => ends.push(None),
                Ok(Said::Shutdown) => return Ok(ends),
                Err(error) if naive => return Err(error), // one client's crash is everybody's
                Err(error) => ends.push(Some(error.kind())), // and on to the next client
            }
        }
    });
    Ok((address, server))
}

enum Said {
    Bye,
    Shutdown,
}

/// Answers one client until its end.
fn talk(client: &mut TcpStream) -> io::Result<Said> {
    let mut buffer = [0; 1024];
    loop {
        match recv(client, &mut buffer)? {
            0 => return Ok(Said::Bye),
            count if &buffer[..count] == b"shutdown" => return Ok(Said::Shutdown),
            count => client.write_all(&buffer[..count])?,
        }
    }
}

/// Has one word answered. The server is then in recv(), with nothing unread: what happens next is
/// certain.
fn greet(address: SocketAddr) -> io::Result<TcpStream> {
    let mut client = with_timeouts(TcpStream::connect(address)?)?;
    client.write_all(b"hello")?;
    client.read_exact(&mut [0; 5])?;
    Ok(client)
}

/// Is ended before it has read its answer. Where bytes lie unread, close() sends RST instead of FIN
/// (RFC 2525, 2.17).
fn crash(address: SocketAddr) -> LessonResult {
    let mut client = with_timeouts(TcpStream::connect(address)?)?;
    client.write_all(b"hello")?;
    wait_until(("the answer waits to be read", "回答已到，还没有读"), || {
        Ok(queued(&client)? == 5)
    })
}

fn a_reset(stage: &mut Stage) -> LessonResult {
    stage.scene(("The client has crashed: connection reset", "客户端崩溃了：连接被重置"))?;
    let (address, server) = sequential(true)?;
    crash(address)?;
    let died = joined(server);
    let kind = match &died {
        Err(LessonError::Io(error)) => error.kind(),
        _ => ErrorKind::Other,
    };
    let next = loop {
        match TcpStream::connect(address).map_err(|error| error.kind()) {
            // Once in a blue moon the kernel gives us the very port that we dial, and TCP connects
            // us to ourselves.
            Ok(stream) if stream.local_addr()? == address => continue,
            next => break next,
        }
    };
    stage.say(
        (format!(
            "The client ended before it had read its answer: bytes lay unread, so its kernel sent \
             RST instead of \
            FIN. The naive server's recv() failed: {kind} (ECONNRESET). Nobody caught it, so the \
            server's loop \
            ended, and its listening socket was closed."
        ),
        format!(
            "客户端没读回答就退出了：缓冲区里还有没读的字节，所以它的内核发出的不是 FIN，而是 RST。不做处理的\
            服务器，recv() 报错：{kind}（ECONNRESET，连接被重置）。没人捕获这个错误，循环结束，监听套接字也随\
            之关闭。"
        )),
    )?;
    stage.fact(
        kind == ErrorKind::ConnectionReset
            && next.as_ref().err() == Some(&ErrorKind::ConnectionRefused),
        (
            "one client's crash has ended the server: the next client was refused (ECONNREFUSED)",
            "一个客户端崩溃，整个服务器跟着退出：下一个客户端被拒绝连接（ECONNREFUSED）",
        ),
    )
}

fn the_next_client(stage: &mut Stage) -> LessonResult {
    stage.scene(("The server goes on to the next client", "服务器继续为下一个客户端服务"))?;
    let (address, server) = sequential(false)?;
    drop(greet(address)?); // leaves politely
    crash(address)?;
    let mut third = greet(address)?; // and is answered all the same
    third.write_all(b"shutdown")?;
    let ends = joined(server)?;
    let words = |end: &End| match end {
        None => ("end of file".to_owned(), "正常结束（end of file）".to_owned()),
        Some(kind) => (kind.to_string(), format!("出错（{kind}）")),
    };
    let (english, chinese): (Vec<_>, Vec<_>) = ends.iter().map(words).unzip();
    stage.say((
        format!("How the first two clients went: {}. The third was answered.", english.join("; ")),
        format!("前两个客户端的结局：{}。第三个照样得到了回答。", chinese.join("；")),
    ))?;
    stage.notice(
        ("Two lines make the difference: `if count == 0` ends the inner loop, and an error of one \
         client \
        ends only that client's loop, never the outer one.",
        "差别只在两行：`if count == 0` 结束内层循环；某个客户端出错，只结束它自己的内层循环，绝不波及外\
        层循环。"),
    )?;
    stage.fact(
        ends == [None, Some(ErrorKind::ConnectionReset)],
        (
            "end of file and reset both ended one conversation, and none ended the server",
            "无论是正常结束还是被重置，都只结束一次会话，不会结束服务器",
        ),
    )
}

fn joined<T>(thread: JoinHandle<io::Result<T>>) -> Result<T, LessonError> {
    let result = thread.join().map_err(|_| io::Error::other("a thread panicked"))?;
    Ok(result?)
}
