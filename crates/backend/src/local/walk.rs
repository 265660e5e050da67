//! Listing: the directory tree in the byte order of the keys that lie in it.
//!
//! Each directory is read as often as its entries do not fit into one portion; memory is bounded by
//! the portion and the depth, not by the number of objects. The order: a directory counts as its
//! component with a slash behind, and the content of a cut component counts as lying in the directory
//! above. Then no entry's text is the beginning of another's except a file's, and a file's key sorts
//! before all that begin with it; so the order of the texts is the order of the keys.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use super::failure::LocalError;
use super::files::EntryKind;
use super::names::{self, Name};
use super::store::{LocalStore, Root};
use crate::{Kind, ListPage, ListRequest, Listed};

/// The most keys of one page, as S3 has it.
const PAGE_KEYS_MAX: usize = 1000;

/// Entries of one directory that are held at once.
const PORTION_ENTRIES: usize = PAGE_KEYS_MAX + 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leads {
    ToObject,
    ToDirectory,
}

/// A directory on the way from the root to the place that was reached.
struct Level {
    path: PathBuf,
    /// How the keys in it begin.
    base: String,
    portion: VecDeque<(String, PathBuf, Leads)>,
    /// Where to read on when the portion is used up; `None` where it was the last.
    resume: Option<String>,
}

struct DirectoryWalk<'a> {
    store: &'a LocalStore,
    prefix: &'a str,
    after: Option<String>,
}

impl DirectoryWalk<'_> {
    /// The next entries of a directory behind `resume` that can matter.
    fn level(
        &self,
        path: PathBuf,
        base: String,
        resume: Option<&str>,
    ) -> Result<Level, LocalError> {
        let mut found = BTreeMap::new();
        let mut more = false;
        self.gather(&path, &base, resume, &mut found, &mut more)
            .map_err(LocalError::harmless)?;
        let resume = more
            .then(|| found.last_key_value().map(|(text, _)| text.clone()))
            .flatten();
        let portion = found
            .into_iter()
            .map(|(text, (path, leads))| (text, path, leads))
            .collect();
        Ok(Level {
            path,
            base,
            portion,
            resume,
        })
    }

    fn gather(
        &self,
        path: &Path,
        stem: &str,
        resume: Option<&str>,
        found: &mut BTreeMap<String, (PathBuf, Leads)>,
        more: &mut bool,
    ) -> io::Result<()> {
        let mut cuts = Vec::new();
        let mut each = |name: &str, kind: EntryKind| {
            let (text, leads) = match (names::read(name), kind) {
                (Some(Name::File(piece)), EntryKind::File) => {
                    (format!("{stem}{piece}"), Leads::ToObject)
                }
                (Some(Name::Directory(piece)), EntryKind::Directory) => {
                    (format!("{stem}{piece}/"), Leads::ToDirectory)
                }
                (Some(Name::Cut(piece)), EntryKind::Directory) => {
                    cuts.push((path.join(name), format!("{stem}{piece}")));
                    return;
                }
                // Nothing of ours has such a name.
                (Some(_) | None, EntryKind::File | EntryKind::Directory | EntryKind::Other) => {
                    return;
                }
            };
            if !self.matters(&text, leads) || resume.is_some_and(|resume| *text <= *resume) {
                return;
            }
            found.insert(text, (path.join(name), leads));
            if found.len() > PORTION_ENTRIES {
                found.pop_last();
                *more = true;
            }
        };
        match self
            .store
            .files
            .read_dir(&self.store.absolute(path), &mut each)
        {
            Ok(()) => {}
            // Pruned since its name was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        for (path, stem) in cuts {
            self.gather(&path, &stem, resume, found, more)?;
        }
        Ok(())
    }

    fn matters(&self, text: &str, leads: Leads) -> bool {
        let after = self.after.as_deref().unwrap_or("");
        match leads {
            Leads::ToObject => text.starts_with(self.prefix) && text > after,
            Leads::ToDirectory => {
                let on_the_way = text.starts_with(self.prefix) || self.prefix.starts_with(text);
                on_the_way && (text > after || after.starts_with(text))
            }
        }
    }

    /// The next keys in order, at most `limit`, with their paths.
    fn keys(&self, limit: usize) -> Result<Vec<(String, PathBuf)>, LocalError> {
        let base = self
            .prefix
            .rfind('/')
            .map_or("", |slash| &self.prefix[..=slash]);
        let path = PathBuf::from(names::directory_of(base));
        let mut levels = vec![self.level(path, base.to_owned(), None)?];
        let mut keys = Vec::new();
        while keys.len() < limit {
            let Some(level) = levels.last_mut() else {
                break;
            };
            match level.portion.pop_front() {
                Some((key, path, Leads::ToObject)) => {
                    // A name that decodes may still not be the one that the key has.
                    if Path::new(&names::path_of(&key)) == path {
                        keys.push((key, path));
                    }
                }
                Some((base, path, Leads::ToDirectory)) => {
                    levels.push(self.level(path, base, None)?);
                }
                None => {
                    let done = levels.pop().expect("the last level was looked at");
                    if let Some(resume) = done.resume {
                        levels.push(self.level(done.path, done.base, Some(&resume))?);
                    }
                }
            }
        }
        Ok(keys)
    }
}

/// One page of keys.
pub(super) fn list(store: &LocalStore, request: &ListRequest) -> Result<ListPage, LocalError> {
    store.ready(Root::Keep)?;
    let limit =
        usize::try_from(request.max_keys).map_or(PAGE_KEYS_MAX, |max| max.clamp(1, PAGE_KEYS_MAX));
    let mut walk = DirectoryWalk {
        store,
        prefix: &request.prefix,
        after: request.after.clone(),
    };
    loop {
        let mut keys = walk.keys(limit + 1)?;
        let truncated = keys.len() > limit;
        keys.truncate(limit);
        let last = keys.last().map(|(key, _)| key.clone());
        let mut objects = Vec::with_capacity(keys.len());
        for (key, path) in keys {
            if let Some(size) = size_of(store, &path)? {
                objects.push(Listed { key, size });
            }
        }
        // A page whose objects were all deleted meanwhile would tell the caller nowhere to go on.
        if objects.is_empty() && truncated {
            walk.after = last;
            continue;
        }
        return Ok(ListPage { objects, truncated });
    }
}

/// The size of an object; of a damaged one that of its file, so that it is reported at all.
fn size_of(store: &LocalStore, path: &Path) -> Result<Option<u64>, LocalError> {
    match store.open(path) {
        Ok(opened) => Ok(opened.map(|opened| opened.record.size)),
        Err(failure) if failure.kind == Kind::Corrupt => {
            let stat = store
                .files
                .stat(&store.absolute(path))
                .map_err(LocalError::harmless)?;
            Ok(Some(stat.size))
        }
        Err(failure) => Err(failure),
    }
}
