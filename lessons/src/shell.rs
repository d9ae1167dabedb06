//! Runs real commands, whose output the lessons send.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::language::{Language, Text};
use crate::stage::LessonError;

/// Bytes that a command may print: enough for a lesson, and still quick to read byte by byte.
const MAX_OUTPUT_BYTES: usize = 1 << 20;

/// How long a command may run.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns what the teacher's command prints on its stdout.
///
/// # Errors
/// [`LessonError::BadOption`] if the command fails, prints nothing, prints more than
/// [`MAX_OUTPUT_BYTES`] or does not end within [`COMMAND_TIMEOUT`].
pub(crate) fn output_of(line: &str) -> Result<Vec<u8>, LessonError> {
    let (output, status, stderr) = run(line)?;
    let (english, chinese) = if !status.success() {
        let message = stderr.lines().next().unwrap_or_default();
        let message = if message.is_empty() { String::new() } else { format!(" ({message})") };
        (format!("failed: {status}{message}"), format!("失败了：{status}{message}"))
    } else if output.is_empty() {
        ("prints nothing".to_owned(), "什么也没有输出".to_owned())
    } else {
        return Ok(output);
    };
    Err(LessonError::bad_option((
        format!(
            "the command '{line}' {english}; choose a command that prints something and ends, such \
             as 'seq 5000'"
        ),
        format!("命令 '{line}' {chinese}；请换一条有输出、会自己结束的命令，例如 'seq 5000'"),
    )))
}

/// Returns everything that a command prints on stdout and stderr, however it ends.
pub(crate) fn answer_of(line: &str) -> Result<Vec<u8>, LessonError> {
    Ok(run(&format!("exec 2>&1\n{line}"))?.0)
}

/// Runs a line in `/bin/sh`; returns its stdout, its exit status and its stderr.
fn run(line: &str) -> Result<(Vec<u8>, ExitStatus, String), LessonError> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // In a process group of its own, so that everything it starts can be killed with it.
    let mut child = command.process_group(0).spawn()?;
    let result = read_both(&mut child);
    if result.is_err() {
        // An error means that the group has ended by itself.
        let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    }
    let status = child.wait()?;
    let (output, stderr) = result.map_err(|reason| {
        LessonError::bad_option((
            format!(
                "the command '{line}' {}; choose one that ends by itself, or shorten its output \
                 with | head -c 100000",
                reason.get(Language::English)
            ),
            format!(
                "命令 '{line}' {}；请换一条会自己结束的命令，或者用 | head -c 100000 截短",
                reason.get(Language::Chinese)
            ),
        ))
    })?;
    Ok((output, status, stderr))
}

/// Reads stdout and stderr to their ends; an error says what is wrong with the command.
fn read_both(child: &mut Child) -> Result<(Vec<u8>, String), Text> {
    let stdout = read_in_thread(child.stdout.take());
    let stderr = read_in_thread(child.stderr.take());
    Ok((complete(&stdout)?, String::from_utf8_lossy(&complete(&stderr)?).into_owned()))
}

/// Waits for all bytes of one stream.
fn complete(stream: &mpsc::Receiver<io::Result<Vec<u8>>>) -> Result<Vec<u8>, Text> {
    let bytes = stream.recv_timeout(COMMAND_TIMEOUT).map_err(|_| {
        let seconds = COMMAND_TIMEOUT.as_secs();
        Text::new(format!("did not end within {seconds} s"), format!("在 {seconds} 秒内没有结束"))
    })?;
    let bytes = bytes.map_err(|error| {
        Text::new(format!("could not be read: {error}"), format!("的输出读不出来：{error}"))
    })?;
    if bytes.len() > MAX_OUTPUT_BYTES {
        return Err(Text::new(
            format!("prints more than {MAX_OUTPUT_BYTES} bytes"),
            format!("的输出超过 {MAX_OUTPUT_BYTES} 字节"),
        ));
    }
    Ok(bytes)
}

/// Reads a stream in a thread of its own, up to one byte more than allowed.
///
/// Both pipes must be emptied at the same time: a command that has filled one of them would never
/// close the other. The thread ends with its stream, at the latest when the command is killed.
fn read_in_thread(
    stream: Option<impl Read + Send + 'static>,
) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let limit = MAX_OUTPUT_BYTES as u64 + 1;
        let read = stream.map_or(Ok(0), |stream| stream.take(limit).read_to_end(&mut bytes));
        // The receiver is gone if the other stream has failed.
        let _ = sender.send(read.map(|_| bytes));
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> String {
        output_of(line).unwrap_err().to_string()
    }

    #[test]
    fn output_is_unchanged() {
        assert_eq!(output_of("printf 'a\\n\\0b'").unwrap(), b"a\n\0b");
        assert_eq!(output_of("seq 5000").unwrap().len(), 23893);
        // Fills one pipe while the other is being read.
        assert_eq!(output_of("seq 50000 >&2; echo done").unwrap(), b"done\n");
        assert_eq!(answer_of("echo a; echo b >&2; exit 3").unwrap(), b"a\nb\n");
    }

    #[test]
    fn unsuitable_commands_are_refused_with_a_remedy() {
        assert!(refusal("exit 3").contains("failed: exit status: 3; choose"));
        assert!(refusal("nosuch_command_here").contains("exit status: 127"));
        assert!(refusal("true").contains("prints nothing"));
        assert!(refusal("yes").contains("prints more than 1048576 bytes; choose one that ends"));
    }
}
