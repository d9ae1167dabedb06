//! The client, joined with what it embeds.

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use labsh_client::cli::options::{ColorChoice, LessonLanguage, LessonOptions};
use labsh_lessons::{Language, Look, Options, Trouble};

fn main() -> ExitCode {
    labsh_client::cli::main(labsh_client::cli::Embedded {
        server: labsh_server::embedded::prepare,
        lesson: give_lessons,
    })
}

/// What a lesson is given that did not show its phenomenon.
const NOT_SHOWN: u8 = 1;

fn give_lessons(options: LessonOptions) -> anyhow::Result<ExitCode> {
    let language = match options.lang {
        None => Language::of_locale(),
        Some(LessonLanguage::En) => Language::English,
        Some(LessonLanguage::Zh) => Language::Chinese,
    };
    let look = match options.color {
        ColorChoice::Auto => Look::of_stdout(),
        ColorChoice::Always => Look { color: true, ..Look::of_stdout() },
        ColorChoice::Never => Look { color: false, ..Look::of_stdout() },
    };
    let mut stdout = io::stdout().lock();
    let told = "cannot write to standard output";
    if options.names.is_empty() {
        labsh_lessons::list(language, look, &mut stdout).context(told)?;
        return Ok(ExitCode::SUCCESS);
    }
    let lessons = labsh_lessons::chosen(&options.names)?;
    let varied = Options { command: options.command, recv: options.recv, sizes: options.sizes };
    let given = labsh_lessons::give(&lessons, &varied, language, look, &mut stdout).context(told)?;
    let mut status = ExitCode::SUCCESS;
    for given in given {
        match given.outcome {
            Ok(()) => {}
            // Each has been told already where it happened; a wish that cannot be met is wrong use if nothing is worse.
            Err(Trouble::Wish(wish)) if lessons.len() == 1 => return Err(anyhow::anyhow!(wish)),
            Err(_) => status = ExitCode::from(NOT_SHOWN),
        }
    }
    Ok(status)
}
