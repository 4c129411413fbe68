//! Files that reports are kept in.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde::Serialize;

use crate::failure::{Failure, Outcome};

/// Says that a file cannot be written before a run, and not after it.
pub(crate) fn check<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Outcome {
    for path in paths {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            let folder = folder.display();
            return Err(Failure::usage(anyhow!("there is no folder {folder} to keep a report in")));
        }
    }
    Ok(())
}

/// Writes a file.
pub(crate) fn write(path: &Path, text: &str) -> Outcome {
    std::fs::write(path, text)
        .with_context(|| format!("cannot write {}", path.display()))
        .map_err(Failure::refused)
}

/// Writes a document.
pub(crate) fn write_json<T: Serialize>(path: &Path, document: &T) -> Outcome {
    let json = serde_json::to_string_pretty(document).expect("our own structures become JSON");
    write(path, &(json + "\n"))
}
