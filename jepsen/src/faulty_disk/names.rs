//! Where the inodes that the kernel knows are in the folder below. A file has the number that it has there; the root is 1.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use fuser::INodeNo;

#[derive(Debug)]
pub(super) struct Names {
    root: PathBuf,
    paths: BTreeMap<u64, PathBuf>,
}

impl Names {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), paths: BTreeMap::new() }
    }

    /// Where an inode is; none if it has been removed.
    pub(super) fn path(&self, inode: INodeNo) -> Option<PathBuf> {
        if inode == INodeNo::ROOT { Some(self.root.clone()) } else { self.paths.get(&inode.0).cloned() }
    }

    /// Where a name in a directory is, or would be.
    pub(super) fn child(&self, parent: INodeNo, name: &OsStr) -> Option<PathBuf> {
        self.path(parent).map(|folder| folder.join(name))
    }

    pub(super) fn found(&mut self, inode: u64, path: PathBuf) {
        self.paths.insert(inode, path);
    }

    pub(super) fn removed(&mut self, path: &Path) {
        self.paths.retain(|_, known| known != path);
    }

    /// A file or directory, and all below it, has another name; what had that name is gone.
    pub(super) fn renamed(&mut self, from: &Path, to: &Path) {
        self.removed(to);
        for known in self.paths.values_mut() {
            if let Ok(rest) = known.strip_prefix(from) {
                *known = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_what_is_renamed_and_removed() {
        let mut names = Names::new(Path::new("/d"));
        for (inode, path) in [(10, "/d/a"), (11, "/d/a/x"), (12, "/d/ab"), (13, "/d/b")] {
            names.found(inode, path.into());
        }
        names.renamed(Path::new("/d/a"), Path::new("/d/b"));
        let path = |names: &Names, inode| names.path(INodeNo(inode)).map(|path| path.display().to_string());
        let all = [1, 10, 11, 12, 13].map(|inode| path(&names, inode));
        let expected = [Some("/d"), Some("/d/b"), Some("/d/b/x"), Some("/d/ab"), None];
        assert_eq!(all, expected.map(|path| path.map(str::to_owned)));
        assert_eq!(names.child(INodeNo(10), OsStr::new("y")), Some("/d/b/y".into()));
        names.removed(Path::new("/d/ab"));
        assert_eq!(path(&names, 12), None);
    }
}
