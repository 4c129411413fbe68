//! What the kernel asks of the file system, answered from the folder below. No more than a node needs of one: files and
//! directories, no links, owners or times.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, DirEntryExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::control::Control;
use super::names::Names;
use super::unsynced::Change;

/// The kernel asks again each time: the harness changes the folder below by itself.
const KEPT_FOR: Duration = Duration::ZERO;

/// Reads and writes come here, and not from the kernel's memory.
const DIRECT: FopenFlags = FopenFlags::FOPEN_DIRECT_IO;

#[derive(Debug)]
struct Listed {
    inode: u64,
    kind: FileType,
    name: std::ffi::OsString,
}

#[derive(Clone, Debug)]
enum Open {
    File { inode: u64, file: Arc<File> },
    Directory(Arc<[Listed]>),
}

#[derive(Debug)]
struct State {
    names: Names,
    open: BTreeMap<u64, Open>,
    next: u64,
}

/// The file system of one disk.
#[derive(Debug)]
pub(super) struct Passthrough {
    control: Arc<Control>,
    state: Mutex<State>,
}

impl Passthrough {
    pub(super) fn new(root: &Path, control: Arc<Control>) -> Self {
        let state = State { names: Names::new(root), open: BTreeMap::new(), next: 1 };
        Self { control, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, inode: INodeNo) -> io::Result<PathBuf> {
        self.state().names.path(inode).ok_or_else(not_found)
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        self.state().names.child(parent, name).ok_or_else(not_found)
    }

    fn keep_open(&self, open: Open) -> FileHandle {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.open.insert(number, open);
        FileHandle(number)
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        match self.state().open.get(&handle.0) {
            Some(Open::File { file, .. }) => Ok(file.clone()),
            Some(Open::Directory(_)) | None => Err(rustix::io::Errno::BADF.into()),
        }
    }

    /// A file that somebody has open, also if it was removed since, or at its path.
    fn file_of(&self, inode: INodeNo) -> io::Result<Arc<File>> {
        let is_it = |open: &Open| match open {
            Open::File { inode: own, file } if *own == inode.0 => Some(file.clone()),
            Open::File { .. } | Open::Directory(_) => None,
        };
        if let Some(file) = self.state().open.values().find_map(is_it) {
            return Ok(file);
        }
        let path = self.path(inode)?;
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let path = self.child(parent, name)?;
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(self.found(path, &metadata)),
            Err(error) => {
                self.state().names.removed(&path);
                Err(error)
            }
        }
    }

    fn found(&self, path: PathBuf, metadata: &Metadata) -> FileAttr {
        self.state().names.found(metadata.ino(), path);
        attributes(metadata.ino(), metadata)
    }

    fn look(&self, inode: INodeNo) -> io::Result<FileAttr> {
        let at_path = self.path(inode).and_then(fs::symlink_metadata);
        let metadata = at_path.or_else(|_| self.file_of(inode)?.metadata())?;
        Ok(attributes(inode.0, &metadata))
    }

    fn resize(&self, inode: INodeNo, size: u64) -> io::Result<()> {
        let file = self.file_of(inode)?;
        self.control.before_change(&file, Change::Resize { size })?;
        file.set_len(size)
    }

    fn make_dir(&self, parent: INodeNo, name: &OsStr, mode: u32) -> io::Result<FileAttr> {
        let path = self.child(parent, name)?;
        fs::DirBuilder::new().mode(mode).create(&path)?;
        let metadata = fs::symlink_metadata(&path)?;
        Ok(self.found(path, &metadata))
    }

    fn make_file(&self, parent: INodeNo, name: &OsStr, mode: u32) -> io::Result<(FileAttr, FileHandle)> {
        let path = self.child(parent, name)?;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(mode).open(&path)?;
        let metadata = file.metadata()?;
        let found = self.found(path, &metadata);
        let open = Open::File { inode: metadata.ino(), file: Arc::new(file) };
        Ok((found, self.keep_open(open)))
    }

    fn open_file(&self, inode: INodeNo) -> io::Result<FileHandle> {
        let file = OpenOptions::new().read(true).write(true).open(self.path(inode)?)?;
        Ok(self.keep_open(Open::File { inode: inode.0, file: Arc::new(file) }))
    }

    fn open_dir(&self, inode: INodeNo) -> io::Result<FileHandle> {
        let mut listed = Vec::new();
        for entry in fs::read_dir(self.path(inode)?)? {
            let entry = entry?;
            let kind = if entry.file_type()?.is_dir() { FileType::Directory } else { FileType::RegularFile };
            listed.push(Listed { inode: entry.ino(), kind, name: entry.file_name() });
        }
        Ok(self.keep_open(Open::Directory(listed.into())))
    }

    fn rename_file(&self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr)) -> io::Result<()> {
        let (from, to) = (self.child(from.0, from.1)?, self.child(to.0, to.1)?);
        fs::rename(&from, &to)?;
        self.state().names.renamed(&from, &to);
        Ok(())
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, by: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
        let path = self.child(parent, name)?;
        by(&path)?;
        self.state().names.removed(&path);
        Ok(())
    }

    fn read_file(&self, handle: FileHandle, position: u64, size: u32) -> io::Result<Vec<u8>> {
        self.control.before_read();
        let file = self.file(handle)?;
        let mut bytes = vec![0; size as usize];
        let mut length = 0;
        while length < bytes.len() {
            match file.read_at(&mut bytes[length..], position + length as u64)? {
                0 => break,
                count => length += count,
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    fn write_file(&self, handle: FileHandle, position: u64, data: &[u8]) -> io::Result<u32> {
        let file = self.file(handle)?;
        self.control.before_change(&file, Change::Write { position, data })?;
        file.write_all_at(data, position)?;
        u32::try_from(data.len()).map_err(io::Error::other)
    }

    fn sync_file(&self, handle: FileHandle) -> io::Result<()> {
        let file = self.file(handle)?;
        self.control.before_sync(&file)?;
        file.sync_data()?;
        self.control.after_sync(&file)
    }

    fn sync_dir(&self, inode: INodeNo) -> io::Result<()> {
        let directory = File::open(self.path(inode)?)?;
        self.control.before_sync(&directory)?;
        directory.sync_all()
    }
}

fn not_found() -> io::Error {
    rustix::io::Errno::NOENT.into()
}

fn attributes(inode: u64, metadata: &Metadata) -> FileAttr {
    let time = |time: io::Result<SystemTime>| time.unwrap_or(UNIX_EPOCH);
    FileAttr {
        ino: INodeNo(inode),
        size: metadata.len(),
        blocks: metadata.blocks(),
        atime: time(metadata.accessed()),
        mtime: time(metadata.modified()),
        ctime: time(metadata.modified()),
        crtime: UNIX_EPOCH,
        kind: if metadata.is_dir() { FileType::Directory } else { FileType::RegularFile },
        perm: u16::try_from(metadata.mode() & 0o7777).unwrap_or(0o700),
        nlink: u32::try_from(metadata.nlink()).unwrap_or(u32::MAX),
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Answers what has no content.
fn reply_to(done: io::Result<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.into()),
    }
}

fn reply_entry(found: io::Result<FileAttr>, reply: ReplyEntry) {
    match found {
        Ok(attributes) => reply.entry(&KEPT_FOR, &attributes, Generation(0)),
        Err(error) => reply.error(error.into()),
    }
}

fn reply_attributes(found: io::Result<FileAttr>, reply: ReplyAttr) {
    match found {
        Ok(attributes) => reply.attr(&KEPT_FOR, &attributes),
        Err(error) => reply.error(error.into()),
    }
}

impl Filesystem for Passthrough {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        reply_entry(self.find(parent, name), reply);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply_attributes(self.look(inode), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let done = size.map_or(Ok(()), |size| self.resize(inode, size));
        reply_attributes(done.and_then(|()| self.look(inode)), reply);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        reply_entry(self.make_dir(parent, name, mode), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_to(self.remove(parent, name, |path| fs::remove_file(path)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_to(self.remove(parent, name, |path| fs::remove_dir(path)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply_to(self.rename_file((parent, name), (new_parent, new_name)), reply);
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.open_file(inode) {
            Ok(handle) => reply.opened(handle, DIRECT),
            Err(error) => reply.error(error.into()),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.make_file(parent, name, mode) {
            Ok((attributes, handle)) => {
                reply.created(&KEPT_FOR, &attributes, Generation(0), handle, DIRECT);
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn read(
        &self,
        _: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        position: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read_file(handle, position, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        position: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.write_file(handle, position, data) {
            Ok(count) => reply.written(count),
            Err(error) => reply.error(error.into()),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.state().open.remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply_to(self.sync_file(handle), reply);
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.open_dir(inode) {
            Ok(handle) => reply.opened(handle, FopenFlags::empty()),
            Err(error) => reply.error(error.into()),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Some(Open::Directory(listed)) = self.state().open.get(&handle.0).cloned() else {
            return reply.error(Errno::EBADF);
        };
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, entry) in (1..).zip(&*listed).skip(skipped) {
            if reply.add(INodeNo(entry.inode), next, entry.kind, &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.state().open.remove(&handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply_to(self.sync_dir(inode), reply);
    }

    fn statfs(&self, _: &Request, inode: INodeNo, reply: ReplyStatfs) {
        let path = self.path(inode).unwrap_or_default();
        match rustix::fs::statvfs(&path) {
            Ok(all) => {
                let (block, fragment) = (narrow(all.f_bsize), narrow(all.f_frsize));
                let name_max = narrow(all.f_namemax);
                reply.statfs(
                    all.f_blocks,
                    all.f_bfree,
                    all.f_bavail,
                    all.f_files,
                    all.f_ffree,
                    block,
                    name_max,
                    fragment,
                );
            }
            Err(error) => reply.error(io::Error::from(error).into()),
        }
    }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
