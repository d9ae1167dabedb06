//! `labsh lesson`: lists the lessons, or runs them in the terminal and writes their pages.

pub(crate) mod options;
mod real_session;

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use labsh_lessons::{
    Language, Lesson, LessonError, LessonReport, Options, OutputFormat, PageTarget,
};

use crate::console::STDOUT;
use crate::lesson::options::LessonOptions;

/// The exit status when a lesson did not show its effect.
const NOT_SHOWN: u8 = 1;

/// Lists the lessons or runs those that are named. Returns the exit status that `labsh lesson
/// --help` documents.
pub(crate) fn execute(options: LessonOptions) -> anyhow::Result<ExitCode> {
    let language = options.lang.unwrap_or_else(Language::of_locale);
    let format = OutputFormat::for_stdout(options.color);
    let mut stdout = io::stdout().lock();
    if options.names.is_empty() {
        labsh_lessons::list_lessons(language, format, &mut stdout).context(STDOUT)?;
        return Ok(ExitCode::SUCCESS);
    }
    let lessons = labsh_lessons::select_lessons(&options.names)?;
    // Checked first, so that a class does not sit through lessons whose page cannot be written.
    let target = options
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
    let reports = labsh_lessons::run_lessons(&lessons, &varied, language, format, &mut stdout)
        .context(STDOUT)?;
    let bad_option =
        matches!(&reports[..], [LessonReport { outcome: Err(LessonError::BadOption(_)), .. }]);
    if let Some(target) = target.filter(|_| !bad_option) {
        target.write(&reports, language)?;
    }
    let mut status = ExitCode::SUCCESS;
    for report in reports {
        match report.outcome {
            Ok(()) => {}
            // Of several lessons, each has printed its own error.
            Err(LessonError::BadOption(text)) if lessons.len() == 1 => {
                return Err(anyhow::anyhow!(text.get(language).to_owned()));
            }
            Err(_) => status = ExitCode::from(NOT_SHOWN),
        }
    }
    Ok(status)
}
