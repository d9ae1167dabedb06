//! HMAC challenge and response: who is let in, who is not, four attacks on protocols that are
//! almost right, the cures.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::flow::Flow;
use crate::language::Text;
use crate::random::random;
use crate::sockets::pair;
use crate::stage::{LessonError, LessonResult, Stage};

/// A key, a challenge and an answer are all of this size: a fixed size needs no header.
type Block = [u8; 32];

/// Who speaks, in both languages.
type Name = (&'static str, &'static str);

const CLIENT: Name = ("client", "客户端");
const SERVER: Name = ("server", "服务器");
const ATTACKER: Name = ("attacker", "攻击者");
const RELAY: Name = ("relay", "中继");
const FIRST: Name = ("server, 1st connection", "服务器（第一个连接）");
const SECOND: Name = ("server, 2nd connection", "服务器（第二个连接）");

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    let key = random()?; // Both ends were given it beforehand; it never travels.
    let recorded = challenge_and_response(stage, &key)?;
    replay(stage, &key, &recorded)?;
    reflection(stage, &key)?;
    in_the_middle(stage, &key)?;
    leaking_comparison(stage, &key)
}

/// The answer that only somebody with the key can compute.
fn mac(key: &Block, parts: &[&[u8]]) -> io::Result<Hmac<Sha256>> {
    let mut mac = Hmac::new_from_slice(key).map_err(io::Error::other)?;
    parts.iter().for_each(|part| mac.update(part));
    Ok(mac)
}

fn answer(key: &Block, parts: &[&[u8]]) -> io::Result<Block> {
    Ok(mac(key, parts)?.finalize().into_bytes().into())
}

/// Compares in constant time.
fn is_right(key: &Block, parts: &[&[u8]], answer: &Block) -> io::Result<bool> {
    Ok(mac(key, parts)?.verify_slice(answer).is_ok())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A TCP connection between a client and a server, both directions recorded.
struct Wire {
    client: TcpStream,
    server: TcpStream,
    up: Flow,
    down: Flow,
}

impl Wire {
    fn new(client: Name, server: Name) -> io::Result<Self> {
        let flow = |from: Name, to: Name| {
            Flow::new((format!("{} → {}", from.0, to.0), format!("{} → {}", from.1, to.1)))
        };
        let (up, down) = (flow(client, server), flow(server, client));
        let (client, server) = pair()?;
        Ok(Self { client, server, up, down })
    }

    fn client_says(&mut self, label: impl Into<Text>, bytes: &[u8]) -> io::Result<()> {
        self.up.message(label);
        self.up.writer(&mut self.client).write_all(bytes)
    }

    fn server_says(&mut self, label: impl Into<Text>, bytes: &[u8]) -> io::Result<()> {
        self.down.message(label);
        self.down.writer(&mut self.server).write_all(bytes)
    }

    fn server_hears<const SIZE: usize>(&mut self) -> io::Result<[u8; SIZE]> {
        let mut bytes = [0; SIZE];
        self.up.reader(&mut self.server).read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn client_hears<const SIZE: usize>(&mut self) -> io::Result<[u8; SIZE]> {
        let mut bytes = [0; SIZE];
        self.down.reader(&mut self.client).read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// One log-in: the server's challenge, the client's answer, and whether it is right.
fn log_in(wire: &mut Wire, servers_key: &Block, clients_key: &Block) -> io::Result<bool> {
    let challenge: Block = random()?; // New each time, and nobody can guess it.
    wire.server_says(("challenge", "挑战"), &challenge)?;
    let heard: Block = wire.client_hears()?;
    wire.client_says(("answer", "应答"), &answer(clients_key, &[&heard])?)?;
    is_right(servers_key, &[&challenge], &wire.server_hears()?)
}

fn challenge_and_response(stage: &mut Stage, key: &Block) -> Result<Block, LessonError> {
    stage.scene(("Challenge and response", "挑战与应答（challenge-response）"))?;
    stage.say(
        ("The server sends 32 random bytes, the challenge. The client answers with \
            HMAC-SHA256(key, \
            challenge). The server computes the same and compares.",
        "服务器发出 32 个随机字节，即挑战（challenge）。客户端回答 HMAC-SHA256(密钥, 挑战)。服务器自己也算\
            一遍，再比较。"),
    )?;
    let mut wire = Wire::new(CLIENT, SERVER)?;
    let admitted = log_in(&mut wire, key, key)?;
    stage.draw(&wire.down)?;
    stage.draw(&wire.up)?;
    let (up, down) = (wire.up.record(), wire.down.record());
    let seen = [&down.steps[0].bytes[..], &up.steps[0].bytes].concat();
    let (first, second) = (hex(&seen[..32]), hex(&seen[32..]));
    let told =
        (format!("challenge {first}\nanswer    {second}"), format!("挑战 {first}\n应答 {second}"));
    stage.list(("All that an eavesdropper saw", "窃听者看到的全部内容"), told)?;
    stage.fact(admitted, ("the legitimate client is let in", "合法的客户端通过"))?;
    stage.fact(
        !seen.windows(key.len()).any(|bytes| bytes == key),
        (
            "the key is nowhere in what travelled; nobody can compute it backwards from the answer",
            "传输的内容里没有密钥；也没有人能从应答倒推出密钥",
        ),
    )?;
    let wrong = random()?;
    let admitted = log_in(&mut Wire::new(CLIENT, SERVER)?, key, &wrong)?;
    stage.fact(!admitted, ("a client with another key is refused", "密钥不对的客户端被拒绝"))?;
    up.steps[0].bytes[..].try_into().map_err(|_| io::Error::other("an answer has 32 bytes").into())
}

fn replay(stage: &mut Stage, key: &Block, recorded: &Block) -> LessonResult {
    stage
        .scene(("Replay: the recorded answer once more", "重放（replay）：把录下的应答再发一遍"))?;
    stage.say((
        "An eavesdropper has no key, but the recording of an answer that was right. It connects \
         and sends \
            the recording.",
        "窃听者没有密钥，却录下了一个正确的应答。它连接服务器，把录下的应答发过去。",
    ))?;
    // Whoever attacks has no key: only `server_says` and `is_right` below are the server's.
    let replayed = |challenge: &Block, recorded: &Block| {
        let mut wire = Wire::new(ATTACKER, SERVER)?;
        wire.server_says(("challenge", "挑战"), challenge)?;
        let _: Block = wire.client_hears()?;
        wire.client_says(("recorded answer", "录下的应答"), recorded)?;
        is_right(key, &[challenge], &wire.server_hears()?)
    };
    let constant = [7; 32];
    let once = answer(key, &[&constant])?; // Of a legitimate client, recorded on its way.
    stage.fact(
        replayed(&constant, &once)?,
        ("a server whose challenge is always the same lets the recording in: it is a password now",
        "如果服务器的挑战永远不变，录下的应答就能通过：它等于变成了口令"),
    )?;
    stage.fact(
        !replayed(&random()?, recorded)?,
        (
            "with a fresh random challenge the recording is worthless",
            "每次都用新的随机挑战，录下的应答就毫无用处",
        ),
    )
}

fn reflection(stage: &mut Stage, key: &Block) -> LessonResult {
    stage.scene((
        "Reflection: let the server answer itself",
        "反射（reflection）：让服务器自己回答自己",
    ))?;
    stage.say(
        ("Now the server proves itself as well: the client sends a challenge first, the server \
         answers it \
            and sends its own. Both ends use the same formula.",
        "现在服务器也要证明自己：客户端先发一个挑战，服务器应答它，再发出自己的挑战。两端用的是同一个公式。"),
    )?;
    let (one, two, fooled) = reflect(key, b"", b"")?;
    stage.say((
        "The attacker has no key. On the first connection it is asked a question that it cannot \
         answer:",
        "攻击者没有密钥。在第一个连接上，它遇到一个自己答不出的问题：",
    ))?;
    stage.draw(&one.down)?;
    stage.say((
        "So it opens a second connection, and gives the server its own challenge back:",
        "于是它另开第二个连接，把服务器的挑战原样交还给服务器：",
    ))?;
    stage.draw(&two.up)?;
    stage.say(("The server answers:", "服务器作出应答："))?;
    stage.draw(&two.down)?;
    stage.say((
        "And the attacker carries this answer over to the first connection:",
        "攻击者再把这个应答搬到第一个连接上：",
    ))?;
    stage.draw(&one.up)?;
    stage.fact(
        fooled
            && one.up.record().steps.last().map(|step| &step.bytes)
                == two.down.record().steps.first().map(|step| &step.bytes),
        (
            "the server let the attacker in, by its own answer",
            "服务器放攻击者进来了，凭的是它自己算出的应答",
        ),
    )?;
    let (_, _, fooled) = reflect(key, b"client", b"server")?;
    stage.fact(
        !fooled,
        ("the cure: each end puts its role into the HMAC, so a server's answer is never a \
         client's; labsh \
            does so",
        "解决办法：两端各把自己的角色放进 HMAC，服务器的应答就永远不能当作客户端的应答；labsh 就是这样做的"),
    )
}

/// Reflects a challenge; gives both connections and whether the server let the attacker in.
fn reflect(key: &Block, client: &[u8], server: &[u8]) -> io::Result<(Wire, Wire, bool)> {
    // The server's half, the same on every connection: it proves itself and asks for a proof.
    let serve = |wire: &mut Wire| {
        let asked: Block = wire.server_hears()?;
        wire.server_says(("answer", "应答"), &answer(key, &[server, &asked])?)?;
        let challenge: Block = random()?;
        wire.server_says(("challenge", "挑战"), &challenge)?;
        Ok::<_, io::Error>(challenge)
    };
    let mut one = Wire::new(ATTACKER, FIRST)?;
    one.client_says(("challenge", "挑战"), &random::<32>()?)?;
    let challenge = serve(&mut one)?;
    let _: Block = one.client_hears()?;
    let heard: Block = one.client_hears()?;

    let mut two = Wire::new(ATTACKER, SECOND)?;
    two.client_says(("the 1st's challenge", "第一个连接的挑战"), &heard)?;
    serve(&mut two)?;
    let reflected: Block = two.client_hears()?;

    one.client_says(("reflected answer", "反射的应答"), &reflected)?;
    let admitted = is_right(key, &[client, &challenge], &one.server_hears()?)?;
    Ok((one, two, admitted))
}

fn in_the_middle(stage: &mut Stage, key: &Block) -> LessonResult {
    stage.scene(("In the middle", "中间人（man in the middle）"))?;
    stage.say((
        "The client has been lured to a relay, which opens a connection of its own to the server \
         and \
            passes everything on.",
        "客户端被骗到一个中继上；中继自己向服务器开一个连接，把一切照样转发。",
    ))?;
    let (mut left, mut right, admitted) = relay(key, false)?;
    stage.fact(
        admitted,
        (
            "the answer is right, for the client really gave it: the server lets the relay in",
            "应答是对的，因为它确实出自客户端：服务器放中继进来了",
        ),
    )?;
    stage.say((
        "After the log-in the client sends its command, and the relay passes on another one:",
        "登录之后，客户端发出命令，而中继转发的是另一条：",
    ))?;
    left.client_says("cat notes", b"cat notes")?;
    let asked: [u8; 9] = left.server_hears()?;
    right.client_says("rm  notes", b"rm  notes")?; // What the relay makes of it.
    let arrived: [u8; 9] = right.server_hears()?;
    stage.draw(&left.up)?;
    stage.draw(&right.up)?;
    stage.fact(
        &asked == b"cat notes" && &arrived == b"rm  notes",
        (
            "the log-in does not protect what comes after it: the client asked for cat, the server \
         got rm",
            "登录并不保护它之后的内容：客户端要的是 cat，服务器收到的是 rm",
        ),
    )?;
    let (_, _, admitted) = relay(key, true)?;
    stage.fact(
        !admitted,
        ("channel binding: both ends put what they see of their connection into the HMAC; a relay \
         has two \
            connections, and is refused",
        "通道绑定（channel binding）：两端各把自己所见的连接放进 HMAC；中继手里是两个不同的连接，于是被拒绝"),
    )?;
    stage.say(
        ("Here the addresses and ports of both ends stand for the connection. That is only an \
         example: \
            address translation changes them, and whoever controls the network can keep them. \
            labsh binds \
            to a secret of the TLS connection itself, and TLS protects every byte behind the \
            log-in.",
        "这里用两端的地址和端口代表连接。这只是示意：地址转换（NAT）会改变它们，控制网络的人也能让它们保持\
            不变。labsh 绑定的是 TLS 连接自身导出的秘密，而且 TLS 保护登录之后的每一个字节。"),
    )?;
    Ok(())
}

/// A relay passes a log-in on; gives its two connections and whether the server let it in.
fn relay(key: &Block, bind: bool) -> io::Result<(Wire, Wire, bool)> {
    let mut left = Wire::new(CLIENT, RELAY)?;
    let mut right = Wire::new(RELAY, SERVER)?;
    let ends = |client, server| if bind { format!("{client} {server}") } else { String::new() };

    let challenge: Block = random()?;
    right.server_says(("challenge", "挑战"), &challenge)?;
    let passed: Block = right.client_hears()?;
    left.server_says(("challenge", "挑战"), &passed)?;
    let heard: Block = left.client_hears()?;
    // As the client sees its connection.
    let seen = ends(left.client.local_addr()?, left.client.peer_addr()?);
    left.client_says(("answer", "应答"), &answer(key, &[&heard, seen.as_bytes()])?)?;
    let passed: Block = left.server_hears()?;
    right.client_says(("answer", "应答"), &passed)?;
    // As the server sees its own.
    let seen = ends(right.server.peer_addr()?, right.server.local_addr()?);
    let admitted = is_right(key, &[&challenge, seen.as_bytes()], &right.server_hears()?)?;
    Ok((left, right, admitted))
}

/// Compares as `memcmp` and `==` do: up to the first difference. Also says how many bytes it looked
/// at, which is what an attacker reads from the time that it took.
fn naive_equal(one: &Block, other: &Block) -> (bool, usize) {
    match one.iter().zip(other).position(|(one, other)| one != other) {
        Some(differs) => (false, differs + 1),
        None => (true, one.len()),
    }
}

/// Looks at every byte, whatever the first ones were.
fn constant_time_equal(one: &Block, other: &Block) -> (bool, usize) {
    let mut difference = 0;
    let mut looked_at = 0;
    for (one, other) in one.iter().zip(other) {
        difference |= one ^ other;
        looked_at += 1;
    }
    (difference == 0, looked_at)
}

fn leaking_comparison(stage: &mut Stage, key: &Block) -> LessonResult {
    stage.scene(("A comparison that leaks time", "泄露时间的比较"))?;
    stage.say(
        ("This server compares with == and lets one try one challenge as often as one likes. == \
         stops at \
            the first byte that differs: the longer it takes, the more of the guess is right. We \
            count the \
            bytes that it looked at instead of measuring nanoseconds.",
        "这个服务器用 == 比较，而且允许对同一个挑战反复尝试。== 遇到第一个不同的字节就停止：用时越长，猜对\
            的字节越多。这里我们不量纳秒，而是数它看了几个字节。"),
    )?;
    let right = answer(key, &[&random::<32>()?])?; // The attacker does not know it.
    let mut guess: Block = [0; 32];
    let mut tries = 0;
    let mut admitted = false;
    for position in 0..guess.len() {
        for byte in 0..=255 {
            guess[position] = byte;
            tries += 1;
            let (equal, looked_at) = naive_equal(&guess, &right);
            admitted = equal;
            if equal || looked_at > position + 1 {
                break; // It looked further: this byte is right.
            }
        }
    }
    stage.fact(
        admitted && guess == right,
        (format!(
            "after {tries} guesses the attacker has all 32 bytes, without the key; trying all \
             answers \
            would take 2^256"
        ),
        format!(
            "猜了 {tries} 次，攻击者就得到全部 32 个字节，而且不需要密钥；若逐个尝试所有应答，要 2^256 \
            次"
        )),
    )?;
    let mut nearly = right;
    nearly[31] ^= 1;
    let mut far = right;
    far[0] ^= 1;
    let (nearly, far) = (constant_time_equal(&nearly, &right), constant_time_equal(&far, &right));
    stage.fact(
        !nearly.0 && nearly == far,
        (format!(
            "a comparison in constant time looks at all {} bytes of every guess, and tells \
             nothing; \
            hmac's verify does that",
            far.1
        ),
        format!(
            "常数时间（constant-time）的比较对任何猜测都看完 {} 个字节，什么也不泄露；hmac 的 verify 就\
            是这样",
            far.1
        )),
    )
}
