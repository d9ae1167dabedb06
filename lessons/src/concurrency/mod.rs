//! Many clients at once: a sequential server, a thread for each client, an async task for each; the
//! same work timed.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::flow::Flow;
use crate::sockets::{IO_TIMEOUT, unacknowledged, wait_until, with_timeouts};
use crate::stage::{LessonError, LessonResult, Stage};

/// How many clients come at once when the work is timed.
const CLIENTS: usize = 8;

/// How long a server then waits for each, as it would for a disk, a database, a command.
const WORK: Duration = Duration::from_millis(50);

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    one_after_the_other(stage)?;
    a_thread_for_each(stage)?;
    a_task_for_each(stage)?;
    the_same_work_timed(stage)
}

/// Something that a client, which is numbered, or the server did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Asks(usize),
    Leaves(usize),
    Accepts(usize),
    Answers(usize, ThreadId),
}

impl Event {
    fn words(self) -> (String, String) {
        match self {
            Self::Asks(client) => {
                (format!("client {client} asks"), format!("客户端 {client} 提问"))
            }
            Self::Leaves(client) => {
                (format!("client {client} leaves"), format!("客户端 {client} 离开"))
            }
            Self::Accepts(client) => (
                format!("server accepts client {client}"),
                format!("服务器 accept 客户端 {client}"),
            ),
            Self::Answers(client, thread) => (
                format!("server answers client {client} in {thread:?}"),
                format!("服务器在线程 {thread:?} 里答复客户端 {client}"),
            ),
        }
    }
}

/// What clients and server have in common: what is to be done, and a journal of what happened,
/// in that order.
struct Job {
    flows: Vec<Flow>,
    work: Duration,
    journal: Mutex<Vec<Event>>,
    busy: AtomicUsize,
    most_busy: AtomicUsize,
}

impl Job {
    fn new(clients: usize, work: Duration) -> Arc<Self> {
        let flows = (1..=clients)
            .map(|number| {
                Flow::new((
                    format!("client {number} → server"),
                    format!("客户端 {number} → 服务器"),
                ))
            })
            .collect();
        let (journal, busy, most_busy) =
            (Mutex::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { flows, work, journal, busy, most_busy })
    }

    fn note(&self, event: Event) {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    fn journal(&self) -> Vec<Event> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn begin(&self) {
        let busy = self.busy.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_busy.fetch_max(busy, Ordering::SeqCst);
    }

    /// The work is done; gives the answer.
    fn end(&self, number: usize, word: &str) -> Vec<u8> {
        self.busy.fetch_sub(1, Ordering::SeqCst);
        self.note(Event::Answers(number, thread::current().id()));
        format!("{word}\n").into_bytes()
    }
}

/// A server: serves as many clients as the job has, and comes back.
type Server = fn(&TcpListener, &Arc<Job>) -> io::Result<()>;

/// Serves one client after the other.
fn sequential(listener: &TcpListener, job: &Arc<Job>) -> io::Result<()> {
    for number in 1..=job.flows.len() {
        let (socket, _) = listener.accept()?;
        talk(socket, job, number)?; // Until this client leaves, nobody calls accept.
    }
    Ok(())
}

/// Serves each client in a thread of its own.
fn threads(listener: &TcpListener, job: &Arc<Job>) -> io::Result<()> {
    thread::scope(|scope| {
        let mut all = Vec::new();
        for number in 1..=job.flows.len() {
            let (socket, _) = listener.accept()?;
            all.push(scope.spawn(move || talk(socket, job, number)));
        }
        all.into_iter()
            .try_for_each(|one| one.join().map_err(|_| io::Error::other("a thread panicked"))?)
    })
}

/// Answers each line with itself, until the client leaves.
fn talk(socket: TcpStream, job: &Job, number: usize) -> io::Result<()> {
    job.note(Event::Accepts(number));
    let socket = with_timeouts(socket)?;
    for line in BufReader::new(job.flows[number - 1].reader(&socket)).lines() {
        let word = line?;
        job.begin();
        thread::sleep(job.work); // The thread can do nothing else meanwhile.
        (&socket).write_all(&job.end(number, &word))?;
    }
    Ok(())
}

/// Serves each client in an async task, all of them on one thread.
fn tasks(listener: &TcpListener, job: &Arc<Job>) -> io::Result<()> {
    serve_in_tasks(listener, job, false)
}

/// The same with the classic mistake: a task that blocks the thread instead of awaiting.
fn blocking_tasks(listener: &TcpListener, job: &Arc<Job>) -> io::Result<()> {
    serve_in_tasks(listener, job, true)
}

fn serve_in_tasks(listener: &TcpListener, job: &Arc<Job>, block: bool) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
        let mut all = JoinSet::new();
        for number in 1..=job.flows.len() {
            let (socket, _) = timeout(IO_TIMEOUT, listener.accept()).await??;
            all.spawn(talk_in_task(socket, Arc::clone(job), number, block));
        }
        while let Some(ended) = all.join_next().await {
            ended.map_err(io::Error::other)??;
        }
        Ok(())
    })
}

/// The same conversation. At each await the task gives the thread back until there is something to
/// do.
async fn talk_in_task(
    mut socket: tokio::net::TcpStream,
    job: Arc<Job>,
    number: usize,
    block: bool,
) -> io::Result<()> {
    job.note(Event::Accepts(number));
    let (input, mut out) = socket.split();
    let mut lines = tokio::io::BufReader::new(input).lines();
    while let Some(word) = timeout(IO_TIMEOUT, lines.next_line()).await?? {
        job.begin();
        if block {
            thread::sleep(job.work); // No await: every other task waits as well.
        } else {
            tokio::time::sleep(job.work).await;
        }
        out.write_all(&job.end(number, &word)).await?;
    }
    Ok(())
}

struct Client {
    number: usize,
    job: Arc<Job>,
    socket: BufReader<TcpStream>,
}

impl Client {
    fn connect(server: SocketAddr, job: &Arc<Job>, number: usize) -> io::Result<Self> {
        let socket = BufReader::new(with_timeouts(TcpStream::connect(server)?)?);
        Ok(Self { number, job: Arc::clone(job), socket })
    }

    fn ask(&self, word: &str) -> io::Result<()> {
        self.job.note(Event::Asks(self.number));
        let flow = &self.job.flows[self.number - 1];
        flow.message(word);
        flow.writer(self.socket.get_ref()).write_all(format!("{word}\n").as_bytes())
    }

    fn hear(&mut self) -> io::Result<()> {
        if self.socket.read_line(&mut String::new())? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn leave(self) {
        self.job.note(Event::Leaves(self.number));
    }
}

/// Starts a server, lets its clients do what they do, and waits until both have ended.
fn with_server(
    server: Server,
    job: &Arc<Job>,
    clients: impl FnOnce(SocketAddr) -> LessonResult,
) -> LessonResult {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    // For accept: a client that fails must not hang us.
    SockRef::from(&listener).set_read_timeout(Some(IO_TIMEOUT))?;
    let address = listener.local_addr()?;
    thread::scope(|scope| {
        let server = scope.spawn(|| server(&listener, job));
        clients(address)?;
        Ok(server.join().map_err(|_| io::Error::other("the server panicked"))??)
    })
}

/// A client that is served and then says nothing for a while, and a second one that has a question
/// meanwhile. Whether the first waits for the second's answer before it leaves is all that differs.
fn two_clients(server: Server, second_is_answered_first: bool) -> Result<Arc<Job>, LessonError> {
    let job = Job::new(2, Duration::ZERO);
    with_server(server, &job, |address| {
        let mut first = Client::connect(address, &job, 1)?;
        first.ask("hello")?;
        first.hear()?; // The server is in conversation with it now.
        let mut second = Client::connect(address, &job, 2)?;
        second.ask("me too")?;
        wait_until(
            ("the server's kernel has the second's question", "服务器的内核收到第二个客户端的问题"),
            || Ok(unacknowledged(second.socket.get_ref())? == 0),
        )?;
        if second_is_answered_first {
            second.hear()?;
            first.leave();
        } else {
            first.leave();
            second.hear()?;
        }
        Ok(())
    })?;
    Ok(job)
}

/// In which thread this client was answered.
fn answered_in(journal: &[Event], number: usize) -> Option<ThreadId> {
    journal.iter().find_map(|event| match event {
        Event::Answers(client, thread) if *client == number => Some(*thread),
        _ => None,
    })
}

/// Whether one thing happened, and later the other.
fn is_before(journal: &[Event], one: Event, other: Event) -> bool {
    let when = |event| journal.iter().position(|noted| *noted == event);
    matches!((when(one), when(other)), (Some(one), Some(other)) if one < other)
}

/// Whether the second client had its answer while the first was still there.
fn answered_meanwhile(journal: &[Event]) -> bool {
    answered_in(journal, 2)
        .is_some_and(|thread| is_before(journal, Event::Answers(2, thread), Event::Leaves(1)))
}

fn show(stage: &mut Stage, job: &Job) -> Result<Vec<Event>, LessonError> {
    let journal = job.journal();
    let (english, chinese): (Vec<_>, Vec<_>) = journal.iter().map(|event| event.words()).unzip();
    stage.list(
        ("What happened, in this order", "按先后次序发生的事"),
        (english.join("\n"), chinese.join("\n")),
    )?;
    Ok(journal)
}

fn one_after_the_other(stage: &mut Stage) -> LessonResult {
    stage.scene(("A sequential server", "顺序服务器（sequential server）"))?;
    stage.say(
        ("accept, serve until the client leaves, accept the next. Client 1 gets its answer, stays, \
         and says \
            nothing more. Client 2 connects and asks.",
        "accept，服务到客户端离开，再 accept 下一个。客户端 1 得到答复后不走，也不再说话。这时客户端 2 连接\
            进来提问。"),
    )?;
    let job = two_clients(sequential, false)?;
    job.flows.iter().try_for_each(|flow| stage.draw(flow))?;
    let journal = show(stage, &job)?;
    stage.notice(
        ("Client 2 could connect and send: its question lay in the server's receive buffer. It was \
         not \
            accepted, let alone answered, before client 1 left.",
        "客户端 2 能连接、能发送：它的问题已经在服务器的接收缓冲区里。但在客户端 1 离开之前，它没有被 \
            accept，更谈不上答复。"),
    )?;
    stage.fact(
        is_before(&journal, Event::Asks(2), Event::Leaves(1))
            && is_before(&journal, Event::Leaves(1), Event::Accepts(2)),
        ("one silent client blocked the other", "一个沉默的客户端阻塞（block）了另一个"),
    )
}

fn a_thread_for_each(stage: &mut Stage) -> LessonResult {
    stage.scene(("A thread for each client", "每个客户端一个线程（thread）"))?;
    let job = two_clients(threads, true)?;
    let journal = show(stage, &job)?;
    stage.fact(
        answered_meanwhile(&journal),
        (
            "client 2 has its answer while client 1 is still there",
            "客户端 1 还在，客户端 2 就已得到答复",
        ),
    )?;
    stage.fact(
        answered_in(&journal, 1).is_some() && answered_in(&journal, 1) != answered_in(&journal, 2),
        ("each was answered in a thread of its own; the one of client 1 sleeps in recv and bothers \
         nobody",
        "两者各在自己的线程里得到答复；服务客户端 1 的线程睡在 recv 里，不妨碍别人"),
    )
}

fn a_task_for_each(stage: &mut Stage) -> LessonResult {
    stage.scene(("An async task for each client", "每个客户端一个异步任务（async task）"))?;
    let job = two_clients(tasks, true)?;
    let journal = show(stage, &job)?;
    stage.fact(
        answered_meanwhile(&journal),
        (
            "client 2 has its answer while client 1 is still there",
            "客户端 1 还在，客户端 2 就已得到答复",
        ),
    )?;
    stage.fact(
        answered_in(&journal, 1).is_some() && answered_in(&journal, 1) == answered_in(&journal, 2),
        (
            "one thread answered both: where a task would have to wait, it lets another one run \
         (epoll tells \
            which)",
            "两者由同一个线程答复：一个任务需要等待时，就让另一个任务运行（由 epoll 告知轮到谁）",
        ),
    )
}

fn the_same_work_timed(stage: &mut Stage) -> LessonResult {
    stage.scene(("The same work, timed", "同样的工作，各用多少时间"))?;
    stage.say(
        (format!(
            "{CLIENTS} clients come at once. For each the server waits {} ms, as for a disk or a \
            command, and then answers.",
            WORK.as_millis()
        ),
        format!(
            "{CLIENTS} 个客户端同时到来。服务器为每个客户端等待 {} 毫秒（好比等磁盘、等命令），然后答\
            复。",
            WORK.as_millis()
        )),
    )?;
    let servers: [(&str, &str, Server); 4] = [
        ("sequential:     ", "顺序：          ", sequential),
        ("threads:        ", "线程：          ", threads),
        ("async tasks:    ", "异步任务：      ", tasks),
        ("async, blocking:", "阻塞的异步任务：", blocking_tasks),
    ];
    let (mut english, mut chinese) = (Vec::new(), Vec::new());
    let mut measured = Vec::new();
    for (name, translated, server) in servers {
        let job = Job::new(CLIENTS, WORK);
        let began = Instant::now();
        with_server(server, &job, |address| crowd(address, &job))?;
        let (time, most) = (began.elapsed(), job.most_busy.load(Ordering::SeqCst));
        let millis = time.as_millis();
        english.push(format!("{name}{millis:>6} ms, served at most {most} at once"));
        chinese.push(format!("{translated}{millis:>6} 毫秒，同时服务最多 {most} 个"));
        measured.push((time, most));
    }
    stage
        .list(("Measured just now", "刚才实测的结果"), (english.join("\n"), chinese.join("\n")))?;
    let alone = WORK * CLIENTS as u32;
    let slow = |(time, most): (Duration, usize)| most == 1 && time >= alone;
    stage.fact(
        slow(measured[0]),
        (format!(
            "the sequential server did one thing at a time, and so needed at least {CLIENTS} × {} \
             ms",
            WORK.as_millis()
        ),
        format!("顺序服务器一次只做一件事，因此至少要 {CLIENTS} × {} 毫秒", WORK.as_millis())),
    )?;
    stage.fact(
        slow(measured[3]),
        ("so did the async server whose task blocks its thread: async helps only those who await",
        "任务阻塞了线程的异步服务器也一样：只有 await，异步才有用"),
    )?;
    stage.notice(
        ("Threads and tasks wait for all clients at the same time. Had the work been computing \
         instead of \
            waiting, no more than one for each processor would get on at once.",
        "线程和任务可以同时等待所有客户端。如果工作不是等待而是计算，那么同一时刻能推进的，最多也只有处理器\
            核数那么多。"),
    )?;
    Ok(())
}

/// All clients at once, each with one question.
fn crowd(server: SocketAddr, job: &Arc<Job>) -> LessonResult {
    thread::scope(|scope| {
        let clients: Vec<_> = (1..=CLIENTS)
            .map(|number| {
                scope.spawn(move || {
                    let mut client = Client::connect(server, job, number)?;
                    client.ask("work")?;
                    client.hear()
                })
            })
            .collect();
        clients.into_iter().try_for_each(|one| {
            Ok(one.join().map_err(|_| io::Error::other("a client panicked"))??)
        })
    })
}
