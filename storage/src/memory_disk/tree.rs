//! The names of a simulated disk. Each directory has its durable names and a list of changes since its last sync; a
//! crash applies any subset of the changes, in their order, to the durable names.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::inode::Inode;

const ROOT: u64 = 0;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    File(u64),
    Dir(u64),
}

#[derive(Clone)]
enum Change {
    Link(String, Node),
    Unlink(String),
    Rename(String, String, Node),
}

#[derive(Clone, Default)]
struct Directory {
    names: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
    changes: Vec<Change>,
}

impl Directory {
    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    fn sync(&mut self) {
        self.changes.clear();
        self.durable = self.names.clone();
    }
}

fn apply(names: &mut BTreeMap<String, Node>, change: &Change) {
    match change {
        Change::Link(name, node) => {
            names.insert(name.clone(), *node);
        }
        Change::Unlink(name) => {
            names.remove(name);
        }
        Change::Rename(from, to, node) => {
            names.remove(from);
            names.insert(to.clone(), *node);
        }
    }
}

/// All names and files of a simulated disk.
#[derive(Clone)]
pub(super) struct Tree {
    directories: BTreeMap<u64, Directory>,
    inodes: BTreeMap<u64, Inode>,
    next_number: u64,
}

impl Default for Tree {
    fn default() -> Self {
        let directories = BTreeMap::from([(ROOT, Directory::default())]);
        Self { directories, inodes: BTreeMap::new(), next_number: ROOT + 1 }
    }
}

impl Tree {
    pub(super) fn inode(&self, number: u64) -> &Inode {
        self.inodes.get(&number).expect("an open file keeps its bytes")
    }

    pub(super) fn inode_mut(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).expect("an open file keeps its bytes")
    }

    pub(super) fn used(&self) -> u64 {
        let named = self.directories.values().flat_map(|directory| directory.names.values());
        named
            .map(|node| match node {
                Node::File(number) => self.inode(*number).size(),
                Node::Dir(_) => 0,
            })
            .sum()
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let mut number = ROOT;
        for name in names_of(path)? {
            number = match self.directory(number).names.get(&name) {
                Some(Node::Dir(next)) => *next,
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => {
                    let next = self.take_number();
                    self.directories.insert(next, Directory::default());
                    self.directory_mut(number).change(Change::Link(name, Node::Dir(next)));
                    next
                }
            };
        }
        Ok(())
    }

    pub(super) fn find_file(&self, path: &Path) -> io::Result<u64> {
        let (parent, name) = self.split(path)?;
        match self.directory(parent).names.get(&name) {
            Some(Node::File(number)) => Ok(*number),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<u64> {
        let (parent, name) = self.split(path)?;
        if self.directory(parent).names.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = self.take_number();
        self.inodes.insert(number, Inode::default());
        self.directory_mut(parent).change(Change::Link(name, Node::File(number)));
        Ok(number)
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        Ok(self.directory(self.find_dir(path)?).names.keys().cloned().collect())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let number = self.find_file(from)?;
        let (parent, from_name) = self.split(from)?;
        let (to_parent, to_name) = self.split(to)?;
        if parent != to_parent {
            return Err(io::Error::other("simulated disk: renames stay in their directory"));
        }
        self.directory_mut(parent).change(Change::Rename(from_name, to_name, Node::File(number)));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.find_file(path)?;
        let (parent, name) = self.split(path)?;
        self.directory_mut(parent).change(Change::Unlink(name));
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        if !self.directory(self.find_dir(path)?).names.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (parent, name) = self.split(path)?;
        self.directory_mut(parent).change(Change::Unlink(name));
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let number = self.find_dir(path)?;
        self.directory_mut(number).sync();
        Ok(())
    }

    pub(super) fn sync_all(&mut self) {
        self.directories.values_mut().for_each(Directory::sync);
        self.inodes.values_mut().for_each(Inode::sync);
    }

    /// No name is durable, and the pages of all files are clean now without having been written.
    pub(super) fn fail_sync_all(&mut self) {
        self.inodes.values_mut().for_each(Inode::fail_sync);
    }

    /// Draws what survives, and drops what nothing names any more.
    pub(super) fn crash(&mut self, rng: &mut ChaCha8Rng) {
        for directory in self.directories.values_mut() {
            let survival = [0.0, 0.5, 1.0][rng.random_range(0..3)];
            for change in std::mem::take(&mut directory.changes) {
                if rng.random_bool(survival) {
                    apply(&mut directory.durable, &change);
                }
            }
            directory.names = directory.durable.clone();
        }
        let (directories, files) = self.reachable();
        self.directories.retain(|number, _| directories.contains(number));
        self.inodes.retain(|number, _| files.contains(number));
        for inode in self.inodes.values_mut() {
            inode.crash(rng);
        }
    }

    fn reachable(&self) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let mut directories = BTreeSet::from([ROOT]);
        let mut files = BTreeSet::new();
        let mut to_visit = vec![ROOT];
        while let Some(number) = to_visit.pop() {
            for node in self.directory(number).names.values() {
                match node {
                    Node::File(file) => {
                        files.insert(*file);
                    }
                    Node::Dir(dir) => {
                        directories.insert(*dir);
                        to_visit.push(*dir);
                    }
                }
            }
        }
        (directories, files)
    }

    fn find_dir(&self, path: &Path) -> io::Result<u64> {
        let mut number = ROOT;
        for name in names_of(path)? {
            number = match self.directory(number).names.get(&name) {
                Some(Node::Dir(next)) => *next,
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => return Err(io::ErrorKind::NotFound.into()),
            };
        }
        Ok(number)
    }

    /// The directory a path is in, and its name there.
    fn split(&self, path: &Path) -> io::Result<(u64, String)> {
        let parent = self.find_dir(path.parent().unwrap_or(Path::new("")))?;
        let name = names_of(path)?.pop().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((parent, name))
    }

    fn directory(&self, number: u64) -> &Directory {
        self.directories.get(&number).expect("a named directory exists")
    }

    fn directory_mut(&mut self, number: u64) -> &mut Directory {
        self.directories.get_mut(&number).expect("a named directory exists")
    }

    fn take_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }
}

fn names_of(path: &Path) -> io::Result<Vec<String>> {
    let name = |component| match component {
        Component::Normal(name) => Ok(name.to_string_lossy().into_owned()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
            Err(io::ErrorKind::InvalidInput.into())
        }
    };
    path.components().map(name).collect()
}
