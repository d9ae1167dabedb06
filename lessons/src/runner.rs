//! Selects lessons by name and runs them one after the other.

use std::io::{self, Write};

use crate::format::OutputFormat;
use crate::language::Language;
use crate::options::Options;
use crate::print::Printer;
use crate::stage::{Item, LessonError, LessonResult, Stage};
use crate::{LESSONS, Lesson};

/// No lesson has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no lesson {name}; {}", match .nearest {
    Some(nearest) => format!("did you mean {nearest}?"),
    None => format!("there are: {}", names()),
})]
pub struct UnknownLesson {
    /// The name, as it was written.
    pub name: String,
    /// The lesson with the most similar name.
    pub nearest: Option<&'static str>,
}

fn names() -> String {
    LESSONS.iter().map(|lesson| lesson.name).collect::<Vec<_>>().join(", ")
}

/// How similar a name must be to a lesson's to count as a misspelling of it (Jaro-Winkler, 0 to 1).
const MIN_SIMILARITY: f64 = 0.75;

/// How many bytes of a lesson's name suffice to recognise the lesson.
const MIN_PART_LENGTH: usize = 3;

/// Returns the lessons with these names, in this order; `all` stands for every lesson.
pub fn select_lessons(names: &[String]) -> Result<Vec<Lesson>, UnknownLesson> {
    let mut lessons = Vec::new();
    for name in names {
        if name == "all" {
            lessons.extend_from_slice(LESSONS);
        } else if let Some(lesson) = LESSONS.iter().find(|lesson| lesson.name == name) {
            lessons.push(*lesson);
        } else {
            return Err(UnknownLesson {
                name: name.clone(),
                nearest: nearest(&name.to_lowercase()),
            });
        }
    }
    Ok(lessons)
}

/// Returns the lesson whose name contains `name`, or else the most similar one.
fn nearest(name: &str) -> Option<&'static str> {
    let containing =
        LESSONS.iter().find(|lesson| name.len() >= MIN_PART_LENGTH && lesson.name.contains(name));
    let similarity = |lesson: &&Lesson| strsim::jaro_winkler(lesson.name, name);
    let similar = || {
        let most =
            LESSONS.iter().max_by(|one, other| similarity(one).total_cmp(&similarity(other)));
        most.filter(|lesson| similarity(lesson) >= MIN_SIMILARITY)
    };
    containing.or_else(similar).map(|lesson| lesson.name)
}

/// What a lesson showed and how it ended.
#[derive(Debug)]
pub struct LessonReport {
    /// The lesson.
    pub lesson: Lesson,
    /// Everything that it showed, up to its end or its failure.
    pub items: Vec<Item>,
    /// How it ended.
    pub outcome: LessonResult,
}

/// Runs lessons and prints them while they run.
///
/// A lesson that fails is reported, and the next one follows. The refusal of an option by the only
/// lesson is not printed: it is for the caller to report.
///
/// # Errors
/// Only those of `out`; the reports say how each lesson ended.
pub fn run_lessons(
    lessons: &[Lesson],
    options: &Options,
    language: Language,
    format: OutputFormat,
    out: &mut dyn Write,
) -> io::Result<Vec<LessonReport>> {
    let mut printer = Printer::new(language, format, out);
    let mut reports = Vec::new();
    for lesson in lessons {
        printer.title(lesson)?;
        // A lesson ends when it cannot be printed; that is not a failure of its own.
        let mut print_error = None;
        let mut print = |item: &Item| {
            printer.item(item).map_err(|error| {
                let kind = error.kind();
                print_error = Some(error);
                io::Error::from(kind)
            })
        };
        let mut stage = Stage::new(options, &mut print);
        let outcome = (lesson.run)(&mut stage);
        let items = stage.items().to_vec();
        if let Some(error) = print_error {
            return Err(error);
        }
        if lessons.len() > 1 || !matches!(outcome, Err(LessonError::BadOption(_))) {
            printer.outcome(&outcome)?;
        }
        reports.push(LessonReport { lesson: *lesson, items, outcome });
    }
    if reports.len() > 1 {
        let failed = reports.iter().filter(|report| report.outcome.is_err());
        let failed: Vec<&str> = failed.map(|report| report.lesson.name).collect();
        printer.summary(reports.len(), &failed)?;
    }
    Ok(reports)
}
