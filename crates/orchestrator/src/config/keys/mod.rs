//! The one table of configuration keys: names, types, defaults, meaning.
//!
//! The checks refuse what is not in it, the typed reader takes its defaults from it, and
//! `docs/configuration.md` is printed from it, so none of them can disagree.

mod later;
mod serving;
mod storage;

/// A map in the file and the keys that it may have.
#[derive(Debug)]
pub struct Group {
    /// Where the map is, `[]` standing for the items of a list; empty for the file itself.
    pub path: &'static str,
    /// What the map is about.
    pub doc: &'static str,
    /// The keys that hold values; maps and lists of maps are groups of their own.
    pub keys: &'static [Key],
}

/// A key that holds a value.
#[derive(Debug)]
pub struct Key {
    /// The key within its group.
    pub name: &'static str,
    /// What values it takes.
    pub kind: ValueKind,
    /// Whether it must be there, or what holds where it is not.
    pub default: Preset,
    /// What the number zero means.
    pub zero: Zero,
    /// What becomes of it.
    pub effect: KeyEffect,
    /// What it is for.
    pub doc: &'static str,
}

/// What values a key takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueKind {
    /// Any text.
    Text,
    /// A name or path in the file system; relative ones start at the working directory.
    Path,
    /// Text that is never shown; `KEY_file` may name a file that holds it instead.
    Secret,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Count {
        /// The largest value.
        max: u64,
    },
    /// A number of bytes, or text such as `20GiB`.
    Size,
    /// Go syntax: `30s`, `1h30m`.
    Duration,
    /// A number from 0 to 1.
    Fraction,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `host:port`.
    Listen,
    /// A list of texts.
    Words,
}

/// What holds where a key is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// The key must be there.
    Required,
    /// Nothing.
    Nothing,
    /// This value, as one would write it.
    Value(&'static str),
    /// Something that depends on other keys, in words.
    Derived(&'static str),
}

/// What the number zero means for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zero {
    /// Zero.
    Itself,
    /// The default.
    Default,
    /// No limit.
    Unlimited,
}

/// What becomes of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyEffect {
    /// It takes effect at the next start.
    Restart,
    /// It takes effect at the next start; the contents of the named file also at SIGHUP.
    FileOnReload,
    /// It takes effect at SIGHUP.
    Reload,
    /// It is checked and has no effect in this release.
    Inert,
    /// Only the value that leaves the named feature off is accepted in this release.
    OffOnly {
        /// The feature.
        feature: &'static str,
        /// The value that means off.
        off: Off,
    },
}

/// The value that leaves a feature off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Off {
    /// `false`.
    False,
    /// 0.
    Zero,
    /// 0 or 1.
    One,
    /// No text, or an empty list.
    Empty,
}

impl Off {
    /// The value as one would write it.
    pub const fn written(self) -> &'static str {
        match self {
            Self::False => "false",
            Self::Zero => "0",
            Self::One => "1",
            Self::Empty => "empty",
        }
    }
}

impl Key {
    const fn new(name: &'static str, kind: ValueKind, doc: &'static str) -> Self {
        Self {
            name,
            kind,
            default: Preset::Nothing,
            zero: Zero::Itself,
            effect: KeyEffect::Restart,
            doc,
        }
    }

    const fn required(mut self) -> Self {
        self.default = Preset::Required;
        self
    }

    const fn or(mut self, value: &'static str) -> Self {
        self.default = Preset::Value(value);
        self
    }

    const fn derived(mut self, words: &'static str) -> Self {
        self.default = Preset::Derived(words);
        self
    }

    const fn zero(mut self, zero: Zero) -> Self {
        self.zero = zero;
        self
    }

    const fn inert(mut self) -> Self {
        self.effect = KeyEffect::Inert;
        self
    }

    const fn file_on_reload(mut self) -> Self {
        self.effect = KeyEffect::FileOnReload;
        self
    }

    const fn on_reload(mut self) -> Self {
        self.effect = KeyEffect::Reload;
        self
    }

    const fn off(mut self, off: Off, feature: &'static str) -> Self {
        self.effect = KeyEffect::OffOnly { feature, off };
        self
    }
}

/// Every group, in the order of the reference page.
pub fn groups() -> impl Iterator<Item = &'static Group> {
    serving::GROUPS
        .iter()
        .chain(storage::GROUPS)
        .chain(later::GROUPS)
}

/// The group at this path, written with `[]`.
pub fn group(path: &str) -> Option<&'static Group> {
    groups().find(|group| group.path == path)
}

/// The feature that any item of the list at this path switches on, where this release lacks it.
pub fn refused_list(path: &str) -> Option<&'static str> {
    later::REFUSED_LISTS
        .iter()
        .find(|(list, _)| *list == path)
        .map(|(_, feature)| *feature)
}

impl Group {
    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The secret whose value stands in the file that `name`, ending in `_file`, names.
    pub fn secret_of_file_key(&self, name: &str) -> Option<&'static Key> {
        let key = self.key(name.strip_suffix("_file")?)?;
        (key.kind == ValueKind::Secret).then_some(key)
    }

    /// The path of a map or list below this group.
    pub fn below(&self, name: &str) -> String {
        match self.path {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }

    /// The names of the maps and lists of maps directly below this group.
    pub fn children(&self) -> impl Iterator<Item = &'static str> {
        let prefix = match self.path {
            "" => String::new(),
            path => format!("{path}."),
        };
        groups().filter_map(move |group| {
            let rest = group.path.strip_prefix(&prefix)?;
            let name = rest.strip_suffix("[]").unwrap_or(rest);
            (!name.is_empty() && !name.contains('.')).then_some(name)
        })
    }

    /// Every name that this group knows, the files of secrets included.
    pub fn names(&self) -> Vec<String> {
        let keys = self.keys.iter().map(|key| key.name.to_owned());
        let files = self
            .keys
            .iter()
            .filter(|key| key.kind == ValueKind::Secret)
            .map(|key| format!("{}_file", key.name));
        keys.chain(files)
            .chain(self.children().map(str::to_owned))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_its_parent_and_stands_once() {
        for group in groups() {
            assert_eq!(groups().filter(|other| other.path == group.path).count(), 1);
            if let Some((parent, _)) = group.path.rsplit_once('.') {
                assert!(
                    super::group(parent).is_some(),
                    "{} has no parent",
                    group.path
                );
            }
            for key in group.keys {
                let same = group
                    .keys
                    .iter()
                    .filter(|other| other.name == key.name)
                    .count();
                assert_eq!(same, 1, "{}.{}", group.path, key.name);
                assert!(key.doc.ends_with('.'), "{}.{}", group.path, key.name);
            }
        }
    }

    #[test]
    fn children_are_the_next_level_only() {
        let server: Vec<_> = group("server").unwrap().children().collect();
        assert_eq!(server, ["tls"]);
        let backends: Vec<_> = group("backends[]").unwrap().children().collect();
        assert_eq!(backends, ["http"]);
        assert!(group("").unwrap().children().any(|name| name == "buckets"));
    }
}
