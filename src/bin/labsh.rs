//! The client, joined with what it embeds.

#[path = "../heap.rs"]
mod heap;
#[path = "../real_session.rs"]
mod real_session;

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use labsh_client::cli::lesson_options::{ColorChoice, LessonLanguage, LessonOptions};
use labsh_client::proto::auth::Mode;
use labsh_lessons::{Given, Language, Lesson, Look, Options, Place, Trouble};

#[global_allocator]
static HEAP: heap::Spaced = heap::Spaced;

fn main() -> ExitCode {
    labsh_client::cli::main(labsh_client::cli::Embedded {
        server: |key| Ok(Box::pin(labsh_server::embedded::prepare(key, Mode::Tls)?)),
        lesson: give_lessons,
    })
}

/// The exit status when a lesson did not show what it is about.
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
    // Whether it can be written is better known before a class has sat through the lessons.
    let place =
        options.html.as_deref().map(|path| Place::new(path, lessons.len() > 1)).transpose()?;
    let watches = lessons.iter().any(Lesson::watches_a_session);
    let real =
        watches.then(real_session::start).transpose().context("cannot start a labshd to watch")?;
    let varied =
        Options { command: options.command, recv: options.recv, sizes: options.sizes, real };
    let given =
        labsh_lessons::give(&lessons, &varied, language, look, &mut stdout).context(told)?;
    let wish = matches!(&given[..], [Given { outcome: Err(Trouble::Wish(_)), .. }]);
    if let Some(place) = place.filter(|_| !wish) {
        place.write(&given, language)?;
    }
    let mut status = ExitCode::SUCCESS;
    for given in given {
        match given.outcome {
            Ok(()) => {}
            // Of several lessons each has told already what went wrong; the only one leaves its
            // refusal to us.
            Err(Trouble::Wish(wish)) if lessons.len() == 1 => {
                return Err(anyhow::anyhow!(wish.of(language).to_owned()));
            }
            Err(_) => status = ExitCode::from(NOT_SHOWN),
        }
    }
    Ok(status)
}
