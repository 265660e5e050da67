//! A file system in memory that forgets on a power cut what was not synced.
//!
//! Bytes of a file survive if the file was synced, names if their directory was; a rename is atomic.
//! What was not synced may survive all the same, whole or in part: [`Survival`] says how much of it.
//! Each change can be the one at which the power goes, or fail alone with an error of choice.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use base::Timestamp;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::files::{EntryKind, FileSystem, NewFile, OpenFile, Stat};

/// The directory that tests give to a backend.
pub(super) const ROOT: &str = "/disk";

const TOP: u64 = 1;

/// How much of what was not synced survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Survival {
    Nothing,
    Everything,
    /// The changes of names up to some point, and of each file some first bytes.
    Drawn {
        seed: u64,
    },
}

/// A wrong file layer, to see that the tests notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plant {
    Nothing,
    /// Files are not synced.
    FileSync,
    /// No directory is synced.
    DirectorySync,
    /// The root's own entries are not synced: directories made in it are lost.
    RootSync,
}

#[derive(Debug, Clone)]
enum Node {
    File {
        bytes: Vec<u8>,
        durable: Vec<u8>,
    },
    Directory {
        entries: BTreeMap<String, u64>,
        durable: BTreeMap<String, u64>,
    },
}

/// One change of names: all of it survives or nothing.
#[derive(Debug, Clone)]
struct Change(Vec<(u64, String, Option<u64>)>);

#[derive(Debug)]
struct Machine {
    nodes: HashMap<u64, Node>,
    drawn: u64,
    pending: Vec<Change>,
    changes: u64,
    log: Vec<String>,
    power_off_at: Option<u64>,
    fail_at: Option<(u64, io::ErrorKind)>,
    plant: Plant,
}

/// The file system; clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Scripted(Arc<Mutex<Machine>>);

fn error(kind: io::ErrorKind) -> io::Error {
    io::Error::from(kind)
}

impl Machine {
    /// Counts a change, unless the power is off or it is to fail.
    fn change(&mut self, what: String) -> io::Result<()> {
        let place = self.changes;
        if self.power_off_at.is_some_and(|at| place >= at) {
            return Err(io::Error::other("the power is off"));
        }
        self.changes += 1;
        self.log.push(what);
        match self.fail_at {
            Some((at, kind)) if at == place => Err(error(kind)),
            _ => Ok(()),
        }
    }

    fn powered(&self) -> io::Result<()> {
        match self.power_off_at.is_some_and(|at| self.changes >= at) {
            true => Err(io::Error::other("the power is off")),
            false => Ok(()),
        }
    }

    fn entries(&self, node: u64) -> io::Result<&BTreeMap<String, u64>> {
        match &self.nodes[&node] {
            Node::Directory { entries, .. } => Ok(entries),
            Node::File { .. } => Err(error(io::ErrorKind::NotADirectory)),
        }
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        let mut node = TOP;
        for component in path.components().skip(1) {
            let name = component.as_os_str().to_str().expect("tests use UTF-8");
            assert!(name.len() <= 255, "a name of {} bytes", name.len());
            let entries = self.entries(node)?;
            node = *entries
                .get(name)
                .ok_or_else(|| error(io::ErrorKind::NotFound))?;
        }
        Ok(node)
    }

    fn slot(&self, path: &Path) -> io::Result<(u64, String)> {
        let directory = self.find(path.parent().expect("below the top"))?;
        self.entries(directory)?;
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("tests use UTF-8");
        Ok((directory, name.to_owned()))
    }

    fn apply(&mut self, change: Change) {
        for (directory, name, node) in &change.0 {
            let Some(Node::Directory { entries, .. }) = self.nodes.get_mut(directory) else {
                unreachable!("a slot is in a directory");
            };
            match node {
                Some(node) => entries.insert(name.clone(), *node),
                None => entries.remove(name),
            };
        }
        self.pending.push(change);
    }

    fn persist(&mut self, change: &Change) {
        for (directory, name, node) in &change.0 {
            let Some(Node::Directory { durable, .. }) = self.nodes.get_mut(directory) else {
                unreachable!("a slot is in a directory");
            };
            match node {
                Some(node) => durable.insert(name.clone(), *node),
                None => durable.remove(name),
            };
        }
    }

    /// Makes durable what touches a directory, and whatever touched the same names before.
    fn sync(&mut self, directory: u64) {
        let mut slots = Vec::new();
        let mut synced = Vec::new();
        let mut kept = Vec::new();
        for change in std::mem::take(&mut self.pending).into_iter().rev() {
            let touched = change
                .0
                .iter()
                .any(|(of, name, _)| *of == directory || slots.contains(&(*of, name.clone())));
            match touched {
                true => {
                    slots.extend(change.0.iter().map(|(of, name, _)| (*of, name.clone())));
                    synced.push(change);
                }
                false => kept.push(change),
            }
        }
        kept.reverse();
        self.pending = kept;
        synced.iter().rev().for_each(|change| self.persist(change));
    }

    fn stat(&self, node: u64) -> Stat {
        let (kind, size) = match &self.nodes[&node] {
            Node::File { bytes, .. } => (EntryKind::File, bytes.len() as u64),
            Node::Directory { .. } => (EntryKind::Directory, 0),
        };
        Stat {
            device: 1,
            inode: node,
            kind,
            size,
            modified: Timestamp::from_millis(0),
        }
    }

    fn add(&mut self, node: Node) -> u64 {
        self.drawn += 1;
        self.nodes.insert(self.drawn, node);
        self.drawn
    }
}

fn directory() -> Node {
    Node::Directory {
        entries: BTreeMap::new(),
        durable: BTreeMap::new(),
    }
}

impl Scripted {
    /// A disk with an empty, durable [`ROOT`].
    pub(super) fn new(plant: Plant) -> Self {
        let mut machine = Machine {
            nodes: HashMap::new(),
            drawn: 0,
            pending: Vec::new(),
            changes: 0,
            log: Vec::new(),
            power_off_at: None,
            fail_at: None,
            plant,
        };
        let top = machine.add(directory());
        assert_eq!(top, TOP);
        let root = machine.add(directory());
        machine.apply(Change(vec![(top, ROOT[1..].to_owned(), Some(root))]));
        machine.sync(top);
        Self(Arc::new(Mutex::new(machine)))
    }

    /// The power goes before the change of this number, counted from now.
    pub(super) fn power_off_after(&self, changes: u64) {
        let mut machine = self.0.lock();
        machine.power_off_at = Some(machine.changes + changes);
    }

    /// The change of this number, counted from now, fails; those after it do not.
    pub(super) fn fail_after(&self, changes: u64, kind: io::ErrorKind) {
        let mut machine = self.0.lock();
        machine.fail_at = Some((machine.changes + changes, kind));
    }

    /// The changes so far, for example `rename a b`.
    pub(super) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().log)
    }

    /// Whether the power went off.
    pub(super) fn is_off(&self) -> bool {
        self.0.lock().powered().is_err()
    }

    /// The disk as it is found when the power is back.
    pub(super) fn after_power_cut(&self, survival: Survival) -> Self {
        let mut machine = {
            let broken = self.0.lock();
            Machine {
                nodes: broken.nodes.clone(),
                drawn: broken.drawn,
                pending: broken.pending.clone(),
                changes: 0,
                log: Vec::new(),
                power_off_at: None,
                fail_at: None,
                plant: Plant::Nothing,
            }
        };
        let mut rng = match survival {
            Survival::Drawn { seed } => StdRng::seed_from_u64(seed),
            Survival::Nothing | Survival::Everything => StdRng::seed_from_u64(0),
        };
        let pending = std::mem::take(&mut machine.pending);
        let survivors = match survival {
            Survival::Nothing => 0,
            Survival::Everything => pending.len(),
            Survival::Drawn { .. } => rng.random_range(0..=pending.len()),
        };
        pending[..survivors]
            .iter()
            .for_each(|change| machine.persist(change));
        let mut numbers: Vec<u64> = machine.nodes.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            match machine.nodes.get_mut(&number).expect("listed above") {
                Node::Directory { entries, durable } => *entries = durable.clone(),
                Node::File { bytes, durable } => {
                    match survival {
                        Survival::Nothing => *bytes = durable.clone(),
                        Survival::Everything => {}
                        Survival::Drawn { .. } if *bytes != *durable => {
                            bytes.truncate(rng.random_range(0..=bytes.len()));
                        }
                        Survival::Drawn { .. } => {}
                    }
                    *durable = bytes.clone();
                }
            }
        }
        Self(Arc::new(Mutex::new(machine)))
    }

    /// The paths of all files below the root.
    pub(super) fn file_paths(&self) -> Vec<String> {
        fn visit(machine: &Machine, node: u64, path: &str, out: &mut Vec<String>) {
            match &machine.nodes[&node] {
                Node::File { .. } => out.push(path.to_owned()),
                Node::Directory { entries, .. } => {
                    for (name, node) in entries {
                        visit(machine, *node, &format!("{path}/{name}"), out);
                    }
                }
            }
        }
        let mut out = Vec::new();
        visit(&self.0.lock(), TOP, "", &mut out);
        out
    }
}

impl FileSystem for Scripted {
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let mut machine = self.0.lock();
        machine.change(format!("create {}", path.display()))?;
        let (directory, name) = machine.slot(path)?;
        if machine.entries(directory)?.contains_key(&name) {
            return Err(error(io::ErrorKind::AlreadyExists));
        }
        let node = machine.add(Node::File {
            bytes: Vec::new(),
            durable: Vec::new(),
        });
        machine.apply(Change(vec![(directory, name, Some(node))]));
        Ok(Box::new(Handle {
            disk: self.clone(),
            node,
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn OpenFile>> {
        let machine = self.0.lock();
        machine.powered()?;
        let node = machine.find(path)?;
        Ok(Arc::new(Handle {
            disk: self.clone(),
            node,
        }))
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let machine = self.0.lock();
        machine.powered()?;
        Ok(machine.stat(machine.find(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut machine = self.0.lock();
        machine.change(format!("rename {} {}", from.display(), to.display()))?;
        let node = machine.find(from)?;
        let (from_directory, from_name) = machine.slot(from)?;
        let (to_directory, to_name) = machine.slot(to)?;
        machine.apply(Change(vec![
            (from_directory, from_name, None),
            (to_directory, to_name, Some(node)),
        ]));
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut machine = self.0.lock();
        machine.change(format!("link {} {}", from.display(), to.display()))?;
        let node = machine.find(from)?;
        let (directory, name) = machine.slot(to)?;
        if machine.find(to).is_ok() {
            return Err(error(io::ErrorKind::AlreadyExists));
        }
        machine.apply(Change(vec![(directory, name, Some(node))]));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.0.lock();
        machine.change(format!("remove {}", path.display()))?;
        machine.find(path)?;
        let (directory, name) = machine.slot(path)?;
        machine.apply(Change(vec![(directory, name, None)]));
        Ok(())
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.0.lock();
        machine.change(format!("make_dir {}", path.display()))?;
        let (parent, name) = machine.slot(path)?;
        if machine.entries(parent)?.contains_key(&name) {
            return Err(error(io::ErrorKind::AlreadyExists));
        }
        let node = machine.add(directory());
        machine.apply(Change(vec![(parent, name, Some(node))]));
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.0.lock();
        machine.change(format!("remove_dir {}", path.display()))?;
        let node = machine.find(path)?;
        if !machine.entries(node)?.is_empty() {
            return Err(error(io::ErrorKind::DirectoryNotEmpty));
        }
        let (parent, name) = machine.slot(path)?;
        machine.apply(Change(vec![(parent, name, None)]));
        Ok(())
    }

    fn read_dir(&self, path: &Path, each: &mut dyn FnMut(&str, EntryKind)) -> io::Result<()> {
        let entries: Vec<(String, EntryKind)> = {
            let machine = self.0.lock();
            machine.powered()?;
            let entries = machine.entries(machine.find(path)?)?;
            entries
                .iter()
                .map(|(name, node)| (name.clone(), machine.stat(*node).kind))
                .collect()
        };
        entries.iter().for_each(|(name, kind)| each(name, *kind));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.0.lock();
        machine.change(format!("sync_dir {}", path.display()))?;
        let node = machine.find(path)?;
        let skipped = match machine.plant {
            Plant::Nothing | Plant::FileSync => false,
            Plant::DirectorySync => true,
            Plant::RootSync => path == Path::new(ROOT),
        };
        if !skipped {
            machine.sync(node);
        }
        Ok(())
    }
}

struct Handle {
    disk: Scripted,
    node: u64,
}

impl NewFile for Handle {
    fn append(&mut self, more: &[u8]) -> io::Result<()> {
        let mut machine = self.disk.0.lock();
        machine.change("append".to_owned())?;
        match machine.nodes.get_mut(&self.node) {
            Some(Node::File { bytes, .. }) => bytes.extend_from_slice(more),
            Some(Node::Directory { .. }) | None => unreachable!("a handle is of a file"),
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut machine = self.disk.0.lock();
        machine.change("sync".to_owned())?;
        let skipped = machine.plant == Plant::FileSync;
        match machine.nodes.get_mut(&self.node) {
            Some(Node::File { .. }) if skipped => {}
            Some(Node::File { bytes, durable }) => *durable = bytes.clone(),
            Some(Node::Directory { .. }) | None => unreachable!("a handle is of a file"),
        }
        Ok(())
    }
}

impl OpenFile for Handle {
    fn stat(&self) -> io::Result<Stat> {
        let machine = self.disk.0.lock();
        machine.powered()?;
        Ok(machine.stat(self.node))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let machine = self.disk.0.lock();
        machine.powered()?;
        let Node::File { bytes, .. } = &machine.nodes[&self.node] else {
            return Err(error(io::ErrorKind::IsADirectory));
        };
        let start = usize::try_from(offset).expect("tests use small files");
        let found = bytes.get(start..start + buffer.len());
        buffer.copy_from_slice(found.ok_or_else(|| error(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }
}
