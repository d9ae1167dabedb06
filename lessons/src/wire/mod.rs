//! A real session of labsh, message by message, through a proxy that chops its bytes up or glues
//! them together.

mod meaning;
mod proxy;
mod text;

use labsh_proto::frame::Kind;
use sha2::{Digest, Sha256};

use crate::flow::{Flow, StepKind};
use crate::real_session::{CommandOutput, RealSession};
use crate::shell::output_of;
use crate::stage::{LessonError, LessonResult, Stage};
use proxy::{Forwarding, watch};

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    let Some(session) = &stage.options().real_session else {
        return Err(LessonError::bad_option(text::NO_SESSION));
    };
    let line = stage.options().command.clone().unwrap_or_else(|| "seq 3".to_owned());
    output_of(&line)?; // Refuses an unsuitable command before the lesson begins.
    let output = as_it_comes(stage, session, &line)?;
    stage.scene(text::CHOPPED)?;
    changed(stage, session, &line, &output, Forwarding::SingleBytes)?;
    stage.scene(text::GLUED)?;
    changed(stage, session, &line, &output, Forwarding::LargeBlocks)?;
    stage.notice(text::HEADERS_SUFFICE)
}

/// Shows the session with every message explained; returns what labsh received.
fn as_it_comes(
    stage: &mut Stage,
    session: &RealSession,
    line: &str,
) -> Result<CommandOutput, LessonError> {
    stage.scene(text::MESSAGE_BY_MESSAGE)?;
    stage.say(text::plain_mode(line))?;
    let watched = watch(session, line, Forwarding::AsItComes)?;
    let (messages, output) = (&watched.messages, watched.output);
    let open = messages.iter().take_while(|message| message.frame.kind != Kind::Open).count();
    let (log_in, command) = messages.split_at(open);
    stage.list(text::LOG_IN, meaning::table(log_in))?;
    stage.list(text::COMMAND, meaning::table(command))?;
    stage.show(text::OUTPUT, &output.stdout)?;
    stage.draw(&watched.to_labshd)?;
    stage.draw(&watched.to_labsh)?;
    stage.notice(text::PROOFS_FIRST)?;
    let count = |kind| messages.iter().filter(|message| message.frame.kind == kind).count();
    stage.fact(
        count(Kind::Open) == 1
            && count(Kind::Exit) == 1
            && proxy::stdout_of(messages) == output.stdout,
        text::bodies_are_output(messages.len(), output.stdout.len()),
    )?;
    Ok(output)
}

/// Runs the same command again through a proxy that forwards its bytes in other pieces.
fn changed(
    stage: &mut Stage,
    session: &RealSession,
    line: &str,
    expected: &CommandOutput,
    forwarding: Forwarding,
) -> LessonResult {
    let watched = watch(session, line, forwarding)?;
    stage.draw(&watched.to_labshd)?;
    stage.draw(&watched.to_labsh)?;
    let messages = watched.to_labsh.record().messages.len();
    let pieces = piece_sizes(&watched.to_labsh);
    let largest = pieces.iter().copied().max().unwrap_or(0);
    let holds = match forwarding {
        Forwarding::SingleBytes => largest == 1 && pieces.len() > messages,
        Forwarding::AsItComes | Forwarding::LargeBlocks => pieces.len() < messages,
    };
    stage.fact(holds, text::forwarded(messages, pieces.len(), largest as usize))?;
    let stdout = &watched.output.stdout;
    let unchanged = proxy::stdout_of(&watched.messages) == *stdout;
    if unchanged && watched.output != *expected {
        // labshd itself sent something else than before.
        return Err(LessonError::bad_option(text::not_repeatable(line)));
    }
    let digest: String =
        Sha256::digest(stdout)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    stage.fact(unchanged, text::same_result(stdout.len(), &digest))
}

/// Returns the sizes of the pieces that the proxy forwarded.
fn piece_sizes(flow: &Flow) -> Vec<u64> {
    let steps = flow.record().steps;
    let pieces = steps.iter().filter(|step| step.kind == StepKind::Read);
    pieces.map(|step| step.end - step.start).collect()
}
