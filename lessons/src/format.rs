//! The width, the colours and the text styles of printed output.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// When output is coloured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Also into a file or a pipe.
    Always,
    /// Plain text.
    Never,
}

impl FromStr for ColorChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err("write auto, always or never".to_owned()),
        }
    }
}

/// The width and the colours of printed output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputFormat {
    /// Columns per line.
    pub width: usize,
    /// Whether to print colours (ECMA-48, from the palette of 256).
    pub color: bool,
}

/// Columns of output that is not a terminal if `COLUMNS` is not set.
const DEFAULT_COLUMNS: u16 = 80;

/// Bounds of the width: narrower pictures show nothing, wider text is hard to read.
const COLUMN_BOUNDS: RangeInclusive<u16> = 40..=200;

impl OutputFormat {
    /// Returns the format of stdout: as wide as its terminal, else as `COLUMNS` says, else 80
    /// columns.
    pub fn for_stdout(color: ColorChoice) -> Self {
        let columns = || variable("COLUMNS").and_then(|columns| columns.to_str()?.parse().ok());
        let terminal = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0);
        let width = terminal.filter(|width| *width > 0).or_else(columns).unwrap_or(DEFAULT_COLUMNS);
        let color = match color {
            ColorChoice::Auto => stdout_shows_color(),
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        };
        Self { width: width.clamp(*COLUMN_BOUNDS.start(), *COLUMN_BOUNDS.end()).into(), color }
    }
}

/// Whether stdout is a terminal with colours and `NO_COLOR` is not set.
fn stdout_shows_color() -> bool {
    let dumb = variable("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !dumb && variable("NO_COLOR").is_none()
}

/// An environment variable that is set and not empty.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// How a piece of text is emphasised.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Style {
    Title,
    Scene,
    Label,
    Notice,
    Good,
    Bad,
    Faint,
}

impl Style {
    /// The SGR parameters (ECMA-48 8.3.117); each is readable on light and on dark backgrounds.
    fn parameters(self) -> &'static str {
        match self {
            Style::Title => "1;7",
            Style::Scene => "1;4",
            Style::Label => "1",
            Style::Notice => "1;35",
            Style::Good => "32",
            Style::Bad => "1;31",
            Style::Faint => "2",
        }
    }

    /// Returns the text in this style, or unchanged if the format has no colours.
    pub(crate) fn apply(self, text: &str, format: OutputFormat) -> String {
        if format.color && !text.is_empty() {
            format!("\x1b[{}m{text}\x1b[0m", self.parameters())
        } else {
            text.to_owned()
        }
    }
}
