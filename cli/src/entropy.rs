//! Random bytes from the system, for identities and keys.

use anyhow::anyhow;
use rand::TryRngCore as _;
use rand::rngs::OsRng;

use crate::failure::{Failure, Outcome};

/// Draws bytes that nobody can guess.
pub(crate) fn draw<const N: usize>() -> Outcome<[u8; N]> {
    let mut bytes = [0; N];
    match OsRng.try_fill_bytes(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(Failure::refused(anyhow!("the system gives no random bytes: {error}"))),
    }
}
