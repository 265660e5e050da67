//! The directory itself: where things lie, in what order they are made durable, and what is swept.
//!
//! All of this blocks and runs on blocking threads. The layout below the root:
//!
//! * the paths of [`super::names`]: one file per object;
//! * `.s3o-tmp/`: files that are being written, emptied at start;
//! * `.s3o-uploads/<id>`: one file per open upload, removed last when it ends;
//! * `.s3o-parts/<id>/<number>`: parts, of open uploads and of the objects assembled from them;
//! * `.s3o-trash/<id>`: assembled objects that were deleted and whose parts are being removed.
//!
//! Every write is: temporary file, fdatasync, rename, fsync of the directory and of every directory
//! above it that is not known to be durable.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{BackendKey, Clock as _, SystemClock, Timestamp, report};
use parking_lot::{Mutex, RwLock};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tracing::warn;

use super::failure::LocalError;
use super::files::{EntryKind, FileSystem, NewFile, OpenFile};
use super::names;
use super::parts::Readers;
use super::record::{BytesAt, Record, TAIL_BYTES, Tail};
use crate::{Kind, MARKER_KEY};

pub(super) const TEMPORARY: &str = ".s3o-tmp";
pub(super) const UPLOADS: &str = ".s3o-uploads";
pub(super) const PARTS: &str = ".s3o-parts";
pub(super) const TRASH: &str = ".s3o-trash";

/// How often a write makes its directories again because deletes pruned them meanwhile.
const PLACE_ATTEMPTS_MAX: u32 = 100;

/// How many directories are remembered as durable; beyond that all are forgotten, which costs
/// some fsyncs and nothing else.
const DURABLE_DIRECTORIES_MAX: usize = 65_536;

/// Which file system the root was on when it was first seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileSystemId {
    device: u64,
    inode: u64,
}

/// Whether a root on another file system than before is taken as the new truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    /// It must be the one that was seen before.
    Keep,
    /// It carries a marker, which the caller is about to check.
    Learn,
}

/// What a look at the root found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RootState {
    /// The root, which may be used.
    Root,
    /// Another directory in its place, without a marker.
    Stranger,
}

/// The directories whose own entries are known to survive a power cut. `forgotten` counts removals,
/// so that a slow writer does not remember one that was pruned behind its back.
#[derive(Debug, Default)]
struct Durable {
    directories: HashSet<PathBuf>,
    forgotten: u64,
}

/// A directory that holds objects.
pub(super) struct LocalStore {
    pub(super) files: Arc<dyn FileSystem>,
    pub(super) root: PathBuf,
    identity: Mutex<Option<FileSystemId>>,
    durable: RwLock<Durable>,
    pub(super) readers: Mutex<HashMap<String, Readers>>,
    /// One lock per upload that is being changed, so that a late part cannot slip into an object
    /// that was assembled meanwhile.
    uploads: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    rng: Mutex<StdRng>,
    owners: Owners,
}

/// Who writes to a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owners {
    /// This process alone.
    One,
    /// Others too: what they write is not swept away, and what they may have pruned is not trusted to be
    /// durable.
    Several,
}

/// What becomes of a file that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// It is replaced.
    Replace,
    /// It stays, and nothing is named.
    Create,
}

impl Naming {
    /// Why a file did not get its name.
    fn failure(self, error: io::Error) -> LocalError {
        use io::ErrorKind as Io;
        match (self, error.kind()) {
            (Self::Create, Io::AlreadyExists) => LocalError::new(Kind::Precondition),
            // File systems without hard links say it in one of these words (FAT: not permitted).
            (Self::Create, Io::Unsupported | Io::PermissionDenied | Io::CrossesDevices) => {
                LocalError::saying(Kind::Unsupported, "this file system has no hard links")
            }
            (Self::Create | Self::Replace, _) => LocalError::harmless(error),
        }
    }
}

/// A temporary file of this age belongs to nobody any more, where several processes write: no body takes
/// so long.
const ABANDONED_MS: i64 = 24 * 3600 * 1000;

/// A file that was opened, and what it says of itself.
pub(super) struct OpenedFile {
    pub(super) file: Arc<dyn OpenFile>,
    pub(super) record: Record,
    pub(super) modified: Timestamp,
}

impl LocalStore {
    pub(super) fn new(files: Arc<dyn FileSystem>, root: PathBuf, owners: Owners) -> Self {
        Self {
            owners,
            files,
            root,
            identity: Mutex::new(None),
            durable: RwLock::default(),
            readers: Mutex::default(),
            uploads: Mutex::default(),
            rng: Mutex::new(StdRng::from_os_rng()),
        }
    }

    pub(super) fn absolute(&self, path: &Path) -> PathBuf {
        match path.as_os_str().is_empty() {
            true => self.root.clone(),
            false => self.root.join(path),
        }
    }

    /// Checks that the root is there and the one that it was; sweeps it when it is first seen.
    ///
    /// An unmounted disk leaves an empty directory of another file system behind: nothing may be
    /// written there, and its emptiness must not be taken for missing objects.
    pub(super) fn ready(&self, root: Root) -> Result<(), LocalError> {
        let stat = match self.files.stat(&self.root) {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LocalError::saying(
                    Kind::Unavailable,
                    "the directory is not there",
                ));
            }
            Err(error) => return Err(LocalError::harmless(error)),
        };
        if stat.kind != EntryKind::Directory {
            return Err(LocalError::saying(
                Kind::Unavailable,
                "the path is not a directory",
            ));
        }
        let seen = FileSystemId {
            device: stat.device,
            inode: stat.inode,
        };
        let mut identity = self.identity.lock();
        match (*identity, root) {
            (Some(known), _) if known == seen => Ok(()),
            (Some(_), Root::Keep) => Err(LocalError::saying(
                Kind::Unavailable,
                "another file system or directory has taken the place of this one",
            )),
            (None, _) | (Some(_), Root::Learn) => {
                self.sweep();
                let mut durable = self.durable.write();
                durable.directories.clear();
                durable.forgotten += 1;
                *identity = Some(seen);
                Ok(())
            }
        }
    }

    /// Looks at the root anew before its marker is read. Another directory that took its place is taken
    /// as the new truth only if it carries a marker: until somebody has judged that there is none,
    /// writes that are under way must not end on the empty directory below a lost mount.
    pub(super) fn learn(&self) -> Result<RootState, LocalError> {
        let Err(moved) = self.ready(Root::Keep) else {
            return Ok(RootState::Root);
        };
        let marker = self.absolute(Path::new(&names::path_of(MARKER_KEY)));
        match self.files.stat(&marker) {
            Ok(_) => self.ready(Root::Learn).map(|()| RootState::Root),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let root = self.files.stat(&self.root);
                match root.is_ok_and(|root| root.kind == EntryKind::Directory) {
                    true => Ok(RootState::Stranger),
                    false => Err(moved),
                }
            }
            Err(_) => Err(moved),
        }
    }

    /// Removes what a crash left. What cannot be removed (a read-only mount) is only reported: reads
    /// still work.
    fn sweep(&self) {
        for name in self.names_in(Path::new(TEMPORARY)).unwrap_or_default() {
            let path = self.absolute(&Path::new(TEMPORARY).join(name));
            if self.is_in_use(&path) {
                continue;
            }
            if let Err(error) = self.files.remove(&path) {
                warn!(root = %self.root.display(), error = report(&error).to_string(),
                    "could not remove temporary file");
            }
        }
        for upload in self.names_in(Path::new(TRASH)).unwrap_or_default() {
            self.empty_trash(&upload);
        }
    }

    /// Whether another process may be writing a temporary file.
    fn is_in_use(&self, path: &Path) -> bool {
        match self.owners {
            Owners::One => false,
            Owners::Several => self.files.stat(path).is_ok_and(|stat| {
                SystemClock.now().millis() - stat.modified.millis() < ABANDONED_MS
            }),
        }
    }

    /// The names in a directory; none where it does not exist.
    pub(super) fn names_in(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        match self
            .files
            .read_dir(&self.absolute(directory), &mut |name, _| {
                names.push(name.to_owned());
            }) {
            Ok(()) => Ok(names),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(names),
            Err(error) => Err(error),
        }
    }

    /// A name that nothing else has.
    pub(super) fn draw(&self) -> String {
        format!("{:032x}", self.rng.lock().random::<u128>())
    }

    /// Begins a temporary file.
    pub(super) fn temporary(self: &Arc<Self>) -> Result<Temporary, LocalError> {
        self.ready(Root::Keep)?;
        let path = self.absolute(&Path::new(TEMPORARY).join(self.draw()));
        let file = match self.files.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_directories(Path::new(TEMPORARY))
                    .map_err(LocalError::harmless)?;
                self.files.create(&path)
            }
            created => created,
        };
        let file = file.map_err(LocalError::harmless)?;
        Ok(Temporary {
            store: Arc::clone(self),
            path,
            file,
            placed: false,
        })
    }

    /// Makes a directory and those above it, but never the root itself.
    fn make_directories(&self, directory: &Path) -> io::Result<()> {
        let mut path = self.root.clone();
        for component in directory.components() {
            path.push(component);
            match self.files.make_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives a synced temporary file its name, durably; a file of that name is replaced.
    pub(super) fn place(&self, mut file: Temporary, target: &Path) -> Result<(), LocalError> {
        let directory = target.parent().unwrap_or(Path::new("")).to_owned();
        let named = self.name(Naming::Replace, &file.path, &directory, target)?;
        file.placed = true;
        self.keep_name(&directory, named)
    }

    /// Gives a synced temporary file a name that no file has, durably: `Kind::Precondition` where one
    /// has it, whoever made it. The temporary name goes with the value.
    pub(super) fn place_new(&self, file: Temporary, target: &Path) -> Result<(), LocalError> {
        let directory = target.parent().unwrap_or(Path::new("")).to_owned();
        let named = self.name(Naming::Create, &file.path, &directory, target)?;
        self.keep_name(&directory, named)
    }

    /// Makes a name in a directory survive a power cut.
    fn keep_name(
        &self,
        directory: &Path,
        (known, forgotten): (bool, u64),
    ) -> Result<(), LocalError> {
        self.files
            .sync_dir(&self.absolute(directory))
            .map_err(LocalError::unsure)?;
        if !known {
            self.make_durable(directory, forgotten)
                .map_err(LocalError::unsure)?;
        }
        Ok(())
    }

    /// Names a file in a directory that is made if need be, and tells whether that directory was
    /// known to be durable at that moment. From then on it is not empty, so it cannot be pruned.
    fn name(
        &self,
        naming: Naming,
        from: &Path,
        directory: &Path,
        target: &Path,
    ) -> Result<(bool, u64), LocalError> {
        let target = self.absolute(target);
        for _ in 0..PLACE_ATTEMPTS_MAX {
            {
                let durable = self.durable.read();
                let named = match naming {
                    Naming::Replace => self.files.rename(from, &target),
                    Naming::Create => self.files.link(from, &target),
                };
                match named {
                    Ok(()) => {
                        let remembered =
                            self.owners == Owners::One && durable.directories.contains(directory);
                        let known = directory.as_os_str().is_empty() || remembered;
                        return Ok((known, durable.forgotten));
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(naming.failure(error)),
                }
            }
            match self.make_directories(directory) {
                Ok(()) => {}
                // Pruned while it was being made: once more.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.ready(Root::Keep)?;
                }
                Err(error) => return Err(LocalError::harmless(error)),
            }
        }
        Err(LocalError::saying(
            Kind::Unavailable,
            "the directory is removed again and again",
        ))
    }

    /// Syncs every directory above that is not known to be durable, and remembers them all.
    fn make_durable(&self, directory: &Path, forgotten: u64) -> io::Result<()> {
        let mut fresh = Vec::new();
        let mut path = directory;
        while let Some(parent) = path.parent() {
            let remembered = self.durable.read().directories.contains(path);
            if remembered && self.owners == Owners::One {
                break;
            }
            self.files.sync_dir(&self.absolute(parent))?;
            fresh.push(path.to_owned());
            path = parent;
        }
        let mut durable = self.durable.write();
        if durable.forgotten != forgotten {
            return Ok(());
        }
        if durable.directories.len() + fresh.len() > DURABLE_DIRECTORIES_MAX {
            durable.directories.clear();
        }
        durable.directories.extend(fresh);
        Ok(())
    }

    /// Removes a directory if it is empty; whether it did.
    pub(super) fn drop_directory(&self, directory: &Path) -> bool {
        let mut durable = self.durable.write();
        if self.files.remove_dir(&self.absolute(directory)).is_err() {
            return false;
        }
        durable.directories.remove(directory);
        durable.forgotten += 1;
        true
    }

    /// Removes the empty directories from here upwards. Not synced: an empty directory that comes
    /// back after a power cut harms nobody.
    fn prune(&self, directory: &Path) {
        let mut path = directory;
        while !path.as_os_str().is_empty() && self.drop_directory(path) {
            path = path.parent().unwrap_or(Path::new(""));
        }
    }

    /// Opens a file and reads its record; `None` where there is no such file.
    pub(super) fn open(&self, path: &Path) -> Result<Option<OpenedFile>, LocalError> {
        let file = match self.files.open(&self.absolute(path)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LocalError::harmless(error)),
        };
        let stat = file.stat().map_err(LocalError::harmless)?;
        if stat.kind == EntryKind::Other {
            return Err(LocalError::saying(Kind::Corrupt, "this is no regular file"));
        }
        let foreign =
            || LocalError::saying(Kind::Corrupt, "the file does not end in a whole record");
        let tail_at = stat
            .size
            .checked_sub(TAIL_BYTES as u64)
            .ok_or_else(foreign)?;
        let mut tail = [0; TAIL_BYTES];
        file.read_at(&mut tail, tail_at)
            .map_err(LocalError::harmless)?;
        let tail = Tail::decode(&tail).ok_or_else(foreign)?;
        let record_at = tail_at
            .checked_sub(tail.record_bytes as u64)
            .ok_or_else(foreign)?;
        let mut bytes = vec![0; tail.record_bytes];
        file.read_at(&mut bytes, record_at)
            .map_err(LocalError::harmless)?;
        let record = tail
            .proves(&bytes)
            .then(|| Record::decode(&bytes))
            .flatten()
            .ok_or_else(foreign)?;
        match record.bytes_here() == record_at {
            true => Ok(Some(OpenedFile {
                file,
                record,
                modified: stat.modified,
            })),
            false => Err(foreign()),
        }
    }

    /// Opens the object under a key.
    pub(super) fn open_object(&self, key: &BackendKey) -> Result<OpenedFile, LocalError> {
        self.ready(Root::Keep)?;
        self.open(Path::new(&names::path_of(key.as_str())))?
            .ok_or_else(|| LocalError::new(Kind::NotFound))
    }

    /// Deletes objects, durably: an object that came back after a power cut would be bytes that
    /// nobody accounts for. So an absent one is synced too, for an earlier attempt may have failed
    /// behind its unlink.
    pub(super) fn delete(&self, keys: &[BackendKey]) -> Vec<Result<(), LocalError>> {
        let mut outcomes = Vec::with_capacity(keys.len());
        let mut directories: HashMap<PathBuf, Vec<usize>> = HashMap::new();
        let mut trashed = Vec::new();
        for (place, key) in keys.iter().enumerate() {
            let path = PathBuf::from(names::path_of(key.as_str()));
            let unlinked = self.ready(Root::Keep).and_then(|()| self.unlink(&path));
            let outcome = unlinked.map(|upload| trashed.extend(upload.map(|id| (place, id))));
            let directory = path.parent().unwrap_or(Path::new("")).to_owned();
            directories.entry(directory).or_default().push(place);
            outcomes.push(outcome);
        }
        for (directory, places) in &directories {
            match self.files.sync_dir(&self.absolute(directory)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let kind = error.kind();
                    for place in places {
                        outcomes[*place] = Err(LocalError::unsure(io::Error::from(kind)));
                    }
                }
            }
        }
        for (place, upload) in trashed {
            // Otherwise the object might come back without its parts: they wait for the next start.
            if outcomes[place].is_ok() {
                self.release_parts(&upload);
            }
        }
        directories
            .keys()
            .for_each(|directory| self.prune(directory));
        outcomes
    }

    /// Takes a file away from under its name. The record of an assembled object is moved aside, so
    /// that its parts are found again if the process ends before they are removed; returns their
    /// upload.
    fn unlink(&self, path: &Path) -> Result<Option<String>, LocalError> {
        let assembled = match self.open(path) {
            Ok(None) => return Err(LocalError::new(Kind::NotFound)),
            Ok(Some(opened)) => match opened.record.place {
                BytesAt::Parts { upload, .. } => Some(upload),
                BytesAt::Here | BytesAt::Upload { .. } => None,
            },
            // A damaged object is deleted like any other.
            Err(failure) if failure.kind == Kind::Corrupt => None,
            Err(failure) => return Err(failure),
        };
        let Some(upload) = assembled else {
            return match self.files.remove(&self.absolute(path)) {
                Ok(()) => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err(LocalError::new(Kind::NotFound))
                }
                Err(error) => Err(LocalError::harmless(error)),
            };
        };
        let trash = Path::new(TRASH);
        // First: a record moved into a directory that a power cut takes away would be lost, and its
        // parts with it.
        let forgotten = self.durable.read().forgotten;
        self.make_directories(trash).map_err(LocalError::harmless)?;
        self.make_durable(trash, forgotten)
            .map_err(LocalError::harmless)?;
        let trashed = trash.join(&upload);
        self.name(Naming::Replace, &self.absolute(path), trash, &trashed)?;
        self.files
            .sync_dir(&self.absolute(trash))
            .map_err(LocalError::unsure)?;
        Ok(Some(upload))
    }

    /// The lock of an upload, for whoever changes it. Taken only on blocking threads.
    pub(super) fn upload_lock(&self, upload: &str) -> Arc<Mutex<()>> {
        let mut locks = self.uploads.lock();
        // Nobody else can take one while this map is locked, so unused ones can go.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(upload.to_owned()).or_default())
    }
}

/// A file in `.s3o-tmp` that goes when this value goes, unless it was placed.
pub(super) struct Temporary {
    store: Arc<LocalStore>,
    path: PathBuf,
    file: Box<dyn NewFile>,
    placed: bool,
}

impl Temporary {
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), LocalError> {
        self.file.append(bytes).map_err(LocalError::harmless)
    }

    /// Ends the file with its record and makes its bytes durable.
    pub(super) fn seal(&mut self, record: &Record) -> Result<(), LocalError> {
        self.append(&record.encode())?;
        self.file.sync().map_err(LocalError::harmless)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.placed {
            // What stays behind is removed at the next start.
            let _ = self.store.files.remove(&self.path);
        }
    }
}
