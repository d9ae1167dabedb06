"""The wire of labsh for a client in plain mode: frames, bodies, keys and the handshake.

Written from docs/PROTOCOL.md alone; it shares no code with labsh, so that where the two
understand each other, the document is what they share. Only the standard library is needed
(Python 3.8 or later). The numbers in the comments are sections of the document.
"""

import hashlib
import hmac
import os
import socket
import struct
from collections import namedtuple

# 2. Frames: length, kind, flags, reserved, channel; big-endian.
HEADER = struct.Struct(">IBBHI")
BODY_LIMIT_BEFORE_AUTHENTICATION = 512
BODY_LIMIT = 65536
BULK_BODY = 65524

# 4. Kinds.
CHALLENGE, RESPONSE, WELCOME, REFUSE, PING, PONG, GOODBYE = range(0x01, 0x08)
(
    OPEN,
    STARTED,
    STDIN_DATA,
    STDOUT_DATA,
    STDERR_DATA,
    EOF,
    STOP,
    CREDIT,
    SIGNAL,
    RESIZE,
    ENDED,
    EXIT,
    CLOSE,
) = range(0x10, 0x1D)
MORE = LIMITED = 0x01

# 4. Features: the server is asked to say its version.
VERSION = 1 << 4

# 3. Enums: stream, until, program.
STDIN, STDOUT, STDERR = range(3)
STREAMS_END, COMMAND_ENDS = range(2)
ARGV, SHELL = range(2)

# 9. Flow control: what may be sent before any credit. We also keep it as the width of our own
#    windows.
FIRST_LIMITS = {STDIN: 131072, STDOUT: 1048576, STDERR: 1048576}

PLAIN_MODE = 2
NO_BINDING = bytes(32)

Frame = namedtuple("Frame", "kind flags channel body")
Welcome = namedtuple("Welcome", "instance features channels proof version")
Exit = namedtuple(
    "Exit", "code signal core_dumped timed_out stdout stderr wall user system peak_memory"
)


class ProtocolError(Exception):
    """The server broke the protocol, or did not prove that it holds the key."""


class ConnectionEnded(Exception):
    """The connection ended before the command did."""


class Refused(Exception):
    """A `refuse`, of the connection (channel 0) or of a command."""

    def __init__(self, channel, code, reason, remedy):
        super().__init__(reason)
        self.channel, self.code, self.reason, self.remedy = channel, code, reason, remedy


# ---- 3. Bodies
# -------------------------------------------------------------------------------------------------


def encode_bytes(data):
    """A `bytes`: its length as u64, then itself."""
    return struct.pack(">Q", len(data)) + data


def encode_open(
    words,
    shell=False,
    command_id=None,
    timeout=0,
    until=STREAMS_END,
    environment=(),
    directory=None,
):
    """The whole body of an `open`; `words` is a list of bytes, of which a shell command has just
    one.
    """
    body = (command_id or os.urandom(16)) + struct.pack(">QQI", 0, timeout, until)
    if shell:
        body += struct.pack(">I", SHELL) + encode_bytes(words[0])
    else:
        body += struct.pack(">IQ", ARGV, len(words)) + b"".join(map(encode_bytes, words))
    body += struct.pack(">Q", len(environment))
    body += b"".join(encode_bytes(name) + encode_bytes(value) for name, value in environment)
    body += b"\0" if directory is None else b"\1" + encode_bytes(directory)
    return body + b"\0\0"  # no user, no terminal


class Body:
    """Reads the fields of a body one after another; any mistake is a ProtocolError."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def raw(self, length):
        if length > len(self.data) - self.at:
            raise ProtocolError("a body ends early")
        self.at += length
        return self.data[self.at - length : self.at]

    def integer(self, size):
        return int.from_bytes(self.raw(size), "big")

    def tag(self, cases):
        tag = self.integer(4)
        if tag >= cases:
            raise ProtocolError("an enum has the unknown tag %d" % tag)
        return tag

    def boolean(self):
        value = self.integer(1)
        if value > 1:
            raise ProtocolError("a bool is %d" % value)
        return value == 1

    def text(self):
        data = self.raw(self.integer(8))
        if len(data) > 2048:
            raise ProtocolError("a text is longer than 2,048 bytes")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise ProtocolError("a text is not UTF-8") from None

    def finish(self):
        if self.at != len(self.data):
            raise ProtocolError("%d bytes are left over behind a body" % (len(self.data) - self.at))


def decode_refuse(frame):
    body = Body(frame.body)
    refused = Refused(frame.channel, body.integer(2), body.text(), body.text())
    body.finish()
    return refused


def decode_status(body):
    """Code, signal, core_dumped; one of the first two is None."""
    if body.tag(2) == 0:
        return body.integer(1), None, False
    return None, body.integer(1), body.boolean()


def decode_exit(frame):
    body = Body(frame.body)
    end = Exit(*decode_status(body), body.boolean(), *(body.integer(8) for _ in range(6)))
    body.finish()
    return end


def decode_stream(frame):
    body = Body(frame.body)
    stream = body.tag(3)
    body.finish()
    return stream


def decode_credit(frame):
    body = Body(frame.body)
    stream, consumed, limit = body.tag(3), body.integer(8), body.integer(8)
    body.finish()
    return stream, consumed, limit


# ---- 5. Keys
# -------------------------------------------------------------------------------------------------


def mac(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def expand(pseudo_random_key, info, size):
    """HKDF-Expand for at most 32 bytes, which is a single HMAC."""
    return mac(pseudo_random_key, info + b"\x01")[:size]


def length_prefixed(text):
    data = text.encode("utf-8")
    return struct.pack(">H", len(data)) + data


class HostKey:
    """What is derived from a key for one host (K_host)."""

    def __init__(self, key_id, host_id, secret):
        self.key_id, self.host_id, self.secret = key_id, host_id, secret
        self.name = expand(secret, b"labsh/1 name", 16)
        self.client_key = expand(secret, b"labsh/1 client proof key", 32)
        self.server_key = expand(secret, b"labsh/1 server proof key", 32)

    @classmethod
    def from_key_line(cls, line, host_id):
        """Reads a user's key (`labsh-key-1 KEY-ID SECRET CHECKSUM`) and derives the host's share
        of it.
        """
        sealed, _, checksum = line.strip().rpartition(" ")
        fields = sealed.split(" ")
        if len(fields) != 3 or fields[0] != "labsh-key-1":
            raise ValueError("this is not the line of a key")
        if hashlib.sha256(sealed.encode("utf-8")).hexdigest()[:8] != checksum:
            raise ValueError("the checksum of the key does not match")
        # Only ASCII letters become lower case; str.lower() would change others too.
        host_id = "".join(c.lower() if c.isascii() else c for c in host_id)
        key_id, key = fields[1], bytes.fromhex(fields[2])
        if len(key) != 32:
            raise ValueError("the secret of the key is not 64 hexadecimal digits")
        info = b"labsh/1 host" + length_prefixed(key_id) + length_prefixed(host_id)
        return cls(key_id, host_id, expand(mac(b"labsh/1", key), info, 32))

    # ---- 6. Authentication
    # -----------------------------------------------------------------------------------

    def transcript(self, features, server_nonce, client_nonce, mode=PLAIN_MODE, binding=NO_BINDING):
        ids = length_prefixed(self.key_id) + length_prefixed(self.host_id)
        return (
            bytes([mode])
            + ids
            + struct.pack(">Q", features)
            + server_nonce
            + client_nonce
            + binding
        )

    def client_proof(self, transcript):
        return mac(self.client_key, b"labsh/1 client" + transcript)

    def server_proof(self, transcript, welcome):
        said = welcome.instance + struct.pack(">QI", welcome.features, welcome.channels)
        if welcome.version is not None:
            said += length_prefixed(welcome.version)
        return mac(self.server_key, b"labsh/1 server" + transcript + said)


# ---- 2. Frames
# -------------------------------------------------------------------------------------------------


class Connection:
    """Frames over a connected socket."""

    def __init__(self, sock):
        self.socket = sock
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.body_limit = BODY_LIMIT_BEFORE_AUTHENTICATION
        self.ended = False

    @classmethod
    def tcp(cls, host, port):
        sock = socket.create_connection((host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(sock)

    @classmethod
    def unix(cls, path):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        return cls(sock)

    def queue_frame(self, kind, body=b"", channel=0, flags=0, reserved=0):
        """Appends a frame to what waits to be sent."""
        self.outgoing += HEADER.pack(len(body), kind, flags, reserved, channel) + body

    def send_frame(self, kind, body=b"", channel=0, flags=0, reserved=0):
        """Sends a frame, and what waited before it; blocks until it is gone."""
        self.queue_frame(kind, body, channel, flags, reserved)
        self.socket.sendall(self.outgoing)
        self.outgoing.clear()

    def send_some(self):
        """Sends as much of what waits as the socket takes at once."""
        try:
            del self.outgoing[: self.socket.send(self.outgoing, socket.MSG_DONTWAIT)]
        except BlockingIOError:
            pass

    def receive_some(self):
        """Waits for bytes; notes the end of the connection."""
        data = self.socket.recv(262144)
        self.incoming += data
        self.ended = not data

    def next_frame(self):
        """The next whole frame among the bytes that have arrived, or None."""
        if len(self.incoming) < HEADER.size:
            if self.ended and self.incoming:
                raise ProtocolError("the connection ended within a header")
            return None
        length, kind, flags, reserved, channel = HEADER.unpack_from(self.incoming)
        if reserved != 0:
            raise ProtocolError("the reserved bytes of a header are not 0")
        if length > self.body_limit:
            raise ProtocolError("a body of %d bytes, the limit is %d" % (length, self.body_limit))
        if not (CHALLENGE <= kind <= GOODBYE or OPEN <= kind <= CLOSE):
            raise ProtocolError("unknown kind 0x%02x" % kind)
        if flags & ~(LIMITED if kind in (STDOUT_DATA, STDERR_DATA) else 0):
            raise ProtocolError("undefined flags 0x%02x on kind 0x%02x" % (flags, kind))
        if kind != REFUSE and (kind <= GOODBYE) != (channel == 0):
            raise ProtocolError("kind 0x%02x on channel %d" % (kind, channel))
        end = HEADER.size + length
        if len(self.incoming) < end:
            if self.ended:
                raise ProtocolError("the connection ended within a frame")
            return None
        frame = Frame(kind, flags, channel, bytes(self.incoming[HEADER.size : end]))
        del self.incoming[:end]
        return frame

    def recv_frame(self):
        """Waits for a frame; None when the connection has ended between two frames."""
        while True:
            frame = self.next_frame()
            if frame is not None or self.ended:
                return frame
            self.receive_some()

    def expect(self, kind):
        """Waits for a frame of this kind; `refuse` becomes an exception."""
        frame = self.recv_frame()
        if frame is None:
            raise ConnectionEnded("the server closed the connection during authentication")
        if frame.kind == REFUSE and frame.channel == 0:
            raise decode_refuse(frame)
        if frame.kind != kind:
            raise ProtocolError("kind 0x%02x where 0x%02x was due" % (frame.kind, kind))
        return frame

    def authenticate(self, key, features=VERSION):
        """6. Proves who we are, and believes the server only once it has done the same."""
        self.receive_some()
        if self.incoming[:2] in (b"\x15\x03", b"\x16\x03"):
            raise ProtocolError("this port speaks TLS, and this client does not")
        challenge = self.expect(CHALLENGE).body
        if len(challenge) != 32:
            raise ProtocolError("a challenge of %d bytes" % len(challenge))
        client_nonce = os.urandom(32)
        transcript = key.transcript(features, challenge, client_nonce)
        said = key.name + client_nonce + struct.pack(">Q", features)
        self.send_frame(RESPONSE, said + key.client_proof(transcript))
        body = Body(self.expect(WELCOME).body)
        always = body.raw(16), body.integer(8), body.integer(4), body.raw(32)
        version = body.text() if always[1] & VERSION else None
        body.finish()
        welcome = Welcome(*always, version)
        if not hmac.compare_digest(welcome.proof, key.server_proof(transcript, welcome)):
            raise ProtocolError("the server could not prove that it holds this key")
        if version is not None:
            if not features & VERSION:
                raise ProtocolError("the server sends a version without being asked")
            if not (1 <= len(version) <= 64 and all(" " <= c <= "~" for c in version)):
                raise ProtocolError(
                    "the server's version is not 1 to 64 printable ASCII characters"
                )
        if welcome.channels == 0:
            raise ProtocolError("the server offers no channels")
        self.body_limit = BODY_LIMIT
        return welcome

    def open(self, channel, body):
        """Queues an `open`, in several frames where it is long."""
        for start in range(0, len(body), BULK_BODY):
            more = MORE if start + BULK_BODY < len(body) else 0
            self.queue_frame(OPEN, body[start : start + BULK_BODY], channel, more)

    def goodbye(self, reason=""):
        """11. Says that nothing more comes, and closes without destroying it by unread input.

        To a server that has ended the connection itself, nothing is said.
        """
        try:
            if self.ended:
                return
            self.send_frame(GOODBYE, encode_bytes(reason.encode("utf-8")[:2048]))
            self.socket.shutdown(socket.SHUT_WR)
            self.socket.settimeout(2)
            while self.socket.recv(65536):
                pass
        except OSError:
            pass  # The server was faster.
        finally:
            self.socket.close()
