//! Bytes from the operating system's generator.

use rand::TryRng;
use rand::rngs::SysRng;

/// So many bytes nobody can guess (getrandom(2)).
///
/// # Panics
/// Where the operating system has no randomness to give: going on would be worse.
pub fn bytes<const COUNT: usize>() -> [u8; COUNT] {
    let mut bytes = [0; COUNT];
    SysRng.try_fill_bytes(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
