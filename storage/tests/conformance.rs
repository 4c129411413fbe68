//! What every disk promises, asked of each implementation.

use std::io::ErrorKind;
use std::path::Path;

use bytes::Bytes;
use tempfile::TempDir;
use varve_storage::{Disk, DiskFile, FileDisk, MemoryDisk, OpenMode, OverlayDisk};

#[test]
fn a_file_disk_conforms() {
    let dir = TempDir::new().unwrap();
    conforms(&FileDisk::open(dir.path().to_owned()).unwrap());
}

#[test]
fn a_memory_disk_conforms() {
    conforms(&MemoryDisk::new());
}

#[test]
fn an_overlay_conforms_and_leaves_the_directory_as_it_is() {
    let dir = TempDir::new().unwrap();
    conforms(&OverlayDisk::over(dir.path().to_owned()));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    conforms(&FileDisk::open(dir.path().to_owned()).unwrap());
    let bytes = || std::fs::read(dir.path().join("bytes")).unwrap();
    let before = bytes();
    let overlay = OverlayDisk::over(dir.path().to_owned());
    let file = overlay.open(Path::new("bytes"), OpenMode::Existing).unwrap();
    file.write_at(&["over".into()], 8).unwrap();
    file.set_size(500).unwrap();
    let mut read = vec![0; 600];
    assert_eq!(file.read_at(&mut read, 0).unwrap(), 500);
    assert_eq!((&read[..8], &read[8..12], &read[12..500]), (&before[..8], &b"over"[..], &before[12..500]));
    overlay.remove(Path::new("sizes")).unwrap();
    overlay.rename(Path::new("made"), Path::new("named")).unwrap();
    assert_eq!(overlay.list(Path::new("")).unwrap(), ["LOCK", "bytes", "named", "names"]);
    assert!(bytes() == before && dir.path().join("sizes").exists() && dir.path().join("made").exists());
}

fn conforms<D: Disk>(disk: &D) {
    files_are_made_once_and_found(disk);
    bytes_are_read_back(disk);
    sizes_change(disk);
    names_change(disk);
    directories_come_and_go(disk);
    disk.sync_all().unwrap();
    what_need_not_be_kept_in_memory_is_still_there(disk);
}

fn what_need_not_be_kept_in_memory_is_still_there<D: Disk>(disk: &D) {
    let file = disk.open(Path::new("bytes"), OpenMode::Existing).unwrap();
    let read = || {
        let mut bytes = vec![0; 600];
        let count = file.read_at(&mut bytes, 0).unwrap();
        (count, bytes)
    };
    let before = read();
    file.drop_cached(0, 0);
    file.drop_cached(10, 100);
    file.drop_cached(1 << 40, 100);
    assert!(read() == before);
}

fn files_are_made_once_and_found<D: Disk>(disk: &D) {
    let path = Path::new("made");
    assert_eq!(kind(disk.open(path, OpenMode::Existing)), ErrorKind::NotFound);
    let file = disk.open(path, OpenMode::CreateNew).unwrap();
    assert_eq!(file.size().unwrap(), 0);
    assert_eq!(kind(disk.open(path, OpenMode::CreateNew)), ErrorKind::AlreadyExists);
    assert!(disk.open(path, OpenMode::Existing).is_ok());
    assert_eq!(kind(disk.open(Path::new("nowhere/made"), OpenMode::CreateNew)), ErrorKind::NotFound);
}

fn bytes_are_read_back<D: Disk>(disk: &D) {
    let file = disk.open(Path::new("bytes"), OpenMode::CreateNew).unwrap();
    let chunks = [&b""[..], b"one", b"", b"two", b"three", b""].map(Bytes::from_static);
    file.write_at(&chunks, 1000).unwrap();
    let mut buffer = [9; 20];
    assert_eq!(file.read_at(&mut buffer, 998).unwrap(), 13, "a read is short at the end of the file");
    assert_eq!(&buffer[..13], b"\0\0onetwothree", "a gap reads as zeros");
    assert_eq!(file.read_at(&mut buffer, 5000).unwrap(), 0);
    file.write_at(&["X".into()], 1003).unwrap();
    assert_eq!(file.read_at(&mut buffer, 1000).unwrap(), 11);
    assert_eq!(&buffer[..11], b"oneXwothree");
    let many: Vec<Bytes> = (0..300_u16).map(|at| Bytes::copy_from_slice(&at.to_le_bytes())).collect();
    file.write_at(&many, 0).unwrap();
    let mut all = [0; 600];
    assert_eq!(file.read_at(&mut all, 0).unwrap(), 600);
    assert_eq!(all[..], many.concat());
    file.write_at(&[], 90_000).unwrap();
    assert_eq!(file.size().unwrap(), 1011, "to write nothing changes nothing");
    file.sync().unwrap();
    let again = disk.open(Path::new("bytes"), OpenMode::Existing).unwrap();
    assert_eq!(again.read_at(&mut all, 0).unwrap(), 600);
    assert_eq!(all[..], many.concat());
}

fn sizes_change<D: Disk>(disk: &D) {
    let file = disk.open(Path::new("sizes"), OpenMode::CreateNew).unwrap();
    file.write_at(&[Bytes::from(vec![7; 2000])], 0).unwrap();
    file.set_size(700).unwrap();
    assert_eq!(file.size().unwrap(), 700);
    file.set_size(1500).unwrap();
    let mut buffer = [1; 2000];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 1500);
    assert_eq!(buffer[..700], [7; 700]);
    assert_eq!(buffer[700..1500], [0; 800], "what was cut off does not come back");
    file.sync().unwrap();
}

fn names_change<D: Disk>(disk: &D) {
    let dir = Path::new("names");
    disk.create_dir(dir).unwrap();
    disk.create_dir(dir).unwrap();
    for (name, text) in [("b", "first"), ("c", "second"), ("a", "third")] {
        let file = disk.open(&dir.join(name), OpenMode::CreateNew).unwrap();
        file.write_at(&[text.into()], 0).unwrap();
    }
    assert_eq!(disk.list(dir).unwrap(), ["a", "b", "c"]);
    let open = disk.open(&dir.join("b"), OpenMode::Existing).unwrap();
    disk.rename(&dir.join("b"), &dir.join("c")).unwrap();
    assert_eq!(disk.list(dir).unwrap(), ["a", "c"]);
    assert_eq!(kind(disk.rename(&dir.join("b"), &dir.join("d"))), ErrorKind::NotFound);
    let mut buffer = [0; 5];
    disk.open(&dir.join("c"), OpenMode::Existing).unwrap().read_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"first", "a rename replaces");
    open.write_at(&["F".into()], 0).unwrap();
    disk.remove(&dir.join("a")).unwrap();
    assert_eq!(kind(disk.remove(&dir.join("a"))), ErrorKind::NotFound);
    disk.remove(&dir.join("c")).unwrap();
    assert_eq!(open.read_at(&mut buffer, 0).unwrap(), 5, "an open file outlives its name");
    for size in [5, 9 << 20] {
        disk.open(&dir.join("e"), OpenMode::CreateNew).unwrap().set_size(size).unwrap();
        disk.discard(&dir.join("e")).unwrap();
        assert_eq!(kind(disk.discard(&dir.join("e"))), ErrorKind::NotFound);
    }
    assert_eq!(disk.list(dir).unwrap(), [""; 0]);
    disk.sync_dir(dir).unwrap();
}

fn directories_come_and_go<D: Disk>(disk: &D) {
    let (parent, child) = (Path::new("parent"), Path::new("parent/child"));
    assert_eq!(kind(disk.list(parent)), ErrorKind::NotFound);
    assert_eq!(kind(disk.sync_dir(parent)), ErrorKind::NotFound);
    disk.create_dir(child).unwrap();
    disk.sync_dir(parent).unwrap();
    assert_eq!(disk.list(parent).unwrap(), ["child"]);
    assert_eq!(kind(disk.remove_dir(parent)), ErrorKind::DirectoryNotEmpty);
    disk.remove_dir(child).unwrap();
    disk.remove_dir(parent).unwrap();
    assert_eq!(kind(disk.remove_dir(parent)), ErrorKind::NotFound);
    assert!(disk.list(Path::new("")).unwrap().contains(&"names".to_owned()));
}

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    result.err().expect("the disk refuses this").kind()
}
