//! An early fix for 粘包: send the length, wait until the peer has acknowledged it, then send the
//! data.

mod protocol;
mod text;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use crate::flow::{Flow, StepKind};
use crate::shell::{answer_of, output_of};
use crate::sockets::{TO_CLIENT, TO_SERVER, joined, pair, queued, wait_until};
use crate::stage::{LessonError, LessonResult, Stage};
use protocol::{Client, READY, digest, number, serve};

pub(crate) fn run(stage: &mut Stage) -> LessonResult {
    with_acknowledgement(stage)?;
    without_waiting(stage)?;
    acknowledgement_sticks(stage)
}

fn with_acknowledgement(stage: &mut Stage) -> LessonResult {
    stage.scene(text::WITH_ACKNOWLEDGEMENT)?;
    let first = stage.options().command.clone().unwrap_or_else(|| "ls -l /usr/bin".to_owned());
    output_of(&first)?; // Refuses an unsuitable command before the lesson goes on.
    let commands = [first.as_str(), "seq 5", "pwd"];
    let (client, server) = pair()?;
    let (to_server, to_client) = (Flow::new(TO_SERVER), Flow::new(TO_CLIENT));
    let (answers, sent, round_trips) = thread::scope(|scope| {
        let serving = scope.spawn(|| serve(&server, &to_server, &to_client));
        let mut client = Client::new(&client, &to_server, &to_client);
        let answers: Result<Vec<_>, _> =
            commands.iter().map(|command| client.ask(command)).collect();
        client.socket.shutdown(Shutdown::Write)?; // The server's recv() returns 0, and it ends.
        let sent = joined(serving.join())?;
        Ok::<_, LessonError>((answers?, sent?, client.round_trips))
    })?;

    stage.say(text::HOW_IT_WORKS)?;
    stage.draw(&to_client)?;
    stage.draw(&to_server)?;
    let steps = to_client.record().steps;
    let reads = steps.iter().filter(|step| step.kind == StepKind::Read).count();
    stage.say(text::first_answer(answers[0].len(), &digest(&answers[0]), reads))?;
    let whole = answers.iter().map(|answer| digest(answer)).eq(sent);
    stage.fact(whole, text::ANSWERS_WHOLE)?;
    stage.notice(text::TWO_WAITS)?;
    stage.fact(round_trips == 2 * commands.len(), text::round_trips(commands.len(), round_trips))
}

fn without_waiting(stage: &mut Stage) -> LessonResult {
    stage.scene(text::WITHOUT_WAITING)?;
    let data = answer_of("seq 3")?;
    let (client, server) = pair()?;
    let flow = Flow::new(TO_CLIENT);
    let length = data.len().to_string();
    flow.message(text::LENGTH);
    flow.writer(&server).write_all(length.as_bytes())?;
    flow.message(text::DATA);
    flow.writer(&server).write_all(&data)?;
    let total = length.len() + data.len();
    wait_until(text::BOTH_ARRIVED, || Ok(queued(&client)? == total))?;
    let mut buffer = [0; 1024];
    let count = flow.reader(&client).read(&mut buffer)?;
    let digits = buffer[..count].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let parsed = number(&buffer[..digits]).unwrap_or(0);

    stage.show(text::LENGTH_EXPECTED, &buffer[..count])?;
    stage.draw(&flow)?;
    stage.notice(text::wrong_number(&length, parsed))?;
    let missing = parsed.saturating_sub(data.len());
    stage.fact(count == total && parsed != data.len(), text::waits_in_vain(parsed, missing))
}

fn acknowledgement_sticks(stage: &mut Stage) -> LessonResult {
    stage.scene(text::ACKNOWLEDGEMENT_STICKS)?;
    let (client, server) = pair()?;
    let flow = Flow::new(TO_SERVER);
    flow.message("ready");
    flow.writer(&client).write_all(READY)?;
    // To save time, this client sends its next command at once.
    flow.message(text::NEXT_COMMAND);
    flow.writer(&client).write_all(b"pwd")?;
    wait_until(text::BOTH_ARRIVED, || Ok(queued(&server)? == READY.len() + 3))?;
    let mut buffer = [0; 1024];
    let count = flow.reader(&server).read(&mut buffer)?;

    stage.show(text::READY_EXPECTED, &buffer[..count])?;
    stage.draw(&flow)?;
    stage.fact(
        &buffer[..count] != READY && buffer[..count].starts_with(READY),
        text::SAME_PROBLEM,
    )?;
    stage.say(text::FIXED_SIZE_NEEDED)
}
