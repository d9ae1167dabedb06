//! HMAC-SHA256 over the parts of a message.

use std::io;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A key, a challenge or a response. All have this size, so they need no header.
pub(super) type Block = [u8; 32];

/// Returns the response that only a holder of the key can compute.
pub(super) fn respond(key: &Block, parts: &[&[u8]]) -> io::Result<Block> {
    Ok(mac(key, parts)?.finalize().into_bytes().into())
}

/// Returns whether a response is right; compares in constant time.
pub(super) fn is_valid(key: &Block, parts: &[&[u8]], response: &Block) -> io::Result<bool> {
    Ok(mac(key, parts)?.verify_slice(response).is_ok())
}

fn mac(key: &Block, parts: &[&[u8]]) -> io::Result<Hmac<Sha256>> {
    let mut mac = Hmac::new_from_slice(key).map_err(io::Error::other)?;
    parts.iter().for_each(|part| mac.update(part));
    Ok(mac)
}
