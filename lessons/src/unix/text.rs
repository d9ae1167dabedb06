//! The texts of the lesson `unix`.

use crate::language::{ConstText, Text, text};

pub(super) const ADDRESS_IS_A_FILE: ConstText = ("The address is a file", "地址是一个文件");

pub(super) const LS: ConstText = ("ls -l shows the server's address", "ls -l 看到的服务器地址");

pub(super) const TYPE_SOCKET: ConstText = (
    "bind has made a file of the type 's', a socket: no port, no network",
    "bind 创建了一个类型为 s（套接字）的文件：没有端口，也不经过网络",
);

pub(super) const TWO_PROCESSES: ConstText =
    ("Two processes, and who is at the other end", "两个进程，以及对方是谁");

pub(super) const FROM_SHELL: ConstText =
    ("The server received from /bin/sh", "服务器从 /bin/sh 收到");

pub(super) const BOTH_WAYS: ConstText = (
    "two processes have talked to each other, both ways, over one stream socket",
    "两个进程通过同一个流式套接字（stream socket）双向交谈",
);

pub(super) fn two_processes(own: u32, shell: u32) -> Text {
    text!(
        "This lesson is process {own}: it called connect, and then gave its end to the shell, \
         process {shell}.",
        "本程序是进程 {own}：由它调用 connect，然后把自己这一端交给了 shell（进程 {shell}）。"
    )
}

pub(super) fn peer_credentials(process: i32, user: u32) -> Text {
    text!(
        "SO_PEERCRED names the process that called connect: process {process}, user {user}",
        "SO_PEERCRED 给出调用 connect 的进程：进程 {process}，用户 {user}"
    )
}

pub(super) fn writer_credentials(process: u32) -> Text {
    text!(
        "SCM_CREDENTIALS names the process that wrote these bytes: process {process}; the kernel \
         vouches for both, no password is needed",
        "SCM_CREDENTIALS 给出写出这些字节的进程：进程 {process}；两者都由内核担保，不需要口令"
    )
}

pub(super) const FILE_REMAINS: ConstText =
    ("The file remains when the server is gone", "服务器走了，文件还在");

pub(super) const SERVER_CLOSED: ConstText =
    ("the server's socket is closed", "服务器的套接字已关闭");

pub(super) const REFUSED: ConstText = (
    "the server has closed its socket; the file is still there, and clients are refused \
     (ECONNREFUSED)",
    "服务器已关闭套接字；文件还在，来连接的客户端被拒绝（ECONNREFUSED）",
);

pub(super) const BIND_FAILS: ConstText = (
    "and bind fails: 'address already in use' (EADDRINUSE); here no TIME_WAIT expires, and \
     SO_REUSEADDR has no effect",
    "bind 也失败：“地址已被占用”（EADDRINUSE）；这里没有会过期的 TIME_WAIT，SO_REUSEADDR 也不起作\
     用",
);

pub(super) const NO_ADDRESS: ConstText = (
    "after unlink the address does not exist any more (ENOENT)",
    "unlink 之后，这个地址就不存在了（ENOENT）",
);

pub(super) const BIND_SUCCEEDS: ConstText = (
    "and bind succeeds again: such a server first unlinks the file that its predecessor left",
    "bind 也重新成功：这类服务器启动时，要先 unlink 前任留下的文件",
);

pub(super) const PERMISSIONS: ConstText =
    ("Permissions decide who may connect", "文件权限决定谁可以连接");

pub(super) const ROOT_ONLY: ConstText = (
    "Root may connect whatever the permissions are, and this container has no other user to show \
     it with.",
    "无论权限如何，root 都可以连接；而这个容器里没有别的用户可供演示。",
);

/// The user whose client tries to connect.
fn user(root: bool) -> ConstText {
    if root { ("the user nobody", "用户 nobody ") } else { ("the current user", "当前用户") }
}

pub(super) fn chmod_between(root: bool) -> Text {
    let (english, chinese) = user(root);
    text!(
        "A server listens on this file. A client of {english} tries to connect, twice; in between, \
         chmod changes the permissions of the file.",
        "有一个服务器在监听这个文件。{chinese}的客户端尝试连接两次；两次之间我们用 chmod 改变文件\
         权限。"
    )
}

pub(super) fn refused(mode: u32, root: bool) -> Text {
    let (english, chinese) = user(root);
    text!(
        "with mode {mode:04o} {english} cannot connect (EACCES): connecting needs write permission",
        "权限为 {mode:04o} 时，{chinese}无法连接（EACCES）：连接需要写权限"
    )
}

pub(super) fn admitted(mode: u32) -> Text {
    text!(
        "with mode {mode:04o} the same client may connect: chmod is this server's access control",
        "权限改为 {mode:04o}，同一个客户端就连上了：chmod 就是这个服务器的访问控制"
    )
}

pub(super) const DATAGRAMS: ConstText = ("Datagrams between two processes", "两个进程之间的数据报");

pub(super) const TWO_PRINTFS: ConstText = (
    "/bin/sh ran printf twice; two recvmsg, each on a line",
    "/bin/sh 执行了两次 printf；两次 recvmsg，各占一行",
);

pub(super) fn two_messages(process: u32) -> Text {
    text!(
        "process {process} wrote twice, and exactly two messages arrived, each with its writer's \
         number",
        "进程 {process} 写了两次，到达的正好是两条消息，而且都带着写入者的进程号"
    )
}

pub(super) const COMPARED: ConstText = ("Stream and datagrams compared", "流与数据报的对比");

pub(super) const ALL_ARRIVED: ConstText = ("all three messages have arrived", "三条消息都已到达");

pub(super) fn stream_glues(bytes: usize) -> Text {
    text!(
        "the stream glued three messages together: one read of {bytes} bytes. Not only TCP does \
         so: every stream does",
        "流把三条消息粘在了一起：一次读到 {bytes} 字节。不只是 TCP，凡是字节流都如此"
    )
}

pub(super) const DATAGRAMS_STAY_APART: ConstText = (
    "the datagrams stayed apart. And unlike UDP's, these are neither lost nor reordered: a full \
     queue makes the sender wait",
    "数据报保持分开。而且与 UDP 不同，它们既不会丢失也不会乱序：队列满了，发送方就得等待",
);
