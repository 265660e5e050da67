//! The file operations that a local backend is made of, and nothing else of the file system.
//!
//! A seam, because what matters here is the order of these calls: tests run the same code over a
//! scripted file system that forgets on a power cut whatever was not synced.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use base::Timestamp;
use rustix::fs::OFlags;

/// Objects are the operator's, not every local user's.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// What is asked about a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) kind: EntryKind,
    pub(super) size: u64,
    pub(super) modified: Timestamp,
}

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Directory,
    Other,
}

/// A file system.
pub(super) trait FileSystem: Send + Sync {
    /// Creates a file that does not exist yet.
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>>;

    /// Opens a file for reading; it stays readable when it is removed.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn OpenFile>>;

    fn stat(&self, path: &Path) -> io::Result<Stat>;

    /// Gives a file another name, atomically; a file of that name is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name, atomically, which no file may have.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    fn make_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Calls back for each entry whose name is UTF-8; others are not ours.
    fn read_dir(&self, path: &Path, each: &mut dyn FnMut(&str, EntryKind)) -> io::Result<()>;

    /// Makes the entries of a directory survive a power cut.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// A file that is being written.
pub(super) trait NewFile: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes the bytes survive a power cut.
    fn sync(&self) -> io::Result<()>;
}

/// A file that is being read.
pub(super) trait OpenFile: Send + Sync {
    fn stat(&self) -> io::Result<Stat>;

    /// Fills the buffer from `offset` on, or fails.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Disk;

fn stat_of(metadata: &fs::Metadata) -> Stat {
    let kind = match (metadata.is_file(), metadata.is_dir()) {
        (true, _) => EntryKind::File,
        (_, true) => EntryKind::Directory,
        (false, false) => EntryKind::Other,
    };
    let millis = metadata.mtime().saturating_mul(1000) + metadata.mtime_nsec() / 1_000_000;
    Stat {
        device: metadata.dev(),
        inode: metadata.ino(),
        kind,
        size: metadata.len(),
        modified: Timestamp::from_millis(millis),
    }
}

/// Opens what is there without waiting for anybody: a FIFO in a file's place would hold the thread
/// until somebody writes to it. Links are followed, for operators move large files elsewhere.
fn open_at_once(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

impl FileSystem for Disk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(FILE_MODE);
        Ok(Box::new(options.open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn OpenFile>> {
        Ok(Arc::new(open_at_once(path)?))
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        Ok(stat_of(&fs::metadata(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(DIRECTORY_MODE).create(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn read_dir(&self, path: &Path, each: &mut dyn FnMut(&str, EntryKind)) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let kind = match (kind.is_file(), kind.is_dir()) {
                (true, _) => EntryKind::File,
                (_, true) => EntryKind::Directory,
                (false, false) => EntryKind::Other,
            };
            if let Some(name) = entry.file_name().to_str() {
                each(name, kind);
            }
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        open_at_once(path)?.sync_all()
    }
}

impl NewFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl OpenFile for File {
    fn stat(&self) -> io::Result<Stat> {
        Ok(stat_of(&self.metadata()?))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}
