//! The house rules that no compiler checks: who may import whom, how long a file may be, and how it begins.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use varve_protocol::mutant::Mutant;

/// Each package of ours and the packages of ours that it may use. Tests may use what the code may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("varve-protocol", &[]),
    ("varve-consensus", &["varve-protocol"]),
    ("varve-storage", &["varve-protocol"]),
    ("varve-transport", &["varve-protocol"]),
    ("varve-replica", &["varve-protocol", "varve-consensus", "varve-storage", "varve-transport"]),
    ("varve-client", &["varve-protocol", "varve-transport"]),
    // The certificates that `varve dev` and `varve cert` make are the transport's, and the ids on its command line the
    // protocol's.
    ("varve", &["varve-replica", "varve-client", "varve-protocol", "varve-transport"]),
    (
        "simulator",
        &[
            "varve-protocol",
            "varve-consensus",
            "varve-storage",
            "varve-transport",
            "varve-replica",
            "varve-client",
        ],
    ),
    ("jepsen", &["varve-client"]),
    ("fuzz", &["varve-protocol", "varve-consensus", "varve-storage"]),
];

const LINES_MAX: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").to_owned()
}

fn parse(path: &Path) -> toml::Table {
    let text = std::fs::read_to_string(path).expect("the manifest can be read");
    text.parse().expect("the manifest is sound")
}

fn members() -> Vec<PathBuf> {
    let manifest = parse(&root().join("Cargo.toml"));
    let members =
        manifest["workspace"]["members"].as_array().expect("the workspace lists its members").clone();
    members.iter().map(|member| root().join(member.as_str().expect("a member is a path"))).collect()
}

/// The packages of ours that a manifest names in any of its tables of dependencies.
fn imports(manifest: &toml::Table) -> BTreeSet<String> {
    let ours: BTreeSet<&str> = ALLOWED.iter().map(|(package, _)| *package).collect();
    let tables = ["dependencies", "dev-dependencies", "build-dependencies"];
    let tables = tables.iter().filter_map(|table| manifest.get(*table)?.as_table());
    let names = tables.flat_map(|table| {
        table.iter().map(|(name, value)| {
            let renamed =
                value.as_table().and_then(|table| table.get("package")).and_then(|name| name.as_str());
            renamed.unwrap_or(name).to_owned()
        })
    });
    names.filter(|name| ours.contains(name.as_str())).collect()
}

#[test]
fn packages_import_only_what_they_may() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for member in members() {
        let manifest = parse(&member.join("Cargo.toml"));
        let package = manifest["package"]["name"].as_str().expect("a package has a name").to_owned();
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package) else {
            wrong.push(format!("{package} is not in the list of this test"));
            continue;
        };
        for import in imports(&manifest) {
            seen += 1;
            if !allowed.contains(&import.as_str()) {
                wrong.push(format!("{package} must not import {import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 10, "the manifests were read: {seen} imports");
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).expect("the folder can be listed");
    for entry in entries {
        let path = entry.expect("the entry can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() && name != "target" {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut found = Vec::new();
    for member in members() {
        sources(&member, &mut found);
    }
    assert!(found.len() > 30, "the sources were found: {}", found.len());
    let mut wrong = Vec::new();
    for path in found {
        let text = std::fs::read_to_string(&path).expect("the source can be read");
        let name = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{name} has {lines} lines; split it below {LINES_MAX}"));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{name} does not begin with `//!` and what it is"));
        }
        if name.ends_with("/mod.rs") {
            wrong.push(format!("{name}: a module is named by its file"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn mutants_are_in_no_release() {
    let mut forwarding = Vec::new();
    for member in members() {
        let manifest = parse(&member.join("Cargo.toml"));
        let package = manifest["package"]["name"].as_str().expect("a package has a name").to_owned();
        let features = manifest.get("features").and_then(toml::Value::as_table).cloned().unwrap_or_default();
        assert!(!features.contains_key("default"), "{package} has default features, which may bring mutants");
        let tables = ["dependencies", "dev-dependencies", "build-dependencies"];
        for table in tables.iter().filter_map(|table| manifest.get(*table)) {
            assert!(!table.to_string().contains("mutants"), "a dependency of {package} switches mutants on");
        }
        forwarding.extend(features.contains_key("mutants").then_some(package));
    }
    let expected = ["varve-protocol", "varve-consensus", "varve-storage", "varve-replica", "simulator"];
    assert_eq!(forwarding, expected, "a release has no feature that brings mutants");
}

/// What cargo makes of a package's features when it is built alone.
fn protocol_features(package: &str) -> BTreeSet<String> {
    let arguments =
        ["tree", "--locked", "--offline", "-p", package, "-e", "normal", "--prefix", "none", "-f", "{p}:{f}"];
    let done = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().expect("cargo runs");
    let text = String::from_utf8(done.stdout).expect("cargo prints text");
    let mut lines = text.lines().filter(|line| line.starts_with("varve-protocol ")).peekable();
    assert!(lines.peek().is_some(), "{package} uses the protocol: {}", String::from_utf8_lossy(&done.stderr));
    let features = lines.filter_map(|line| line.trim_end_matches(" (*)").rsplit_once(':'));
    features
        .flat_map(|(_, features)| features.split(','))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn marks_are_in_no_release() {
    assert_eq!(protocol_features("varve"), BTreeSet::new());
    assert_eq!(protocol_features("jepsen"), BTreeSet::new());
    assert!(protocol_features("simulator").contains("marks"), "the simulator counts them");
}

#[test]
fn every_mutant_is_in_the_table() {
    let table = include_str!("../mutants.md");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
    let expected =
        |mutant: &Mutant| format!("| `{}` | {} | {} | ", mutant.name(), mutant.mistake(), mutant.rule());
    assert_eq!(rows.len(), Mutant::ALL.len(), "a row for each mutant");
    for (row, mutant) in rows.iter().zip(Mutant::ALL) {
        assert!(row.starts_with(&expected(mutant)), "{row}\nshould begin with\n{}", expected(mutant));
        assert!(row.len() > expected(mutant).len() + 2, "{} has no killer", mutant.name());
    }
}
