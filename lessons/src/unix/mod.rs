//! AF_UNIX: stream and datagram sockets between two processes on one machine; the address is a
//! file; who the other is.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::cmsg_space;
use nix::sys::socket::sockopt::{PassCred, PeerCredentials};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, getsockopt, recvmsg, setsockopt,
};
use nix::unistd::{Uid, geteuid, setfsuid};

use crate::flow::{Carrier, Flow};
use crate::sockets::{IO_TIMEOUT, queued, wait_until};
use crate::stage::{LessonError, LessonResult, Stage};

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    let directory = tempfile::tempdir()?;
    // Others may look for the socket in it: below, its own permissions are to decide.
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    let path = directory.path().join("server.sock");
    stream(stage, &path)?;
    let _listener = the_file_stays(stage, &path)?;
    permissions(stage, &path)?;
    datagram(stage, &directory.path().join("inbox.sock"))?;
    boundaries(stage)
}

/// A process that is ended and reaped, however the lesson ends.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill(); // It may have ended by itself.
        let _ = self.0.wait();
    }
}

fn shell(script: &str, stdin: impl Into<Stdio>, stdout: impl Into<Stdio>) -> io::Result<Reaped> {
    Ok(Reaped(Command::new("/bin/sh").args(["-c", script]).stdin(stdin).stdout(stdout).spawn()?))
}

/// One recvmsg: the bytes, and who wrote them. The kernel notes the writer, who cannot lie
/// (SCM_CREDENTIALS, unix(7)).
fn receive(socket: &impl AsFd) -> io::Result<(Vec<u8>, Option<UnixCredentials>)> {
    let mut buffer = [0; 256];
    let mut space = cmsg_space!(UnixCredentials);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let writer = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmCredentials(writer) => Some(writer),
        _ => None,
    });
    let read = message.bytes;
    Ok((buffer[..read].to_vec(), writer))
}

fn is(who: Option<UnixCredentials>, process: u32) -> bool {
    who.is_some_and(|who| u32::try_from(who.pid()) == Ok(process))
}

fn stream(stage: &mut Stage, path: &Path) -> LessonResult {
    stage.scene(("The address is a file", "地址是一个文件"))?;
    let listener = UnixListener::bind(path)?;
    let listed = Command::new("ls").arg("-l").arg(path).output()?.stdout;
    stage.show(("ls -l shows the server's address", "ls -l 看到的服务器地址"), &listed)?;
    stage.fact(
        fs::symlink_metadata(path)?.file_type().is_socket(),
        (
            "bind has made a file of the type 's', a socket: no port, no network",
            "bind 创建了一个类型为 s（套接字）的文件：没有端口，也不经过网络",
        ),
    )?;

    stage.scene(("Two processes, and who is at the other end", "两个进程，以及对方是谁"))?;
    let client = UnixStream::connect(path)?;
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(IO_TIMEOUT))?;
    server.set_write_timeout(Some(IO_TIMEOUT))?;
    setsockopt(&server, PassCred, &true)?; // From now on every recvmsg is told the writer.
    // Another program gets the client's end as its stdin and stdout, and knows nothing of sockets.
    let script = "echo \"I am process $$\"; read word; echo \"process $$ has read: $word\"";
    let mut process = shell(script, OwnedFd::from(client.try_clone()?), OwnedFd::from(client))?;
    let (greeting, writer) = receive(&server)?;
    server.write_all(b"good morning\n")?;
    let (answer, _) = receive(&server)?;
    stage.show(
        ("The server received from /bin/sh", "服务器从 /bin/sh 收到"),
        &[greeting, answer.clone()].concat(),
    )?;
    stage.fact(
        answer.ends_with(b"has read: good morning\n") && process.0.wait()?.success(),
        (
            "two processes have talked to each other, both ways, over one stream socket",
            "两个进程通过同一个流式套接字（stream socket）双向交谈",
        ),
    )?;

    let connected = getsockopt(&server, PeerCredentials)?;
    let (ours, theirs) = (std::process::id(), process.0.id());
    stage.say((
        format!(
            "We are process {ours}: we connected, and then gave our end to the shell, process \
            {theirs}."
        ),
        format!("我们是进程 {ours}：由我们 connect，然后把这一端交给了 shell，即进程 {theirs}。"),
    ))?;
    stage.fact(
        is(Some(connected), ours) && connected.uid() == geteuid().as_raw(),
        (
            format!(
                "SO_PEERCRED names who called connect: process {}, user {}",
                connected.pid(),
                connected.uid()
            ),
            format!(
                "SO_PEERCRED 说的是谁调用了 connect：进程 {}，用户 {}",
                connected.pid(),
                connected.uid()
            ),
        ),
    )?;
    stage.fact(
        is(writer, theirs),
        (format!(
            "SCM_CREDENTIALS names who wrote these very bytes: process {theirs}; the kernel \
             vouches \
            for both, no password is needed"
        ),
        format!("SCM_CREDENTIALS 说的是这些字节究竟由谁写出：进程 {theirs}；两者都由内核担保，不需要口令")),
    )
}

fn the_file_stays(stage: &mut Stage, path: &Path) -> Result<UnixListener, LessonError> {
    stage.scene(("The file stays when the server is gone", "服务器走了，文件还在"))?;
    let refused = || {
        Ok(UnixStream::connect(path)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused))
    };
    wait_until(("the server's socket is closed", "服务器的套接字已关闭"), refused)?;
    stage.fact(
        path.exists() && refused()?,
        (
            "the server has closed its socket; the file is still there, and whoever connects is \
         refused \
            (ECONNREFUSED)",
            "服务器已关闭套接字；文件还在，来连接的被拒绝（ECONNREFUSED）",
        ),
    )?;
    stage.fact(
        UnixListener::bind(path).is_err_and(|error| error.kind() == ErrorKind::AddrInUse),
        ("and bind fails: 'address already in use' (EADDRINUSE); here no TIME_WAIT runs out, and \
            SO_REUSEADDR does nothing",
        "bind 也失败：“地址已被占用”（EADDRINUSE）；这里没有会过期的 TIME_WAIT，SO_REUSEADDR 也不起作用"),
    )?;
    fs::remove_file(path)?;
    stage.fact(
        UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::NotFound),
        (
            "after unlink there is no such address any more (ENOENT)",
            "unlink 之后，这个地址就不存在了（ENOENT）",
        ),
    )?;
    let listener = UnixListener::bind(path)?;
    stage.fact(
        listener.local_addr()?.as_pathname() == Some(path),
        ("and bind succeeds again: a server of this kind unlinks what its predecessor left behind",
        "bind 也重新成功：这类服务器启动时，要先 unlink 前任留下的文件"),
    )?;
    Ok(listener)
}

fn permissions(stage: &mut Stage, path: &Path) -> LessonResult {
    stage.scene(("Permissions decide who may connect", "文件权限决定谁可以连接"))?;
    // Root may do anything; so a thread of root's asks for files as the user 65534, nobody
    // (setfsuid(2), per thread).
    let root = geteuid().is_root();
    let (shut, open) = if root { (0o600, 0o666) } else { (0o000, 0o600) };
    let nobody = Uid::from_raw(65534);
    let become_nobody = || {
        setfsuid(nobody);
        // That is no user: it changes nothing and tells who we are.
        setfsuid(Uid::from_raw(u32::MAX)) == nobody
    };
    if root && !thread::scope(|scope| scope.spawn(become_nobody).join().unwrap_or(false)) {
        stage.say((
            "Root may connect whatever the permissions are, and this container has no other user \
             to show \
                it with.",
            "无论权限如何，root 都可以连接；而这个容器里没有别的用户可供演示。",
        ))?;
        return Ok(());
    }
    let connect = || {
        thread::scope(|scope| {
            let client = scope.spawn(|| {
                if root && !become_nobody() {
                    return Err(io::Error::other("this thread cannot become nobody"));
                }
                UnixStream::connect(path)
            });
            client.join().unwrap_or_else(|_| Err(io::Error::other("the client panicked")))
        })
    };
    let (who, whom) = if root {
        ("the user nobody", "用户 nobody ")
    } else {
        ("our own user", "我们自己的用户")
    };
    stage.say(
        (format!(
            "A server listens on this file. A client of {who} tries to connect, twice; in between \
             we \
            chmod the file."
        ),
        format!(
            "有一个服务器在监听这个文件。{whom}的客户端尝试连接两次；两次之间我们用 chmod 改变文件权\
            限。"
        )),
    )?;
    fs::set_permissions(path, Permissions::from_mode(shut))?;
    let refused = connect();
    fs::set_permissions(path, Permissions::from_mode(open))?;
    let admitted = connect();
    stage.fact(
        refused.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied),
        (
            format!(
                "with mode {shut:04o} {who} cannot connect (EACCES): connecting needs the right \
            to write"
            ),
            format!("权限为 {shut:04o} 时，{whom}无法连接（EACCES）：连接需要写权限"),
        ),
    )?;
    stage.fact(
        admitted.is_ok(),
        (format!(
            "with mode {open:04o} the same client is let in: chmod is this server's access control"
        ),
        format!("权限改为 {open:04o}，同一个客户端就连上了：chmod 就是这个服务器的访问控制")),
    )
}

fn datagram(stage: &mut Stage, path: &Path) -> LessonResult {
    stage.scene(("Datagrams between two processes", "两个进程之间的数据报"))?;
    let inbox = UnixDatagram::bind(path)?;
    inbox.set_read_timeout(Some(IO_TIMEOUT))?;
    setsockopt(&inbox, PassCred, &true)?;
    let client = UnixDatagram::unbound()?;
    client.connect(path)?;
    // Each printf of the shell is one write, and each write on a datagram socket is one message.
    let mut process = shell("printf one; printf two", Stdio::null(), OwnedFd::from(client))?;
    let theirs = process.0.id();
    let (first, writer) = receive(&inbox)?;
    let (second, writer_again) = receive(&inbox)?;
    let ended = process.0.wait()?;
    let told = [&first[..], b"\n", &second].concat();
    stage.show(
        (
            "/bin/sh ran printf twice; two recvmsg, each on a line",
            "/bin/sh 执行了两次 printf；两次 recvmsg，各占一行",
        ),
        &told,
    )?;
    stage.fact(
        ended.success()
            && first == b"one"
            && second == b"two"
            && is(writer, theirs)
            && is(writer_again, theirs),
        (
            format!(
                "process {theirs} wrote twice, and exactly two messages arrived, each with its \
             writer's number"
            ),
            format!("进程 {theirs} 写了两次，到达的正好是两条消息，而且都带着写者的进程号"),
        ),
    )
}

fn boundaries(stage: &mut Stage) -> LessonResult {
    stage.scene(("Stream and datagram compared", "流与数据报的对比"))?;
    let messages = ["ls", "ps aux", "exit"];
    let total: usize = messages.iter().map(|message| message.len()).sum();

    let (mut ours, mut theirs) = UnixStream::pair()?;
    let stream = Flow::new("SOCK_STREAM");
    for message in messages {
        stream.message(message);
        stream.writer(&mut ours).write_all(message.as_bytes())?;
    }
    wait_until(("all three messages are there", "三条消息都到了"), || {
        Ok(queued(&theirs)? == total)
    })?;
    let glued = stream.reader(&mut theirs).read(&mut [0; 1024])?;

    let (ours, theirs) = UnixDatagram::pair()?;
    theirs.set_read_timeout(Some(IO_TIMEOUT))?;
    let datagram = Flow::over(Carrier::Pair, "SOCK_DGRAM");
    let mut apart = Vec::new();
    for message in messages {
        datagram.message(message);
        ours.send(message.as_bytes())?;
        datagram.wrote(message.as_bytes());
    }
    for _ in messages {
        let mut buffer = [0; 1024];
        let read = theirs.recv(&mut buffer)?;
        datagram.read(&buffer[..read]);
        apart.push(read);
    }
    stage.draw(&stream)?;
    stage.draw(&datagram)?;
    stage.fact(
        glued == total,
        (
            format!(
                "the stream glued three messages together: one read of {glued} bytes. Not only TCP \
             does \
            so: every stream does"
            ),
            format!("流把三条消息粘在了一起：一次读到 {glued} 字节。不只是 TCP，凡是字节流都如此"),
        ),
    )?;
    stage.fact(
        messages.iter().map(|message| message.len()).eq(apart),
        (
            "the datagrams stayed apart. And unlike UDP's, these are neither lost nor reordered: a \
         full queue \
            makes the sender wait",
            "数据报保持分开。而且与 UDP 不同，它们既不会丢失也不会乱序：队列满了，发送方就得等待",
        ),
    )
}
