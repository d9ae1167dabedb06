//! A picture of a flow in characters.

use crate::flow::{Record, What};
use crate::print::Look;
use crate::words::Language;

/// The lines of the picture.
pub(crate) fn draw(record: &Record, _language: Language, _look: Look) -> Vec<String> {
    let name = |what| match what {
        What::Write => "write",
        What::Segment => "segment",
        What::Read => "read",
    };
    record.steps.iter().map(|step| format!("{} {}..{}", name(step.what), step.start, step.end)).collect()
}
