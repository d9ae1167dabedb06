#!/usr/bin/env python3
"""A small labsh client in plain mode: runs one command, and ends as it ended.

    labsh_client.py --key-file FILE --host-id lab07 127.0.0.1 5274 -- grep -r 'a b' /srv
    LABSH_KEY_LINE='labsh-key-1 …' \\
        labsh_client.py --host-id lab07 --unix /run/labsh.sock --shell -- 'ps aux | wc -l'

Tests import it: `Connection` sends and receives single frames, well-formed or not; `Command`
runs one command. The numbers in the comments are sections of docs/PROTOCOL.md.
"""

import argparse
import os
import select
import struct
import sys

import labsh_wire as wire
from labsh_wire import Body, Connection, ConnectionEnded, HostKey, ProtocolError, Refused

# ---- 8. Channels, 9. Flow control
# --------------------------------------------------------------------------------


class Output:
    """One of the command's output streams, on its way to a file descriptor of ours."""

    def __init__(self, stream, descriptor):
        self.stream, self.descriptor = stream, descriptor
        self.waiting = bytearray()
        self.received = self.consumed = 0
        self.limit = wire.FIRST_LIMITS[stream]
        self.ended = self.stopped = False


class Command:
    """One command on a channel of its own, from `open` to `exit`. One loop does everything, and
    never blocks.

    Were it to block in a write to stdout, it would neither answer pings nor read stderr
    meanwhile.
    """

    def __init__(self, connection, channel, open_body, descriptors=(0, 1, 2)):
        self.connection, self.channel = connection, channel
        self.stdin = descriptors[0]
        self.stdin_sent, self.stdin_consumed, self.stdin_limit = 0, 0, wire.FIRST_LIMITS[wire.STDIN]
        self.outputs = {
            stream: Output(stream, descriptors[stream]) for stream in (wire.STDOUT, wire.STDERR)
        }
        self.started = self.command_ended = False
        self.exit = None
        connection.open(channel, open_body)

    def run(self):
        """Runs until `exit` arrived and all is written. Returns the Exit; raises Refused."""
        while self.exit is None or any(output.waiting for output in self.outputs.values()):
            readers, writers = self.wait()
            if self.connection.socket in writers:
                self.connection.send_some()
            if self.stdin is not None and self.stdin in readers:
                self.read_stdin()
            for output in self.outputs.values():
                if output.waiting and output.descriptor in writers:
                    self.write_output(output)
            if self.connection.socket in readers:
                self.connection.receive_some()
                self.take_frames()
        self.compare_totals()
        self.connection.queue_frame(wire.CLOSE, channel=self.channel)
        return self.exit

    def wait(self):
        """Sleeps until something can be done; what cannot be done yet is not asked for."""
        readers, writers = (
            [],
            [output.descriptor for output in self.outputs.values() if output.waiting],
        )
        if not self.connection.ended:
            readers.append(self.connection.socket)
        if self.connection.outgoing:
            writers.append(self.connection.socket)
        may_send = (
            self.stdin_sent < self.stdin_limit and len(self.connection.outgoing) < wire.BODY_LIMIT
        )
        if self.stdin is not None and self.exit is None and may_send:
            readers.append(self.stdin)
        return select.select(readers, writers, [])[:2]

    def read_stdin(self):
        room = min(self.stdin_limit - self.stdin_sent, wire.BULK_BODY)
        try:
            data = os.read(self.stdin, room)
        except OSError:
            data = b""  # A closed stdin is an empty one.
        if not data:
            self.stdin = None
            self.connection.queue_frame(wire.EOF, struct.pack(">I", wire.STDIN), self.channel)
            return
        self.stdin_sent += len(data)
        flags = wire.LIMITED if self.stdin_sent == self.stdin_limit else 0
        self.connection.queue_frame(wire.STDIN_DATA, data, self.channel, flags)

    def write_output(self, output):
        try:
            # A pipe that select calls writable takes this many bytes without blocking.
            written = os.write(output.descriptor, output.waiting[: select.PIPE_BUF])
        except OSError:
            # Our own reader has gone: tell the server, so that the command hears of it too.
            output.stopped = True
            output.waiting.clear()
            if self.exit is None and not output.ended:
                self.connection.queue_frame(
                    wire.STOP, struct.pack(">I", output.stream), self.channel
                )
            return
        del output.waiting[:written]
        output.consumed += written
        window = wire.FIRST_LIMITS[output.stream]
        if (
            output.consumed + window - output.limit >= window // 4
            and self.exit is None
            and not output.ended
        ):
            output.limit = output.consumed + window
            credit = struct.pack(">IQQ", output.stream, output.consumed, output.limit)
            self.connection.queue_frame(wire.CREDIT, credit, self.channel)

    def take_frames(self):
        while True:
            frame = self.connection.next_frame()
            if frame is not None:
                self.take(frame)
            elif self.connection.ended and self.exit is None:
                raise ConnectionEnded("the connection ended before the command did")
            else:
                return

    def take(self, frame):
        """What a frame means. Everything not named here is a mistake of the server."""
        kind = frame.kind
        if kind == wire.PING:
            self.connection.queue_frame(wire.PONG, frame.body)
        elif kind == wire.PONG:
            pass
        elif kind == wire.GOODBYE:
            self.connection.ended = True
            raise ConnectionEnded("the server says goodbye: " + Body(frame.body).text())
        elif kind == wire.REFUSE and (frame.channel == 0 or not self.started):
            self.connection.ended = frame.channel == 0
            raise wire.decode_refuse(frame)
        elif frame.channel != self.channel:
            raise ProtocolError(
                "kind 0x%02x for channel %d, which was never opened" % (kind, frame.channel)
            )
        elif self.exit is not None:
            pass  # The channel is over: discarded.
        elif kind == wire.STARTED and not self.started and len(frame.body) == 4:
            self.started = True
        elif kind in (wire.STDOUT_DATA, wire.STDERR_DATA) and self.started:
            self.take_data(
                self.outputs[wire.STDOUT if kind == wire.STDOUT_DATA else wire.STDERR], frame.body
            )
        elif kind == wire.EOF and self.started and wire.decode_stream(frame) != wire.STDIN:
            output = self.outputs[wire.decode_stream(frame)]
            if output.ended:
                raise ProtocolError("a stream ends twice")
            output.ended = True
        elif kind == wire.STOP and wire.decode_stream(frame) == wire.STDIN:
            self.stdin = None
        elif kind == wire.CREDIT and wire.decode_credit(frame)[0] == wire.STDIN:
            self.take_credit(*wire.decode_credit(frame)[1:])
        elif kind == wire.ENDED and self.started and not self.command_ended:
            body = Body(frame.body)
            wire.decode_status(body)
            body.finish()
            self.command_ended = True
        elif kind == wire.EXIT and self.started:
            self.exit = wire.decode_exit(frame)
            self.stdin = None
        else:
            raise ProtocolError("kind 0x%02x is not due now" % kind)

    def take_data(self, output, data):
        output.received += len(data)
        if not data or output.ended or output.received > output.limit:
            raise ProtocolError(
                "data that is empty, behind the end of its stream or past its limit"
            )
        if not output.stopped:
            output.waiting += data

    def take_credit(self, consumed, limit):
        if (
            not self.stdin_consumed <= consumed <= self.stdin_sent
            or limit < self.stdin_limit
            or limit - consumed > 1 << 30
        ):
            raise ProtocolError("an impossible credit for stdin")
        self.stdin_consumed, self.stdin_limit = consumed, limit

    def compare_totals(self):
        for stream, sent in ((wire.STDOUT, self.exit.stdout), (wire.STDERR, self.exit.stderr)):
            output = self.outputs[stream]
            if not output.stopped and output.received != sent:
                raise ProtocolError(
                    "%d bytes of output arrived, %d were sent" % (output.received, sent)
                )


# ---- The program
# -------------------------------------------------------------------------------------------------


def say(text):
    """One line on stderr. Control characters from the server must not reach a terminal."""
    line = "".join(c if c.isprintable() else "\\x%02x" % ord(c) for c in text)
    sys.stderr.write("labsh_client: %s\n" % line)
    sys.stderr.flush()


def exit_status(end):
    if end.timed_out:
        return 124
    return end.code if end.signal is None else 128 + end.signal


class Arguments(argparse.ArgumentParser):
    def error(self, message):
        self.print_usage(sys.stderr)
        say(message)
        sys.exit(125)


def parse_arguments(arguments):
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = Arguments(usage="%(prog)s [options] (HOST PORT | --unix PATH) -- WORD…")
    parser.add_argument(
        "--key-file", help="the file with the key's line; otherwise LABSH_KEY_LINE holds it"
    )
    parser.add_argument("--host-id", required=True)
    parser.add_argument("--unix", metavar="PATH")
    parser.add_argument("--shell", action="store_true", help="one string for the user's shell")
    parser.add_argument("--timeout", type=int, default=0, metavar="MS")
    parser.add_argument("--until-command-ends", action="store_true")
    parser.add_argument(
        "--features", type=int, default=wire.VERSION, metavar="BITS", help="what is announced"
    )
    parser.add_argument(
        "--say-version", action="store_true", help="say on stderr which version answers"
    )
    parser.add_argument("address", nargs="*", metavar="HOST PORT")
    options = parser.parse_args(arguments[:split])
    options.words = [os.fsencode(word) for word in arguments[split + 1 :]]
    if not options.words:
        parser.error("no command behind --")
    if len(options.address) != (0 if options.unix else 2):
        parser.error("give either HOST and PORT or --unix PATH")
    if options.shell:
        options.words = [b" ".join(options.words)]
    return options


def read_key(options):
    line = os.environ.get("LABSH_KEY_LINE", "")
    if options.key_file:
        try:
            with open(options.key_file, encoding="utf-8") as file:
                line = file.read()
        except OSError as error:
            raise ValueError("the key cannot be read: %s" % error) from None
    return HostKey.from_key_line(line, options.host_id)


def run(options):
    key = read_key(options)
    connection = Connection.unix(options.unix) if options.unix else Connection.tcp(*options.address)
    welcome = connection.authenticate(key, options.features)
    if options.say_version:
        say("answered by " + (welcome.version or "an unknown version"))
    until = wire.COMMAND_ENDS if options.until_command_ends else wire.STREAMS_END
    body = wire.encode_open(options.words, options.shell, timeout=options.timeout, until=until)
    reason = ""
    try:
        return exit_status(Command(connection, 1, body).run())
    except ProtocolError as error:
        reason = str(error)
        raise
    finally:
        connection.goodbye(reason)


def main():
    options = parse_arguments(sys.argv[1:])
    try:
        return run(options)
    except Refused as refused:
        say(
            "refused (code %d): %s; %s"
            % (refused.code, refused.reason, refused.remedy or "nothing to advise")
        )
        return {20: 127, 21: 126, 27: 124}.get(refused.code, 125)
    except ValueError as error:
        say(str(error))
        return 125
    except KeyboardInterrupt:
        return 130  # Closing the connection ends the command.
    except (ProtocolError, ConnectionEnded, OSError) as error:
        say(str(error))
        return 255


if __name__ == "__main__":
    sys.exit(main())
