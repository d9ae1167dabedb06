-- What Wireshark and tshark (3.6 and later) show of the labsh protocol in plain mode:
-- docs/PROTOCOL.md, for their eyes.
--
-- TCP hands over chunks: a segment, or several segments joined because we asked for more. What a
-- frame means depends on what came before, so all of that is found out once, in the order of the
-- capture, and kept: however often and in whatever order Wireshark comes back to a packet, and
-- however it cuts the chunks then, it shows the same.

local HEADER = 12
local BODY = 65536
local BODY_BEFORE_AUTHENTICATION = 512
local COMMAND = 1048576
local TEXT = 2048
local TEXT_BEFORE_AUTHENTICATION = 240
local VERSION = 64

-- The maximum number of items of a list that are shown: a tree of 100,000 words is of no use.
local SHOWN_ITEMS = 1000
-- Characters of a command or of data that fit into a line, and frames that fit into the Info
-- column.
local PREVIEW = 80
local INFO_FRAMES = 12

-- `sender`: who may send it; nil: both. `flag`: what bit 0x01 means, `other_flag`: what 0x02 does.
-- `sizes`: the shortest and the longest body there can be.
local KINDS = {
    [0x01] = { name = "challenge", sender = "server", connection = true, sizes = { 32, 32 } },
    [0x02] = { name = "response", sender = "client", connection = true, sizes = { 88, 88 } },
    [0x03] = {
        name = "welcome", sender = "server", connection = true, sizes = { 60, 60 + 8 + VERSION }
    },
    [0x04] = {
        name = "refuse", sender = "server", connection = "either", sizes = { 18, 18 + 2 * TEXT }
    },
    [0x05] = { name = "ping", connection = true, sizes = { 8, 8 } },
    [0x06] = { name = "pong", connection = true, sizes = { 8, 8 } },
    [0x07] = { name = "goodbye", connection = true, sizes = { 8, 8 + TEXT } },
    [0x10] = {
        name = "open", sender = "client", flag = "more", other_flag = "explain", sizes = { 1, BODY }
    },
    [0x11] = { name = "started", sender = "server", sizes = { 4, 4 } },
    [0x12] = {
        name = "stdin", sender = "client", flag = "limited", data = true, sizes = { 1, BODY }
    },
    [0x13] = {
        name = "stdout", sender = "server", flag = "limited", data = true, sizes = { 1, BODY }
    },
    [0x14] = {
        name = "stderr", sender = "server", flag = "limited", data = true, sizes = { 1, BODY }
    },
    [0x15] = { name = "eof", of = "sender", sizes = { 4, 4 } },
    [0x16] = { name = "stop", of = "receiver", sizes = { 4, 4 } },
    [0x17] = { name = "credit", of = "receiver", sizes = { 20, 20 } },
    [0x18] = { name = "signal", sender = "client", sizes = { 1, 1 } },
    [0x19] = { name = "resize", sender = "client", sizes = { 8, 8 } },
    [0x1a] = { name = "ended", sender = "server", sizes = { 5, 6 } },
    [0x1b] = { name = "exit", sender = "server", sizes = { 54, 55 } },
    [0x1c] = { name = "close", sender = "client", sizes = { 0, 0 } },
    [0x1d] = { name = "explained", sender = "server", sizes = { 96, BODY } },
}
local OPEN, CLOSE = 0x10, 0x1c

-- All flags that a kind defines.
local function defined_flags(kind)
    return (kind.flag and 1 or 0) + (kind.other_flag and 2 or 0)
end

local KIND_NAMES = {}
for code, kind in pairs(KINDS) do
    KIND_NAMES[code] = kind.name
end

local STREAMS = { [0] = "stdin", [1] = "stdout", [2] = "stderr" }
local STATUSES = { [0] = "exited", [1] = "ended by a signal" }
local UNTILS = { [0] = "StreamsEnd", [1] = "CommandEnds" }
local PROGRAMS = { [0] = "argv", [1] = "shell", [2] = "login shell", [3] = "subsystem" }
local REFUSE_CODES = {
    [1] = "authentication", [2] = "not-permitted", [3] = "busy", [4] = "stopping", [5] = "protocol",
    [6] = "deadline", [16] = "too-many-channels", [17] = "bad-command", [18] = "environment",
    [19] = "directory", [20] = "not-found", [21] = "not-executable", [22] = "resources",
    [23] = "unsupported", [24] = "internal", [25] = "user", [26] = "subsystem",
    [27] = "timed-out", [28] = "not-started",
}
local FEATURES = { "TERMINAL", "LINGER", "RESUME", "EXPLAIN", "VERSION" }
-- signal(7), on x86 and ARM.
local SIGNALS = {
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL",
    "SIGUSR1", "SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD",
    "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ",
    "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR", "SIGSYS",
}

local labsh = Proto("labsh", "labsh protocol")

local field = {
    length = ProtoField.uint32(
        "labsh.length", "Length", base.DEC, nil, nil, "Bytes of body behind the header"
    ),
    kind = ProtoField.uint8("labsh.kind", "Kind", base.HEX, KIND_NAMES),
    flags = ProtoField.uint8("labsh.flags", "Flags", base.HEX),
    more = ProtoField.bool(
        "labsh.flags.more", "MORE: another open frame continues this one", 8, nil, 0x01
    ),
    explain = ProtoField.bool(
        "labsh.flags.explain", "EXPLAIN: answer whether it would run", 8, nil, 0x02
    ),
    limited = ProtoField.bool(
        "labsh.flags.limited", "LIMITED: from here on the sender waits for credit", 8, nil, 0x01
    ),
    reserved = ProtoField.uint16("labsh.reserved", "Reserved", base.HEX),
    channel = ProtoField.uint32(
        "labsh.channel", "Channel", base.DEC, nil, nil, "0: the connection itself"
    ),
    data = ProtoField.bytes("labsh.data", "Data"),
    preview = ProtoField.string("labsh.data.preview", "As text"),
    unread = ProtoField.bytes("labsh.unread", "Bytes that were not decoded"),
    stream = ProtoField.uint32("labsh.stream", "Stream", base.DEC, STREAMS),
    server_nonce = ProtoField.bytes("labsh.challenge.server_nonce", "Server's nonce"),
    name = ProtoField.bytes("labsh.response.name", "Name of the pair of key and host"),
    client_nonce = ProtoField.bytes("labsh.response.client_nonce", "Client's nonce"),
    response_features = ProtoField.uint64("labsh.response.features", "Features", base.HEX),
    response_proof = ProtoField.bytes("labsh.response.proof", "Client's proof"),
    instance = ProtoField.bytes("labsh.welcome.instance", "Instance of the server"),
    welcome_features = ProtoField.uint64("labsh.welcome.features", "Features", base.HEX),
    channels = ProtoField.uint32("labsh.welcome.channels", "Channels at once"),
    welcome_proof = ProtoField.bytes("labsh.welcome.proof", "Server's proof"),
    version = ProtoField.string("labsh.welcome.version", "Version"),
    refuse_code = ProtoField.uint16("labsh.refuse.code", "Code", base.DEC, REFUSE_CODES),
    refuse_reason = ProtoField.string("labsh.refuse.reason", "Reason"),
    refuse_remedy = ProtoField.string("labsh.refuse.remedy", "Remedy"),
    goodbye_reason = ProtoField.string("labsh.goodbye.reason", "Reason"),
    token = ProtoField.uint64("labsh.token", "Token", base.HEX),
    command = ProtoField.bytes("labsh.open.command", "Command id"),
    linger = ProtoField.uint64("labsh.open.linger", "Linger (ms)"),
    timeout = ProtoField.uint64("labsh.open.timeout", "Timeout (ms)"),
    until_ = ProtoField.uint32("labsh.open.until", "Until", base.DEC, UNTILS),
    program = ProtoField.uint32("labsh.open.program", "Program", base.DEC, PROGRAMS),
    words = ProtoField.uint64("labsh.open.words", "Words"),
    word = ProtoField.string("labsh.open.word", "Word"),
    shell = ProtoField.string("labsh.open.shell", "Line for the shell"),
    subsystem = ProtoField.string("labsh.open.subsystem", "Subsystem"),
    variables = ProtoField.uint64("labsh.open.variables", "Variables"),
    variable = ProtoField.string("labsh.open.variable", "Variable"),
    directory = ProtoField.string("labsh.open.directory", "Directory"),
    user = ProtoField.string("labsh.open.user", "User"),
    terminal = ProtoField.string("labsh.open.terminal", "Terminal"),
    frames = ProtoField.uint32("labsh.open.frames", "Frames of this open"),
    pid = ProtoField.uint32("labsh.started.pid", "Process id"),
    entry = ProtoField.string("labsh.explained.entry", "File that grants the key its rights"),
    networks = ProtoField.uint64("labsh.explained.networks", "Networks"),
    network = ProtoField.string("labsh.explained.network", "Network"),
    expires = ProtoField.uint64("labsh.explained.expires", "Expires (s since 1970)"),
    at_once = ProtoField.uint32("labsh.explained.channels", "Channels at once"),
    runs_as = ProtoField.string("labsh.explained.user", "User"),
    uid = ProtoField.uint32("labsh.explained.uid", "User id"),
    gid = ProtoField.uint32("labsh.explained.gid", "Group id"),
    home = ProtoField.string("labsh.explained.home", "Home directory"),
    starts_in = ProtoField.string("labsh.explained.directory", "Directory"),
    executes = ProtoField.string("labsh.explained.program", "Program"),
    accepts = ProtoField.uint64("labsh.explained.accepts", "Accepted names"),
    accepted = ProtoField.string("labsh.explained.accepted", "Accepted name"),
    left_off = ProtoField.uint32("labsh.explained.left_off", "Items left off"),
    consumed = ProtoField.uint64("labsh.credit.consumed", "Consumed up to"),
    limit = ProtoField.uint64("labsh.credit.limit", "May be sent up to"),
    signal = ProtoField.uint8("labsh.signal.number", "Signal", base.DEC, SIGNALS),
    columns = ProtoField.uint16("labsh.size.columns", "Columns"),
    rows = ProtoField.uint16("labsh.size.rows", "Rows"),
    width = ProtoField.uint16("labsh.size.width", "Width in pixels"),
    height = ProtoField.uint16("labsh.size.height", "Height in pixels"),
    timed_out = ProtoField.bool("labsh.exit.timed_out", "Timed out"),
    stdout = ProtoField.uint64("labsh.exit.stdout", "Bytes sent on stdout"),
    stderr = ProtoField.uint64("labsh.exit.stderr", "Bytes sent on stderr"),
    wall = ProtoField.uint64("labsh.exit.wall", "Time from start to end (us)"),
    user_time = ProtoField.uint64("labsh.exit.user", "Processor time in user mode (us)"),
    system_time = ProtoField.uint64("labsh.exit.system", "Processor time in the kernel (us)"),
    peak_memory = ProtoField.uint64("labsh.exit.peak_memory", "Peak memory (bytes)"),
}
local status_fields = {}
for _, kind in ipairs({ "ended", "exit" }) do
    status_fields[kind] = {
        status = ProtoField.uint32("labsh." .. kind .. ".status", "Status", base.DEC, STATUSES),
        code = ProtoField.uint8("labsh." .. kind .. ".code", "Exit code"),
        signal = ProtoField.uint8("labsh." .. kind .. ".signal", "Signal", base.DEC, SIGNALS),
        core_dumped = ProtoField.bool("labsh." .. kind .. ".core_dumped", "Core dumped"),
    }
end

-- Named as in PROTOCOL.md, "Errors".
local function expert_of(name, text, severity)
    return ProtoExpert.new("labsh.expert." .. name, text, expert.group.MALFORMED, severity)
end
local wrong = {
    reserved = expert_of(
        "reserved", "Reserved: not 0, so a boundary was lost", expert.severity.ERROR
    ),
    unknown_kind = expert_of("unknown_kind", "UnknownKind", expert.severity.ERROR),
    body_too_long = expert_of("body_too_long", "BodyTooLong", expert.severity.ERROR),
    undefined_flags = expert_of("undefined_flags", "UndefinedFlags", expert.severity.ERROR),
    wrong_channel = expert_of("wrong_channel", "WrongChannel", expert.severity.ERROR),
    wrong_direction = expert_of("wrong_direction", "WrongDirection", expert.severity.ERROR),
    malformed = expert_of("malformed", "Malformed", expert.severity.ERROR),
    empty = expert_of("empty", "Empty", expert.severity.ERROR),
    too_long = expert_of("command_too_long", "A command over its limit", expert.severity.WARN),
    boundary_lost = expert_of("boundary_lost", "No header begins here", expert.severity.WARN),
    not_captured = expert_of("not_captured", "Not all of this frame is here", expert.severity.WARN),
}

local function registered(...)
    local all = {}
    for _, set in ipairs({ ... }) do
        for _, item in pairs(set) do
            all[#all + 1] = item
        end
    end
    return all
end
labsh.fields = registered(field, status_fields.ended, status_fields.exit)
labsh.experts = registered(wrong)

-- Text for people
-- -------------------------------------------------------------------------------------------------

-- Byte ranges of well-formed UTF-8 (RFC 3629, section 4).
local UTF8 = {
    "^[%z\1-\127]", "^[\194-\223][\128-\191]", "^\224[\160-\191][\128-\191]",
    "^[\225-\236\238\239][\128-\191][\128-\191]",
    "^\237[\128-\159][\128-\191]", "^\240[\144-\191][\128-\191][\128-\191]",
    "^[\241-\243][\128-\191][\128-\191][\128-\191]", "^\244[\128-\143][\128-\191][\128-\191]",
}

local function character_at(bytes, at)
    for _, pattern in ipairs(UTF8) do
        local character = bytes:match(pattern, at)
        if character then
            return character
        end
    end
end

local function is_utf8(bytes)
    local at = 1
    while at <= #bytes do
        local character = character_at(bytes, at)
        if not character then
            return false
        end
        at = at + #character
    end
    return true
end

local ESCAPES = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\\"] = "\\\\" }

-- At most PREVIEW characters, with everything escaped that does not show.
local function readable(bytes)
    local shown, at = {}, 1
    while at <= #bytes do
        if #shown == PREVIEW then
            shown[#shown + 1] = "…"
            break
        end
        local character = character_at(bytes, at)
        if not character then
            shown[#shown + 1] = string.format("\\x%02x", bytes:byte(at))
        elseif ESCAPES[character] then
            shown[#shown + 1] = ESCAPES[character]
        elseif character:find("^%c") or character:find("^\194[\128-\159]") then
            shown[#shown + 1] = character:gsub(
                ".", function(byte) return string.format("\\x%02x", byte:byte()) end
            )
        else
            shown[#shown + 1] = character
        end
        at = at + (character and #character or 1)
    end
    return table.concat(shown)
end

-- A word as one would type it in a shell, so that it is seen where it ends.
local function quoted(word)
    local text = readable(word)
    return text:find("^[%w_@%%+=:,./-]+$") and text or "'" .. text .. "'"
end

local function counted(number, noun)
    return string.format("%d %s%s", number, noun, number == 1 and "" or "s")
end

-- Bodies
-- -------------------------------------------------------------------------------------------------

-- Reads a body field by field. Whatever a body may not be ends the reading with a table that says
-- so.
local Reader = {}
Reader.__index = Reader

local function malformed(...)
    error({ malformed = string.format(...) }, 0)
end

-- Without a tvb the body is empty.
local function reader(tvb, text_limit)
    return setmetatable(
        { tvb = tvb, at = 0, size = tvb and tvb:len() or 0, text_limit = text_limit }, Reader
    )
end

function Reader:left()
    return self.size - self.at
end

function Reader:take(size, what)
    if size > self:left() then
        malformed(
            "the body ends within %s: %.0f bytes are needed, %d are left", what, size, self:left()
        )
    end
    local range = self.tvb:range(self.at, size)
    self.at = self.at + size
    return range
end

-- A field of fixed size; `what` is its name in PROTOCOL.md.
function Reader:add(tree, item, size, what)
    local range = self:take(size, what)
    return range, tree:add(item, range)
end

function Reader:number(tree, item, size, what)
    return self:add(tree, item, size, what):uint()
end

-- 2^53 and more lose their last digits: good enough for comparing and for one line of text.
function Reader:long(tree, item, what)
    return self:add(tree, item, 8, what):uint64():tonumber()
end

function Reader:enum(tree, item, names, what)
    local tag = self:number(tree, item, 4, what)
    if not names[tag] then
        malformed("%s has no case %u", what, tag)
    end
    return tag
end

function Reader:flag(what)
    local range = self:take(1, what)
    if range:uint() > 1 then
        malformed("%s is %d, neither 0 nor 1", what, range:uint())
    end
    return range:uint() == 1, range
end

function Reader:bool(tree, item, what)
    local value, range = self:flag(what)
    tree:add(item, range, value)
    return value
end

-- Bytes after their length: the bytes, and the range of length and bytes.
function Reader:bytes(what)
    local from = self.at
    local size = self:take(8, "the length of " .. what):uint64():tonumber()
    local value = size > 0 and self:take(size, what):raw() or ""
    return value, self.tvb:range(from, self.at - from)
end

function Reader:string(tree, item, what)
    local value, range = self:bytes(what)
    -- Wireshark's strings end at a zero byte; ours do not.
    tree:add(item, range, (value:gsub("%z", "\\0")))
    return value
end

function Reader:text(tree, item, what)
    local value = self:string(tree, item, what)
    if not is_utf8(value) then
        malformed("%s is not UTF-8", what)
    end
    return value
end

-- A text for people.
function Reader:sentence(tree, item, what)
    local value = self:text(tree, item, what)
    if #value > self.text_limit then
        malformed("%s has %d bytes, the limit is %d", what, #value, self.text_limit)
    end
    return value
end

-- A list; `each` reads one element and gets whether to show it.
function Reader:list(tree, item, smallest, what, each)
    local range, line = self:add(tree, item, 8, "the number of " .. what)
    local count = range:uint64():tonumber()
    if count * smallest > self:left() then
        malformed("%.0f %s do not fit into %d bytes", count, what, self:left())
    end
    for index = 1, count do
        each(index <= SHOWN_ITEMS)
    end
    if count > SHOWN_ITEMS then
        line:append_text(string.format(" (the first %d are shown)", SHOWN_ITEMS))
    end
    return count
end

-- Shows the features; returns a table whose keys are the names of those that are set.
function Reader:features(tree, item)
    local range, line = self:add(tree, item, 8, "features")
    local bits, names, set = range:range(7, 1):uint(), {}, {}
    for index, name in ipairs(FEATURES) do
        if math.floor(bits / 2 ^ (index - 1)) % 2 == 1 then
            names[#names + 1] = name
            set[name] = true
        end
    end
    line:append_text(#names > 0 and " (" .. table.concat(names, ", ") .. ")" or "")
    return set
end

function Reader:size_fields(tree)
    local columns = self:number(tree, field.columns, 2, "columns")
    local rows = self:number(tree, field.rows, 2, "rows")
    self:number(tree, field.width, 2, "width")
    self:number(tree, field.height, 2, "height")
    return string.format("%d columns, %d rows", columns, rows)
end

function Reader:status(tree, kind)
    local fields = status_fields[kind]
    if self:enum(tree, fields.status, STATUSES, "status") == 0 then
        return string.format("code %d", self:number(tree, fields.code, 1, "code"))
    end
    local signal = self:number(tree, fields.signal, 1, "signal")
    local dumped = self:bool(tree, fields.core_dumped, "core_dumped")
    return (SIGNALS[signal] or "signal " .. signal) .. (dumped and ", core dumped" or "")
end

function Reader:program(tree)
    local program = self:enum(tree, field.program, PROGRAMS, "program")
    if program == 0 then
        local words = {}
        self:list(tree, field.words, 8, "words", function(shown)
            local word
            if shown then
                word = self:string(tree, field.word, "a word")
            else
                word = self:bytes("a word")
            end
            if #words < INFO_FRAMES then
                words[#words + 1] = quoted(word)
            end
        end)
        return "argv: " .. table.concat(words, " ")
    elseif program == 1 then
        return "shell: " .. readable(self:string(tree, field.shell, "the line for the shell"))
    elseif program == 3 then
        return "subsystem: " .. quoted(self:string(tree, field.subsystem, "the subsystem's name"))
    end
    return PROGRAMS[program]
end

-- A list of strings; `is_text`: of which each must be UTF-8.
function Reader:strings(tree, count, item, name, what, is_text)
    self:list(tree, count, 8, name, function(shown)
        local value = shown and self:string(tree, item, what) or self:bytes(what)
        if is_text and not is_utf8(value) then
            malformed("%s is not UTF-8", what)
        end
    end)
end

function Reader:variables(tree)
    self:list(tree, field.variables, 16, "variables", function(shown)
        local from = self.at
        local name, value = self:bytes("a variable's name"), self:bytes("a variable's value")
        if shown then
            local text = (name .. "=" .. value):gsub("%z", "\\0")
            tree:add(field.variable, self.tvb:range(from, self.at - from), text)
        end
    end)
end

-- What follows the channel in the Info column, by kind; everything else goes into the tree.
local BODIES = {}

function BODIES.challenge(body, tree)
    body:add(tree, field.server_nonce, 32, "server_nonce")
end

function BODIES.response(body, tree)
    body:add(tree, field.name, 16, "name")
    body:add(tree, field.client_nonce, 32, "client_nonce")
    body:features(tree, field.response_features)
    body:add(tree, field.response_proof, 32, "proof")
end

function BODIES.welcome(body, tree)
    body:add(tree, field.instance, 16, "instance")
    local features = body:features(tree, field.welcome_features)
    local channels = body:number(tree, field.channels, 4, "channels")
    body:add(tree, field.welcome_proof, 32, "proof")
    if not features.VERSION then
        return counted(channels, "channel")
    end
    local version = body:string(tree, field.version, "version")
    if #version < 1 or #version > VERSION or version:find("[^ -~]") then
        malformed("version is not 1 to %d printable ASCII characters", VERSION)
    end
    return counted(channels, "channel") .. ", " .. version
end

function BODIES.refuse(body, tree)
    local code = body:number(tree, field.refuse_code, 2, "code")
    local reason = body:sentence(tree, field.refuse_reason, "reason")
    body:sentence(tree, field.refuse_remedy, "remedy")
    return (REFUSE_CODES[code] or "code " .. code) .. ": " .. readable(reason)
end

function BODIES.goodbye(body, tree)
    local reason = body:sentence(tree, field.goodbye_reason, "reason")
    return reason ~= "" and readable(reason) or nil
end

function BODIES.ping(body, tree)
    body:add(tree, field.token, 8, "token")
end
BODIES.pong = BODIES.ping

function BODIES.open(body, tree)
    body:add(tree, field.command, 16, "command")
    body:long(tree, field.linger, "linger")
    body:long(tree, field.timeout, "timeout")
    body:enum(tree, field.until_, UNTILS, "until")
    local said = body:program(tree)
    body:variables(tree)
    if body:flag("whether there is a directory") then
        body:string(tree, field.directory, "directory")
    end
    if body:flag("whether there is a user") then
        body:string(tree, field.user, "user")
    end
    if body:flag("whether there is a terminal") then
        body:text(tree, field.terminal, "the terminal's name")
        body:size_fields(tree)
    end
    return said
end

function BODIES.started(body, tree)
    return string.format("pid %u", body:number(tree, field.pid, 4, "pid"))
end

function BODIES.eof(body, tree)
    local stream = body:enum(tree, field.stream, STREAMS, "stream")
    return STREAMS[stream], stream
end
BODIES.stop = BODIES.eof

function BODIES.credit(body, tree)
    local stream = body:enum(tree, field.stream, STREAMS, "stream")
    body:long(tree, field.consumed, "consumed")
    return string.format(
        "%s up to %.0f", STREAMS[stream], body:long(tree, field.limit, "limit")
    ), stream
end

function BODIES.signal(body, tree)
    local number = body:number(tree, field.signal, 1, "number")
    if not SIGNALS[number] then
        malformed("signal %d is not one from 1 to 31", number)
    end
    return SIGNALS[number]
end

function BODIES.resize(body, tree)
    return body:size_fields(tree)
end

function BODIES.ended(body, tree)
    return body:status(tree, "ended")
end

function BODIES.exit(body, tree)
    local said = body:status(tree, "exit")
    local timed_out = body:bool(tree, field.timed_out, "timed_out")
    local stdout = body:long(tree, field.stdout, "stdout")
    local stderr = body:long(tree, field.stderr, "stderr")
    body:long(tree, field.wall, "wall")
    body:long(tree, field.user_time, "user")
    body:long(tree, field.system_time, "system")
    body:long(tree, field.peak_memory, "peak_memory")
    return string.format(
        "%s%s, %.0f + %.0f bytes", said, timed_out and ", timed out" or "", stdout, stderr
    )
end

function BODIES.close() end

function BODIES.explained(body, tree)
    body:text(tree, field.entry, "entry")
    body:strings(tree, field.networks, field.network, "from", "a network", true)
    body:long(tree, field.expires, "expires")
    body:number(tree, field.at_once, 4, "channels")
    local user = body:text(tree, field.runs_as, "user")
    body:number(tree, field.uid, 4, "uid")
    body:number(tree, field.gid, 4, "gid")
    body:string(tree, field.home, "home")
    body:string(tree, field.starts_in, "directory")
    local program = body:string(tree, field.executes, "program")
    body:strings(tree, field.words, field.word, "words", "a word")
    body:variables(tree)
    body:strings(tree, field.accepts, field.accepted, "accepted", "a name", true)
    body:number(tree, field.left_off, 4, "left_off")
    return quoted(program) .. " as " .. quoted(user)
end

-- Headers
-- -------------------------------------------------------------------------------------------------

local function header_at(tvb, at)
    local header = {
        length = tvb:range(at, 4):uint(),
        code = tvb:range(at + 4, 1):uint(),
        flags = tvb:range(at + 5, 1):uint(),
        reserved = tvb:range(at + 6, 2):uint(),
        channel = tvb:range(at + 8, 4):uint(),
    }
    header.kind = KINDS[header.code]
    return header
end

-- What is wrong with a header behind which no further boundary can be trusted.
local function broken(header)
    if header.reserved ~= 0 then
        return {
            what = "reserved", item = "reserved", text = "Reserved is not 0: a boundary was lost"
        }
    elseif not header.kind then
        return { what = "unknown_kind", item = "code", text = "No kind has this code" }
    elseif header.length > BODY then
        local text = string.format("A body has at most %d bytes", BODY)
        return { what = "body_too_long", item = "length", text = text }
    end
end

-- Whether a frame may well begin here, as far as its header has arrived. A long channel id counts
-- as a mere accident where nothing else says that this is labsh: `small` leaves those out.
local function plausible(tvb, at, small)
    local have = tvb:len() - at
    local function byte(index)
        return index < have and tvb:range(at + index, 1):uint() or nil
    end
    if have >= HEADER then
        local header = header_at(tvb, at)
        local kind = header.kind
        return kind ~= nil
            and header.reserved == 0
            and header.length >= kind.sizes[1]
            and header.length <= kind.sizes[2]
            and header.flags <= defined_flags(kind)
            and (kind.connection == "either" or (header.channel == 0) == (kind.connection == true))
            and (not small or header.channel < 65536)
    end
    return (byte(0) or 0) == 0
        and (byte(1) or 0) <= 1
        and (byte(4) == nil or KINDS[byte(4)] ~= nil)
        and (byte(5) or 0) <= 3
        and (byte(6) or 0) == 0
        and (byte(7) or 0) == 0
end

-- A TLS record begins with its type and 03 (RFC 8446, section 5.1); the length of a frame never
-- does.
local function looks_like_tls(tvb)
    local first = tvb:range(0, 1):uint()
    return first >= 0x14 and first <= 0x17 and (tvb:len() < 2 or tvb:range(1, 1):uint() == 3)
end

-- Connections
-- -------------------------------------------------------------------------------------------------

-- What is remembered from the first pass: of each connection; of each chunk, what it is; of each
-- frame, what its header and body alone do not say; and how many frames were found in a packet.
local connections, verdicts, frames, counts = {}, {}, {}, {}

function labsh.init()
    connections, verdicts, frames, counts = {}, {}, {}, {}
end

local function sender_of(pinfo)
    return tostring(pinfo.src) .. " " .. pinfo.src_port
end

-- By addresses and ports: tcp.stream would be better, but fields are not there in a first pass that
-- shows nothing.
local function connection_of(pinfo)
    local one, other = sender_of(pinfo), tostring(pinfo.dst) .. " " .. pinfo.dst_port
    local id = one < other and one .. " " .. other or other .. " " .. one
    connections[id] = connections[id] or { ways = {}, opens = {} }
    return connections[id]
end

-- What the connection so far says about one frame, and what the frame says about the connection.
local function follow(connection, sender, header, body)
    local kind = header.kind
    if kind.name == "challenge" and connection.challenged then
        -- The ports have been taken again: another connection.
        connection.challenged, connection.answered, connection.welcomed = false, false, false
        connection.server_known, connection.opens = nil, {}
    end
    if kind.sender then
        local is_server = kind.sender == "server"
        connection.server_known = connection.server_known
            or { [sender] = is_server, other = not is_server }
    end
    local known = connection.server_known
    local frame = { limit = BODY }
    if known then
        local is_server = known[sender]
        if is_server == nil then
            is_server = known.other
        end
        frame.role = is_server and "server" or "client"
    end

    local handshake = kind.name == "challenge" or kind.name == "response" or kind.name == "welcome"
    local finished = connection.answered
    if frame.role == "server" then
        finished = connection.welcomed
    end
    if handshake or (connection.challenged and not finished) then
        frame.limit = BODY_BEFORE_AUTHENTICATION
    end
    connection.challenged = connection.challenged or kind.name == "challenge"
    connection.answered = connection.answered or kind.name == "response"
    connection.welcomed = connection.welcomed or kind.name == "welcome"

    if header.code == OPEN then
        local open = connection.opens[header.channel]
        if open or header.flags % 2 == 1 then
            open = open or { frames = 0, size = 0, body = ByteArray.new() }
            open.frames = open.frames + 1
            open.size = open.size + header.length
            if open.size <= COMMAND and body then
                open.body:append(body)
            end
            frame.open = { frames = open.frames, size = open.size }
            connection.opens[header.channel] = open
            if header.flags % 2 == 0 then
                connection.opens[header.channel] = nil
                frame.open.last = true
                frame.open.body = open.size <= COMMAND and open.body or nil
            end
        end
    elseif header.code == CLOSE then
        connection.opens[header.channel] = nil
    end
    return frame
end

-- What a chunk is: "tls", "other", "lost" where it does not begin with a frame as it should,
-- otherwise "labsh".
local function judge(tvb, connection, way)
    if connection.is_tls then
        return "tls"
    elseif not connection.is_labsh and not plausible(tvb, 0) then
        connection.is_tls = looks_like_tls(tvb)
        return connection.is_tls and "tls" or "other"
    end
    -- A boundary that was lost, or that lies before the capture, is found again where a chunk
    -- begins with a header.
    local begins = way.begun or connection.challenged
    return (way.lost or not begins) and not plausible(tvb, 0) and "lost" or "labsh"
end

-- Where frames begin in a chunk, and what is known of them.
local function plan(tvb, pinfo)
    local connection, sender, size = connection_of(pinfo), sender_of(pinfo), tvb:len()
    connection.ways[sender] = connection.ways[sender] or {}
    local way = connection.ways[sender]
    local packet = pinfo.number .. "/" .. sender
    local chunk_key = table.concat({ packet, tvb:offset(), size }, "/")
    local is_new = not pinfo.visited and not verdicts[chunk_key]
    if is_new then
        verdicts[chunk_key] = judge(tvb, connection, way)
    end

    local chunk = { verdict = verdicts[chunk_key] or "labsh", frames = {} }
    -- By its first bytes: its position in the chunk may differ the next time.
    local function remember(at, length, frame)
        local key = packet .. "/" .. tvb:range(at, math.min(length, HEADER + 32, size - at)):raw()
        if is_new then
            counts[packet] = (counts[packet] or 0) + 1
            frame.ordinal = counts[packet]
            frames[key] = frames[key] or frame
            return frame
        end
        return frames[key] or frame
    end
    if chunk.verdict == "lost" then
        chunk.lost_from = 0
        chunk.is_later = (remember(0, size, {}).ordinal or 1) > 1
        return chunk
    end

    local whole = size == tvb:reported_len() and pinfo.can_desegment > 0
    local at = 0
    while chunk.verdict == "labsh" and at < size do
        local have = size - at
        if have < HEADER then
            if whole then
                chunk.wanted = { offset = at, length = DESEGMENT_ONE_MORE_SEGMENT }
            else
                chunk.lost_from = at
            end
            break
        end
        local header = header_at(tvb, at)
        local missing = HEADER + header.length - have
        local fault = broken(header)
        if not fault and missing > 0 and whole then
            chunk.wanted = { offset = at, length = missing }
            break
        end
        local frame = { limit = BODY }
        if is_new and not fault then
            local body = header.code == OPEN and header.length > 0 and missing <= 0
            frame = follow(
                connection, sender, header,
                body and tvb:range(at + HEADER, header.length):bytes() or nil
            )
        end
        frame = remember(at, fault and HEADER or HEADER + header.length, frame)
        chunk.frames[#chunk.frames + 1] = {
            at = at, fault = fault, missing = math.max(missing, 0), known = frame
        }
        if fault then
            chunk.lost_from = have > HEADER and at + HEADER or nil
            break
        end
        at = at + HEADER + header.length
    end
    if is_new and chunk.verdict == "labsh" then
        local last = chunk.frames[#chunk.frames]
        connection.is_labsh = connection.is_labsh or last ~= nil
            or (chunk.wanted and size >= HEADER)
        way.begun = way.begun or connection.is_labsh
        way.lost = chunk.lost_from ~= nil
            or (last ~= nil and (last.fault ~= nil or last.missing > 0))
    end
    chunk.is_later = chunk.frames[1] ~= nil and (chunk.frames[1].known.ordinal or 1) > 1
    return chunk
end

-- Showing
-- -------------------------------------------------------------------------------------------------

local function complain(tree, what, range, text)
    tree:add_tvb_expert_info(wrong[what], range, text)
end

local function show_header(tree, tvb, at, header)
    local items = {
        length = tree:add(field.length, tvb:range(at, 4)),
        code = tree:add(field.kind, tvb:range(at + 4, 1)),
        flags = tree:add(field.flags, tvb:range(at + 5, 1)),
        reserved = tree:add(field.reserved, tvb:range(at + 6, 2)),
        channel = tree:add(field.channel, tvb:range(at + 8, 4)),
    }
    if header.kind and header.kind.flag then
        items.flags:add(field[header.kind.flag], tvb:range(at + 5, 1))
        if header.kind.other_flag then
            items.flags:add(field[header.kind.other_flag], tvb:range(at + 5, 1))
        end
    end
    return items
end

-- A stream flows one way: its own sender ends it, its receiver stops it and gives credit for it.
local function stream_goes_wrong_way(kind, role, stream)
    if not kind.of or not role or not stream then
        return false
    end
    local from = stream == 0 and "client" or "server"
    return (role == from) ~= (kind.of == "sender")
end

local function check_header(items, tvb, frame, header)
    local kind, at, role = header.kind, frame.at, frame.known.role
    if header.length > frame.known.limit then
        local text = string.format(
            "Before authentication a body has at most %d bytes", frame.known.limit
        )
        complain(items.length, "body_too_long", tvb:range(at, 4), text)
    end
    if header.flags > defined_flags(kind) then
        complain(
            items.flags, "undefined_flags", tvb:range(at + 5, 1),
            "A flag that " .. kind.name .. " does not define"
        )
    end
    if kind.connection ~= "either" and (header.channel == 0) ~= (kind.connection == true) then
        local text = header.channel == 0 and " needs a channel"
            or " belongs to the connection, channel 0"
        complain(items.channel, "wrong_channel", tvb:range(at + 8, 4), kind.name .. text)
    end
    if kind.sender and role and kind.sender ~= role then
        complain(
            items.code, "wrong_direction", tvb:range(at + 4, 1),
            "Only the " .. kind.sender .. " sends " .. kind.name
        )
    end
end

-- The fields of a control message; returns what is said of it in one line.
local function show_body(tree, body_tvb, body_range, frame, header)
    local before = frame.known.limit == BODY_BEFORE_AUTHENTICATION
    local body = reader(body_tvb, before and TEXT_BEFORE_AUTHENTICATION or TEXT)
    local read, said, stream = pcall(BODIES[header.kind.name], body, tree)
    if not read then
        if type(said) ~= "table" then
            error(said, 0)
        end
        complain(tree, "malformed", body_range, "Malformed: " .. said.malformed)
        return "malformed"
    end
    if body:left() > 0 then
        local text = string.format(
            "Malformed: %s left over behind the last field", counted(body:left(), "byte")
        )
        tree:add(field.unread, body_tvb:range(body.at, body:left()))
        complain(tree, "malformed", body_range, text)
    elseif stream_goes_wrong_way(header.kind, frame.known.role, stream) then
        local text = string.format(
            "%s of %s is the other end's to send", header.kind.name, STREAMS[stream]
        )
        complain(tree, "wrong_direction", body_range, text)
    end
    return said
end

local function show_data(tree, range)
    tree:add(field.data, range)
    -- No character has more than four bytes.
    tree:add(
        field.preview, range, readable(range:range(0, math.min(range:len(), 4 * PREVIEW + 4)):raw())
    )
end

local function show_content(tree, tvb, frame, header)
    local header_range = tvb:range(frame.at, HEADER)
    local have = header.length - frame.missing
    local range = have > 0 and tvb:range(frame.at + HEADER, have) or header_range
    local open = frame.known.open
    if frame.missing > 0 then
        if have > 0 then
            tree:add(field.unread, range)
        end
        complain(
            tree, "not_captured", range,
            counted(frame.missing, "byte") .. " of this frame are not here"
        )
        return counted(header.length, "byte") .. ", not all captured"
    elseif header.kind.data then
        if header.length == 0 then
            complain(tree, "empty", header_range, "A data frame has at least one byte")
        else
            show_data(tree, range)
        end
        return counted(header.length, "byte") .. (header.flags % 2 == 1 and ", limited" or "")
    elseif open and not open.last then
        if have > 0 then
            tree:add(field.unread, range)
        end
        return string.format("part %d, %s so far", open.frames, counted(open.size, "byte"))
    elseif open and not open.body then
        complain(
            tree, "too_long", range,
            string.format("%d bytes, the limit is %d: refused", open.size, COMMAND)
        )
        return counted(open.size, "byte") .. ", too long"
    elseif open then
        tree:add(field.frames, range, open.frames)
        if open.body:len() == 0 then
            return show_body(tree, nil, range, frame, header)
        end
        local joined = open.body:tvb("open over " .. counted(open.frames, "frame"))
        return show_body(tree, joined, joined:range(), frame, header)
    end
    return show_body(tree, have > 0 and range:tvb() or nil, range, frame, header)
end

local function show_frame(frame, tvb, tree)
    local header = header_at(tvb, frame.at)
    if frame.fault then
        local branch = tree:add(labsh, tvb:range(frame.at, HEADER), "labsh, bad header")
        local items = show_header(branch, tvb, frame.at, header)
        complain(
            items[frame.fault.item], frame.fault.what, tvb:range(frame.at, HEADER), frame.fault.text
        )
        return "bad header"
    end
    local shown = HEADER + header.length - frame.missing
    local branch = tree:add(labsh, tvb:range(frame.at, shown), "labsh")
    check_header(show_header(branch, tvb, frame.at, header), tvb, frame, header)
    local title = header.kind.name .. (
        header.channel > 0 and string.format(" %u", header.channel) or ""
    )
    local said = show_content(branch, tvb, frame, header)
    if said then
        title = title .. (header.code == OPEN and " " or ", ") .. said
    end
    branch:append_text(": " .. title)
    return title
end

local function show(chunk, tvb, pinfo, tree)
    local said = {}
    for index, frame in ipairs(chunk.frames) do
        local title = show_frame(frame, tvb, tree)
        if index <= INFO_FRAMES then
            said[#said + 1] = title
        end
    end
    if #chunk.frames > INFO_FRAMES then
        said[#said + 1] = string.format("and %d more", #chunk.frames - INFO_FRAMES)
    end
    if chunk.lost_from then
        local range = tvb:range(chunk.lost_from)
        local branch = tree:add(labsh, range, "labsh, undecoded bytes")
        branch:add(field.unread, range)
        local text = "No header begins here: a boundary was lost, or lies before the capture"
        complain(branch, "boundary_lost", range, text)
        said[#said + 1] = counted(range:len(), "byte") .. " without a header"
    end
    if #said > 0 then
        pinfo.cols.protocol:set("labsh")
        -- Several chunks of one packet share the column: each is fenced off from the next.
        pinfo.cols.info:set((chunk.is_later and "; " or "") .. table.concat(said, "; "))
        pinfo.cols.info:fence()
    end
    if chunk.wanted then
        pinfo.desegment_offset = chunk.wanted.offset
        pinfo.desegment_len = chunk.wanted.length
    end
end

function labsh.dissector(tvb, pinfo, tree)
    if tvb:len() == 0 then
        return 0
    end
    local chunk = plan(tvb, pinfo)
    if chunk.verdict == "tls" then
        -- It gives up by raising an error where a record is malformed, and has then shown that
        -- itself.
        local read, size = pcall(function() return Dissector.get("tls"):call(tvb, pinfo, tree) end)
        return read and size or tvb:len()
    elseif chunk.verdict == "other" then
        return 0
    end
    show(chunk, tvb, pinfo, tree)
    return tvb:len()
end

-- Where to look for it
-- ----------------------------------------------------------------------------------------------

-- On any port: only where a whole plausible header begins a chunk, and another one the rest of it,
-- if there is a rest.
labsh:register_heuristic("tcp", function(tvb, pinfo, tree)
    if tvb:len() < HEADER or not plausible(tvb, 0, true) then
        return false
    end
    local next_header = HEADER + tvb:range(0, 4):uint()
    if next_header < tvb:len() and not plausible(tvb, next_header, true) then
        return false
    end
    pinfo.conversation = labsh
    return labsh.dissector(tvb, pinfo, tree) > 0
end)

local DEFAULT_PORTS = "5274,5275"
labsh.prefs.ports = Pref.range("TCP ports", DEFAULT_PORTS, "Ports on which labshd listens", 65535)

local tcp_ports = DissectorTable.get("tcp.port")
tcp_ports:add_for_decode_as(labsh)
tcp_ports:add(DEFAULT_PORTS, labsh)
local ports_in_use = DEFAULT_PORTS

function labsh.prefs_changed()
    if labsh.prefs.ports ~= ports_in_use then
        if ports_in_use ~= "" then
            tcp_ports:remove(ports_in_use, labsh)
        end
        ports_in_use = labsh.prefs.ports
        if ports_in_use ~= "" then
            tcp_ports:add(ports_in_use, labsh)
        end
    end
end
