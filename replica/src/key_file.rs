//! The key file of a node: which keys what it stores is sealed with. What is in it is described with [`varve_storage::Keys`].

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rand::TryRngCore as _;
use rand::rngs::OsRng;
pub use varve_storage::{KEY_SIZE, KeyId, Keys, KeysError};

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot read the key file {}: {source}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is in it are not keys.
    #[error("cannot use the key file {}: {source}", path.display())]
    Content {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        source: KeysError,
    },
    /// The system gives no random bytes, which nonces are made of.
    #[error("the system gives no random bytes: {0}")]
    Entropy(String),
}

/// Reads a key file.
///
/// # Errors
/// When it cannot be read, or a line of it is no key.
pub fn load(path: &Path) -> Result<Keys, KeyFileError> {
    let failed = |source| KeyFileError::Read { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(failed)?;
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "other users of this machine can read the key file; `chmod 600` it");
    }
    let mut entropy = [0; 32];
    OsRng.try_fill_bytes(&mut entropy).map_err(|error| KeyFileError::Entropy(error.to_string()))?;
    Keys::parse(&text, entropy).map_err(|source| KeyFileError::Content { path: path.to_owned(), source })
}
