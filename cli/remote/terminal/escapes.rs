//! Finds escapes in typed bytes: requests to labsh at the start of a line, as in ssh.

use crate::flags::EscapeCharacter;

/// The byte that a terminal sends for Ctrl-Z.
const CONTROL_Z: u8 = 0x1a;

/// A request to labsh, typed as an escape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Leave the session.
    Leave,
    /// Suspend labsh.
    Suspend,
    /// Show the list of escapes.
    Help,
}

/// Separates typed bytes from escapes. It holds back at most one byte: the escape character at the
/// start of a line.
#[derive(Debug)]
pub(crate) struct Escapes {
    character: Option<u8>,
    line_starts: bool,
    held: bool,
    left: bool,
}

impl Escapes {
    pub(crate) fn new(EscapeCharacter(character): EscapeCharacter) -> Self {
        Self { character, line_starts: true, held: false, left: false }
    }

    /// Takes typed bytes: appends those for the command to `passed`, and calls `ask` for each
    /// request. Bytes after a request to leave are dropped.
    pub(crate) fn sort(
        &mut self,
        typed: &[u8],
        passed: &mut Vec<u8>,
        mut ask: impl FnMut(Request),
    ) {
        for &byte in typed {
            if self.left {
                return;
            }
            if !self.held && self.line_starts && Some(byte) == self.character {
                self.held = true;
                continue;
            }
            if std::mem::take(&mut self.held) {
                match byte {
                    b'.' => {
                        self.left = true;
                        ask(Request::Leave);
                        continue;
                    }
                    // The command has not seen these two bytes, so the line still starts after
                    // them.
                    CONTROL_Z => {
                        ask(Request::Suspend);
                        continue;
                    }
                    b'?' => {
                        ask(Request::Help);
                        continue;
                    }
                    // A doubled escape character is typed as one.
                    _ if Some(byte) == self.character => {}
                    _ => passed.extend(self.character),
                }
            }
            passed.push(byte);
            self.line_starts = matches!(byte, b'\r' | b'\n');
        }
    }

    /// Returns the byte that is held back at the end of input.
    pub(crate) fn rest(&mut self) -> Option<u8> {
        std::mem::take(&mut self.held).then_some(self.character).flatten()
    }

    /// Returns the text that lists the escapes.
    pub(crate) fn help(&self) -> String {
        let Some(c) = self.character.map(shown) else { return String::new() };
        format!(
            "at the start of a line these are for labsh:\n \
             {c}.   leave; the host ends what runs in the terminal\n \
             {c}^Z  suspend labsh (Ctrl-Z); fg comes back\n \
             {c}?   show this\n \
             {c}{c}   type {c} itself"
        )
    }
}

/// Formats an ASCII character as people write it.
fn shown(character: u8) -> String {
    match character {
        0..0x20 => format!("^{}", char::from(character + b'@')),
        0x7f => "^?".to_owned(),
        _ => char::from(character).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the passed bytes and the requests if the bytes arrive in pieces of this size.
    fn sorted(character: EscapeCharacter, typed: &[u8], piece: usize) -> (Vec<u8>, Vec<Request>) {
        let mut escapes = Escapes::new(character);
        let (mut passed, mut asked) = (Vec::new(), Vec::new());
        for piece in typed.chunks(piece) {
            escapes.sort(piece, &mut passed, |request| asked.push(request));
        }
        passed.extend(escapes.rest());
        (passed, asked)
    }

    fn check(typed: &[u8], passed: &[u8], asked: &[Request]) {
        for piece in 1..=typed.len().max(1) {
            let got = sorted(EscapeCharacter::default(), typed, piece);
            assert_eq!(got, (passed.to_vec(), asked.to_vec()), "{typed:?} in pieces of {piece}");
        }
    }

    #[test]
    fn escapes_are_obeyed_at_the_start_of_a_line_alone() {
        check(b"~.", b"", &[Request::Leave]);
        check(b"ls\r~.", b"ls\r", &[Request::Leave]);
        check(b"ls\n~.", b"ls\n", &[Request::Leave]);
        check(b"ls ~.\r", b"ls ~.\r", &[]);
        check(b"~?", b"", &[Request::Help]);
        check(b"~\x1a", b"", &[Request::Suspend]);
    }

    #[test]
    fn a_line_still_starts_behind_an_escape_that_stays() {
        check(b"\r~?~\x1a~?x~?", b"\rx~?", &[Request::Help, Request::Suspend, Request::Help]);
    }

    #[test]
    fn twice_is_once_and_no_longer_a_start() {
        check(b"~~.\r", b"~.\r", &[]);
        check(b"~~~~", b"~~~", &[]);
    }

    #[test]
    fn what_is_no_escape_passes_whole() {
        check(b"~/bin/x\r", b"~/bin/x\r", &[]);
        check(b"~\r~.", b"~\r", &[Request::Leave]);
        check("~ä\r".as_bytes(), "~ä\r".as_bytes(), &[]);
        check(b"~", b"~", &[]);
        check(b"x\r~", b"x\r~", &[]);
        check(b"", b"", &[]);
    }

    #[test]
    fn every_byte_passes_unchanged() {
        let all: Vec<u8> = (0..=255).chain((0..=255).rev()).filter(|byte| *byte != b'~').collect();
        check(&all, &all, &[]);
        let all: Vec<u8> = (0..=255).collect();
        for piece in [1, 7, 256] {
            assert_eq!(sorted(EscapeCharacter(None), &all, piece), (all.clone(), vec![]));
            assert_eq!(sorted(EscapeCharacter(None), b"~.", piece).0, b"~.");
        }
    }

    #[test]
    fn nothing_behind_leaving_is_passed_on() {
        check(b"a\r~.rm -rf x\r", b"a\r", &[Request::Leave]);
    }

    #[test]
    fn another_character_may_be_chosen() {
        let escape: EscapeCharacter = "^]".parse().unwrap();
        assert_eq!(escape, EscapeCharacter(Some(0x1d)));
        assert_eq!(sorted(escape, b"~.\r\x1d.", 3), (b"~.\r".to_vec(), vec![Request::Leave]));
        assert_eq!("%".parse(), Ok(EscapeCharacter(Some(b'%'))));
        assert_eq!("^".parse(), Ok(EscapeCharacter(Some(b'^'))));
        assert_eq!("none".parse(), Ok(EscapeCharacter(None)));
        for bad in ["", "ab", "ä", "^ä", "^1", "^@"] {
            assert!(bad.parse::<EscapeCharacter>().is_err(), "{bad:?}");
        }
        assert!(Escapes::new(escape).help().contains("\n ^].   leave;"));
    }
}
