//! `varve key`: a new key for what nodes store, in a key file.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use varve_replica::key_file::{KEY_SIZE, Keys};

use crate::context::Context;
use crate::entropy::draw;
use crate::failure::{Failure, Outcome};
use crate::output;

/// What `varve key` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The key file, as `storage.key_file` names it; it is made if it is not there
    file: PathBuf,
}

#[derive(Serialize)]
struct Added {
    file: PathBuf,
    key: String,
    /// Keys before it.
    older: usize,
}

/// Adds a key.
pub(crate) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let path = &arguments.file;
    let mut text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("cannot read {}", path.display())).map_err(Failure::usage)?,
    };
    let entropy: [u8; 32] = draw()?;
    let older = text.lines().filter(|line| !line.split('#').next().unwrap_or("").trim().is_empty()).count();
    if older > 0 {
        Keys::parse(&text, entropy)
            .with_context(|| format!("cannot use {}", path.display()))
            .map_err(Failure::usage)?;
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let secret: [u8; KEY_SIZE] = draw()?;
    text.extend(secret.iter().map(|byte| format!("{byte:02x}")));
    text.push('\n');
    let keys = Keys::parse(&text, entropy).map_err(Failure::refused)?;
    replace(path, &text)
        .with_context(|| format!("cannot write {}", path.display()))
        .map_err(Failure::usage)?;
    let key = keys.newest().map(|key| key.to_string()).unwrap_or_default();
    output::print(context.output, &Added { file: path.clone(), key, older }, |added| {
        let Added { file, key, older } = added;
        let kept = match older {
            0 => "Name it as `storage.key_file` in the configuration, or with `varve dev --key-file`"
                .to_owned(),
            _ => format!(
                "The {} before it stay, for what was written with them",
                output::counted(*older, "key")
            ),
        };
        format!(
            "key {key} is the newest in {}. {kept}; a node writes with it from its next start on. Keep a copy of the file: \
             without it, what is stored is lost\n",
            file.display()
        )
    })
}

/// Writes a file for its owner alone, whole or not at all.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
