//! Random bytes from the operating system's generator.

use rand::TryRng;
use rand::rngs::SysRng;

/// Returns unpredictable bytes, fit for keys and nonces (getrandom(2)).
///
/// # Panics
/// If the operating system has no random bytes: a predictable key would be worse.
pub fn bytes<const COUNT: usize>() -> [u8; COUNT] {
    let mut bytes = [0; COUNT];
    SysRng.try_fill_bytes(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
