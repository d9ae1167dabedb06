//! `labsh lesson`: lists the lessons, or gives them in the terminal and as pages.

pub(crate) mod options;
mod real_session;

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use labsh_lessons::{
    Language, Lesson, LessonError, LessonReport, Options, OutputFormat, PageTarget,
};

use crate::lesson::options::LessonOptions;

/// The exit status when a lesson did not show what it is about.
const NOT_SHOWN: u8 = 1;

/// Lists the lessons or gives those that are named, and returns the exit status that
/// `labsh lesson --help` documents.
pub(crate) fn execute(options: LessonOptions) -> anyhow::Result<ExitCode> {
    let language = options.lang.unwrap_or_else(Language::of_locale);
    let format = OutputFormat::for_stdout(options.color);
    let mut stdout = io::stdout().lock();
    let told = "cannot write to standard output";
    if options.names.is_empty() {
        labsh_lessons::list_lessons(language, format, &mut stdout).context(told)?;
        return Ok(ExitCode::SUCCESS);
    }
    let lessons = labsh_lessons::select_lessons(&options.names)?;
    // Whether it can be written is better known before a class has sat through the lessons.
    let place = options
        .html
        .as_deref()
        .map(|path| PageTarget::prepare(path, lessons.len() > 1))
        .transpose()?;
    let watches = lessons.iter().any(Lesson::needs_real_session);
    let real_session =
        watches.then(real_session::start).transpose().context("cannot start a labshd to watch")?;
    let varied = Options {
        command: options.command,
        recv: options.recv,
        sizes: options.sizes,
        real_session,
    };
    let given = labsh_lessons::run_lessons(&lessons, &varied, language, format, &mut stdout)
        .context(told)?;
    let wish = matches!(&given[..], [LessonReport { outcome: Err(LessonError::BadOption(_)), .. }]);
    if let Some(place) = place.filter(|_| !wish) {
        place.write(&given, language)?;
    }
    let mut status = ExitCode::SUCCESS;
    for given in given {
        match given.outcome {
            Ok(()) => {}
            // Of several lessons each has told already what went wrong; the only one leaves its
            // refusal to us.
            Err(LessonError::BadOption(wish)) if lessons.len() == 1 => {
                return Err(anyhow::anyhow!(wish.get(language).to_owned()));
            }
            Err(_) => status = ExitCode::from(NOT_SHOWN),
        }
    }
    Ok(status)
}
