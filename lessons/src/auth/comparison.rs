//! A comparison whose time reveals how much of a guess is right.

use super::mac::{Block, respond};
use super::text;
use crate::random::random;
use crate::stage::{LessonResult, Stage};

pub(super) fn run(stage: &mut Stage, key: &Block) -> LessonResult {
    stage.scene(text::LEAKING_COMPARISON)?;
    stage.say(text::STOPS_AT_DIFFERENCE)?;
    let right = respond(key, &[&random::<32>()?])?; // The attacker does not know it.
    let mut guess: Block = [0; 32];
    let mut guesses = 0;
    let mut admitted = false;
    for position in 0..guess.len() {
        for byte in 0..=255 {
            guess[position] = byte;
            guesses += 1;
            let (equal, compared) = naive_equal(&guess, &right);
            admitted = equal;
            if equal || compared > position + 1 {
                break; // The comparison went further: this byte is right.
            }
        }
    }
    stage.fact(admitted && guess == right, text::guessed(guesses))?;

    let (mut last_wrong, mut first_wrong) = (right, right);
    last_wrong[31] ^= 1;
    first_wrong[0] ^= 1;
    let one = constant_time_equal(&last_wrong, &right);
    let other = constant_time_equal(&first_wrong, &right);
    stage.fact(!one.0 && one == other, text::constant_time(one.1))
}

/// Compares up to the first difference, as memcmp() and == do; returns also how many bytes it
/// compared, which an attacker learns from the time that it takes.
fn naive_equal(one: &Block, other: &Block) -> (bool, usize) {
    match one.iter().zip(other).position(|(one, other)| one != other) {
        Some(index) => (false, index + 1),
        None => (true, one.len()),
    }
}

/// Compares every byte, wherever the first difference is; returns also how many bytes it compared.
fn constant_time_equal(one: &Block, other: &Block) -> (bool, usize) {
    let mut difference = 0;
    let mut compared = 0;
    for (one, other) in one.iter().zip(other) {
        difference |= one ^ other;
        compared += 1;
    }
    (difference == 0, compared)
}
