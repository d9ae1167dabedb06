//! The options of `labsh lesson`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use labsh_lessons::{ColorChoice, Language};

/// The closing part of `labsh lesson --help`.
pub(crate) const AFTER_HELP: &str = "\
Examples:
  labsh lesson                               all lessons, a line each
  labsh lesson sticky                        one of them
  labsh lesson sticky --command 'seq 5000' --recv 256
  labsh lesson all --lang zh                 one after the other, in Chinese

Exit status:
  0    everything that was promised showed itself
  1    a lesson did not show what it is about
  125  wrong use, or a command that is of no use in this lesson";

/// See the sticky-packet problem (粘包) and its fix on real sockets
#[derive(Debug, Clone, Args)]
pub(crate) struct LessonOptions {
    /// The lessons, in this order, or `all`; without any they are listed
    #[arg(value_name = "LESSON", help_heading = "Arguments")]
    pub names: Vec<String>,
    /// The language [default: the locale's]
    #[arg(long, value_name = "en|zh", hide_possible_values = true)]
    #[arg(value_parser = one_of::<Language, 2>(["en", "zh"]))]
    pub(crate) lang: Option<Language>,
    /// The command whose output is sent in sticky, length-first, fixed-header and wire: one line
    /// for /bin/sh
    #[arg(long, value_name = "COMMAND", value_parser = command_line)]
    pub command: Option<String>,
    /// How many bytes a naive program reads at once, in sticky
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = read_size)]
    pub recv: Option<NonZeroUsize>,
    /// The sizes of the small messages in sticky, in bytes: 5,7,100
    #[arg(long, value_name = "SIZES", value_delimiter = ',', value_parser = message_size)]
    pub sizes: Vec<NonZeroUsize>,
    /// Write a page that shows the lesson in a browser; of several lessons one each, into a
    /// directory, with an index
    #[arg(long, value_name = "PATH", requires = "names")]
    pub html: Option<PathBuf>,
    /// Colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "auto|always|never", default_value = "auto")]
    #[arg(hide_possible_values = true)]
    #[arg(value_parser = one_of::<ColorChoice, 3>(["auto", "always", "never"]))]
    pub color: ColorChoice,
}

/// The maximum size of a read in a lesson, in bytes; a larger one would show nothing more.
const MAX_READ_SIZE: usize = 1 << 20;

/// The maximum size of a small message, in bytes.
const MAX_MESSAGE_SIZE: usize = 4096;

/// The maximum length of a command in bytes; a lesson's server takes it with one read.
const MAX_COMMAND_LENGTH: usize = 1000;

/// Returns a parser that accepts one of these words, which completions offer.
fn one_of<T, const N: usize>(words: [&'static str; N]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = String> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(words).try_map(|word| word.parse::<T>())
}

fn read_size(text: &str) -> Result<NonZeroUsize, String> {
    bounded(
        text,
        MAX_READ_SIZE,
        "a read of 0 bytes returns 0, which looks like the end of the connection",
    )
}

fn message_size(text: &str) -> Result<NonZeroUsize, String> {
    bounded(
        text,
        MAX_MESSAGE_SIZE,
        "an empty message puts nothing on the wire; `labsh lesson loop` shows that one",
    )
}

fn bounded(text: &str, most: usize, why_not_zero: &str) -> Result<NonZeroUsize, String> {
    let number: usize =
        text.parse().map_err(|_| format!("write a number of bytes from 1 to {most}"))?;
    match NonZeroUsize::new(number) {
        None => Err(format!("{why_not_zero}; write 1 or more")),
        Some(size) if number <= most => Ok(size),
        Some(_) => Err(format!("that is more than {most}")),
    }
}

fn command_line(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err(
            "it is empty; write a command that prints something, such as 'seq 5000'".to_owned()
        );
    }
    if text.contains('\n') || text.len() > MAX_COMMAND_LENGTH {
        return Err(format!(
            "it is not one line of at most {MAX_COMMAND_LENGTH} bytes; put it into a script"
        ));
    }
    Ok(text.to_owned())
}
