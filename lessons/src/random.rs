//! Unpredictable bytes, for challenges and for loopback addresses that no other program uses.

use std::io;

use rand::TryRng;
use rand::rngs::SysRng;

/// Returns `COUNT` bytes from the operating system's generator (getrandom(2)).
pub(crate) fn random<const COUNT: usize>() -> io::Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    SysRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}
