//! The texts of the lesson `auth`.

use crate::language::{ConstText, Text, text};

pub(super) const CLIENT: ConstText = ("client", "客户端");

pub(super) const SERVER: ConstText = ("server", "服务器");

pub(super) const ATTACKER: ConstText = ("attacker", "攻击者");

pub(super) const RELAY: ConstText = ("relay", "中继");

pub(super) const FIRST_SERVER: ConstText = ("server, 1st connection", "服务器（第一个连接）");

pub(super) const SECOND_SERVER: ConstText = ("server, 2nd connection", "服务器（第二个连接）");

pub(super) const CHALLENGE: ConstText = ("challenge", "挑战");

pub(super) const RESPONSE: ConstText = ("response", "应答");

pub(super) const CHALLENGE_AND_RESPONSE: ConstText =
    ("Challenge and response", "挑战与应答（challenge-response）");

pub(super) const HMAC: ConstText = (
    "The server sends 32 random bytes, the challenge. The client responds with HMAC-SHA256(key, \
     challenge). The server computes the same and compares.",
    "服务器发出 32 个随机字节，即挑战（challenge）。客户端用 HMAC-SHA256(密钥, 挑战) 应答。服务器\
     自己也算一遍，再比较。",
);

pub(super) const EAVESDROPPED: ConstText =
    ("Everything that an eavesdropper saw", "窃听者看到的全部内容");

pub(super) fn eavesdropped(challenge: &str, response: &str) -> Text {
    text!("challenge {challenge}\nresponse  {response}", "挑战 {challenge}\n应答 {response}")
}

pub(super) const CLIENT_ADMITTED: ConstText =
    ("the legitimate client is admitted", "合法的客户端通过");

pub(super) const KEY_NOT_SENT: ConstText = (
    "the key is nowhere in what was sent, and it cannot be computed from the response",
    "传输的内容里没有密钥；从应答也无法倒推出密钥",
);

pub(super) const WRONG_KEY_REFUSED: ConstText =
    ("a client with another key is refused", "密钥不对的客户端被拒绝");

pub(super) const REPLAY: ConstText =
    ("Replay: the recorded response once more", "重放（replay）：把录下的应答再发一遍");

pub(super) const RECORDING: ConstText = (
    "An eavesdropper has no key, but it has recorded a valid response. It connects and sends the \
     recording.",
    "窃听者没有密钥，却录下了一个正确的应答。它连接服务器，把录下的应答发过去。",
);

pub(super) const RECORDED_RESPONSE: ConstText = ("recorded response", "录下的应答");

pub(super) const CONSTANT_CHALLENGE: ConstText = (
    "a server whose challenge is always the same admits the recording: it has become a password",
    "如果服务器的挑战永远不变，录下的应答就能通过：它就成了口令",
);

pub(super) const FRESH_CHALLENGE: ConstText = (
    "with a fresh random challenge the recording is worthless",
    "每次都用新的随机挑战，录下的应答就毫无用处",
);

pub(super) const REFLECTION: ConstText = (
    "Reflection: the server answers its own challenge",
    "反射（reflection）：让服务器自己回答自己",
);

pub(super) const MUTUAL: ConstText = (
    "Now the server proves itself as well: the client sends a challenge first, the server responds \
     to it and sends its own. Both ends use the same formula.",
    "现在服务器也要证明自己：客户端先发一个挑战，服务器应答它，再发出自己的挑战。两端用的是同一个\
     公式。",
);

pub(super) const FIRST_CONNECTION: ConstText = (
    "The attacker has no key. On the first connection it gets a challenge to which it cannot \
     respond:",
    "攻击者没有密钥。在第一个连接上，它遇到一个自己答不出的挑战：",
);

pub(super) const FIRST_CHALLENGE: ConstText =
    ("the first connection's challenge", "第一个连接的挑战");

pub(super) const SECOND_CONNECTION: ConstText = (
    "So it opens a second connection, and sends the server's own challenge back:",
    "于是它另开第二个连接，把服务器的挑战原样交还给服务器：",
);

pub(super) const SERVER_RESPONDS: ConstText = ("The server responds:", "服务器作出应答：");

pub(super) const RESPONSE_CARRIED_OVER: ConstText = (
    "The attacker sends this response on the first connection:",
    "攻击者再把这个应答搬到第一个连接上：",
);

pub(super) const REFLECTED_RESPONSE: ConstText = ("reflected response", "反射的应答");

pub(super) const ADMITTED_BY_OWN_RESPONSE: ConstText = (
    "the server admitted the attacker because of a response that it had computed itself",
    "服务器放攻击者进来了，凭的是它自己算出的应答",
);

pub(super) const ROLES_IN_THE_MAC: ConstText = (
    "the fix: each end puts its role into the HMAC, so that a server's response is never a \
     client's; labsh does so",
    "解决办法：两端各把自己的角色放进 HMAC，服务器的应答就永远不能当作客户端的应答；labsh 就是这样\
     做的",
);

pub(super) const IN_THE_MIDDLE: ConstText = ("A man in the middle", "中间人（man in the middle）");

pub(super) const LURED: ConstText = (
    "The client has been lured to a relay, which opens a connection of its own to the server and \
     forwards everything.",
    "客户端被骗到一个中继上；中继自己向服务器开一个连接，把一切照样转发。",
);

pub(super) const RELAY_ADMITTED: ConstText = (
    "the response is valid, for it is really the client's: the server admits the relay",
    "应答是对的，因为它确实出自客户端：服务器放中继进来了",
);

pub(super) const COMMAND_CHANGED: ConstText = (
    "After the log-in the client sends its command, and the relay forwards another one:",
    "登录之后，客户端发出命令，而中继转发的是另一条：",
);

pub(super) const LOG_IN_PROTECTS_NOTHING: ConstText = (
    "the log-in does not protect what comes after it: the client sent cat, the server received rm",
    "登录并不保护它之后的内容：客户端发的是 cat，服务器收到的是 rm",
);

pub(super) const CHANNEL_BINDING: ConstText = (
    "channel binding: both ends put what they see of their connection into the HMAC; a relay has \
     two connections, and is refused",
    "通道绑定（channel binding）：两端各把自己所见的连接放进 HMAC；中继手里是两个不同的连接，于是\
     被拒绝",
);

pub(super) const ADDRESSES_ARE_AN_EXAMPLE: ConstText = (
    "Here the addresses and ports of both ends represent the connection. That is only an example: \
     address translation changes them, and an attacker who controls the network can keep them. \
     labsh binds to a secret of the TLS connection itself, and TLS protects every byte after the \
     log-in.",
    "这里用两端的地址和端口代表连接。这只是示意：地址转换（NAT）会改变它们，控制网络的人也能让它们\
     保持不变。labsh 绑定的是 TLS 连接自身导出的秘密，而且 TLS 保护登录之后的每一个字节。",
);

pub(super) const LEAKING_COMPARISON: ConstText = ("A comparison that leaks time", "泄露时间的比较");

pub(super) const STOPS_AT_DIFFERENCE: ConstText = (
    "This server compares with == and allows any number of attempts at one challenge. == stops at \
     the first byte that differs: the longer it takes, the more of the guess is right. Instead of \
     measuring nanoseconds, the lesson counts the bytes that were compared.",
    "这个服务器用 == 比较，而且允许对同一个挑战反复尝试。== 遇到第一个不同的字节就停止：用时越长，\
     猜对的字节越多。这里我们不量纳秒，而是数它比较了几个字节。",
);

pub(super) fn guessed(guesses: usize) -> Text {
    text!(
        "after {guesses} guesses the attacker has all 32 bytes, without the key; trying all \
         responses would take 2^256",
        "猜了 {guesses} 次，攻击者就得到全部 32 个字节，而且不需要密钥；若逐个尝试所有应答，要 \
         2^256 次"
    )
}

pub(super) fn constant_time(bytes: usize) -> Text {
    text!(
        "a comparison in constant time compares all {bytes} bytes of every guess, and reveals \
         nothing; hmac's verify does that",
        "常数时间（constant-time）的比较对任何猜测都看完 {bytes} 个字节，什么也不泄露；hmac 的 \
         verify 就是这样"
    )
}
