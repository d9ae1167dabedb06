//! Real commands, whose output lessons send.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::language::{Language, Text};
use crate::sockets::PATIENCE;
use crate::stage::LessonError;

/// Most that a command may print: enough for a lesson, and read byte by byte in no time.
pub(crate) const MOST: usize = 1 << 20;

/// What a teacher's command printed on its standard output.
///
/// # Errors
/// [`LessonError::BadOption`] if it fails, prints nothing, prints more than [`MOST`] bytes or does
/// not end.
pub(crate) fn output_of(line: &str) -> Result<Vec<u8>, LessonError> {
    let (output, status, complaint) = run(line)?;
    let why = if !status.success() {
        let complaint = complaint.lines().next().unwrap_or_default().to_owned();
        let said = if complaint.is_empty() { complaint } else { format!(" ({complaint})") };
        (format!("failed: {status}{said}"), format!("失败了：{status}{said}"))
    } else if output.is_empty() {
        ("prints nothing".to_owned(), "什么也没有输出".to_owned())
    } else {
        return Ok(output);
    };
    Err(LessonError::BadOption(Text::new(
        format!(
            "the command '{line}' {}; choose a command that prints something and ends, such as \
             'seq 5000'",
            why.0
        ),
        format!("命令 '{line}' {}；请换一条有输出、会自己结束的命令，例如 'seq 5000'", why.1),
    )))
}

/// What a command answers to whoever asks: all that it prints on either stream, however it ends.
pub(crate) fn answer_of(line: &str) -> Result<Vec<u8>, LessonError> {
    Ok(run(&format!("exec 2>&1\n{line}"))?.0)
}

fn run(line: &str) -> Result<(Vec<u8>, ExitStatus, String), LessonError> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // In a process group of its own, so that all that it starts can be ended with it.
    let mut child = command.process_group(0).spawn()?;
    let result = read_both(&mut child);
    if result.is_err() {
        // Whoever is not there any more need not be ended.
        let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    }
    let status = child.wait()?;
    match result {
        Ok((output, complaint)) => Ok((output, status, complaint)),
        Err(why) => Err(LessonError::BadOption(Text::new(
            format!(
                "the command '{line}' {}; choose one that ends by itself, or cut it short with \
                | head -c 100000",
                why.get(Language::English)
            ),
            format!(
                "命令 '{line}' {}；请换一条会自己结束的命令，或者用 | head -c 100000 截短",
                why.get(Language::Chinese)
            ),
        ))),
    }
}

/// Both streams to their ends, or why they were not read so far.
fn read_both(child: &mut Child) -> Result<(Vec<u8>, String), Text> {
    let (sender, output) = mpsc::channel();
    read_in_thread(child.stdout.take(), sender);
    let (sender, complaint) = mpsc::channel();
    read_in_thread(child.stderr.take(), sender);
    let end = |receiver: mpsc::Receiver<io::Result<Vec<u8>>>| {
        let read = receiver.recv_timeout(PATIENCE);
        let seconds = PATIENCE.as_secs();
        let read = read.map_err(|_| {
            Text::new(
                format!("did not end within {seconds} s"),
                format!("在 {seconds} 秒内没有结束"),
            )
        })?;
        let bytes = read.map_err(|error| {
            Text::new(format!("could not be read: {error}"), format!("的输出读不出来：{error}"))
        })?;
        if bytes.len() > MOST {
            let chinese = format!("的输出超过 {MOST} 字节");
            return Err(Text::new(format!("prints more than {MOST} bytes"), chinese));
        }
        Ok(bytes)
    };
    Ok((end(output)?, String::from_utf8_lossy(&end(complaint)?).into_owned()))
}

/// Two pipes must be emptied at the same time: a command that has filled the one would never get to
/// close the other. The thread ends at the end of the stream, which is there at the latest when the
/// command has been killed.
fn read_in_thread(
    stream: Option<impl Read + Send + 'static>,
    result: mpsc::Sender<io::Result<Vec<u8>>>,
) {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read =
            stream.map_or(Ok(0), |stream| stream.take(MOST as u64 + 1).read_to_end(&mut bytes));
        // Nobody listens any more if the other stream was the first to be too long.
        let _ = result.send(read.map(|_| bytes));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> String {
        output_of(line).unwrap_err().to_string()
    }

    #[test]
    fn output_comes_as_it_is() {
        assert_eq!(output_of("printf 'a\\n\\0b'").unwrap(), b"a\n\0b");
        assert_eq!(output_of("seq 5000").unwrap().len(), 23893);
        // Filling one pipe while the other is being read.
        assert_eq!(output_of("seq 50000 >&2; echo done").unwrap(), b"done\n");
        assert_eq!(answer_of("echo a; echo b >&2; exit 3").unwrap(), b"a\nb\n");
    }

    #[test]
    fn commands_that_are_of_no_use_are_refused_with_a_remedy() {
        assert!(refusal("exit 3").contains("failed: exit status: 3; choose"));
        assert!(refusal("nosuch_command_here").contains("not found"));
        assert!(refusal("true").contains("prints nothing"));
        assert!(refusal("yes").contains("prints more than 1048576 bytes; choose one that ends"));
    }
}
