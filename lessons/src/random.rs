//! Bytes nobody can guess, for challenges and for addresses that nobody else uses.

use std::io;

use rand::TryRng;
use rand::rngs::SysRng;

/// So many bytes from the operating system's generator (getrandom(2)).
pub(crate) fn random<const COUNT: usize>() -> io::Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    SysRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}
