//! `varve cert`: the authority of a cluster, and a certificate for each of its nodes. Makes what is missing and never
//! overwrites anything.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use serde::Serialize;
use varve_replica::config::ClusterConfig;
use varve_transport::authority::Authority;

use crate::context::Context;
use crate::entropy::draw;
use crate::failure::{Failure, Outcome};
use crate::output;

/// What `varve cert` takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The cluster's configuration
    #[arg(long, value_name = "FILE", default_value = "cluster.toml")]
    config: PathBuf,
}

/// The files that were made, and those that were there already.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Made {
    made: Vec<PathBuf>,
    kept: Vec<PathBuf>,
}

/// Makes certificates.
pub(crate) fn run(context: &Context, arguments: &Arguments) -> Outcome {
    let config = ClusterConfig::load(&arguments.config)?;
    let made = make_missing(&config)?;
    output::print(context.output, &made, |made| {
        let lines = |verb: &str, paths: &[PathBuf]| -> String {
            paths.iter().map(|path| format!("{verb} {}\n", path.display())).collect()
        };
        lines("kept", &made.kept) + &lines("made", &made.made)
    })
}

/// Makes the certificates and keys that a configuration names and that do not exist yet.
pub(crate) fn make_missing(config: &ClusterConfig) -> Outcome<Made> {
    let mut made = Made::default();
    let authority = authority(config, &mut made)?;
    for node in &config.nodes {
        match (exists(&node.cert)?, exists(&node.key)?) {
            (true, true) => made.kept.extend([node.cert.clone(), node.key.clone()]),
            (false, false) => {
                let issued = authority.issue(node.id, draw()?).map_err(Failure::refused)?;
                write_new(&node.key, &issued.key_pem, SECRET)?;
                write_new(&node.cert, &issued.certificate_pem, PUBLIC)?;
                made.made.extend([node.cert.clone(), node.key.clone()]);
            }
            (true, false) => return Err(half(&node.cert, &node.key)),
            (false, true) => return Err(half(&node.key, &node.cert)),
        }
    }
    Ok(made)
}

/// The authority's key stands beside its certificate.
fn key_of(ca: &Path) -> PathBuf {
    ca.with_extension("key")
}

/// The authority of the cluster. Its certificate follows from its key and the cluster id.
fn authority(config: &ClusterConfig, made: &mut Made) -> Outcome<Authority> {
    let (ca, key) = (config.ca.clone(), key_of(&config.ca));
    if exists(&ca)? && !exists(&key)? {
        return Err(half(&ca, &key));
    }
    let authority = if exists(&key)? {
        made.kept.push(key.clone());
        Authority::from_key_pem(config.cluster_id, &read(&key)?)
            .map_err(|error| Failure::usage(error).context(format!("cannot use {}", key.display())))?
    } else {
        let authority = Authority::from_seed(config.cluster_id, draw()?).map_err(Failure::refused)?;
        write_new(&key, &authority.key_pem(), SECRET)?;
        made.made.push(key.clone());
        authority
    };
    let certificate = authority.certificate_pem().map_err(Failure::refused)?;
    if !exists(&ca)? {
        write_new(&ca, &certificate, PUBLIC)?;
        made.made.push(ca);
    } else if read(&ca)? == certificate {
        made.kept.push(ca);
    } else {
        return Err(Failure::usage(anyhow!(
            "{} was not made by {} for cluster {}: bring the right ones, or take both away to get new ones",
            ca.display(),
            key.display(),
            config.cluster_id
        )));
    }
    Ok(authority)
}

fn half(there: &Path, missing: &Path) -> Failure {
    let (there, missing) = (there.display(), missing.display());
    Failure::usage(anyhow!(
        "{there} exists, but {missing} does not: bring it back, or take both away to get new ones"
    ))
}

fn exists(path: &Path) -> Outcome<bool> {
    path.try_exists().with_context(|| format!("cannot look for {}", path.display())).map_err(Failure::usage)
}

fn read(path: &Path) -> Outcome<String> {
    fs::read_to_string(path)
        .with_context(|| format!("cannot read {}", path.display()))
        .map_err(Failure::usage)
}

const PUBLIC: u32 = 0o644;
const SECRET: u32 = 0o600;

/// Writes a file that must not exist, with its folder if need be.
fn write_new(path: &Path, content: &str, mode: u32) -> Outcome {
    let write = || -> std::io::Result<()> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content.as_bytes())
    };
    write().with_context(|| format!("cannot write {}", path.display())).map_err(Failure::usage)
}
