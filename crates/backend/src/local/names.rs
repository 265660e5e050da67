//! Where a key lies below the root of a local backend.
//!
//! Any key becomes one relative path, and no two keys the same one. An ordinary key of ours,
//! `photos/2026/cat.jpg~<copy id>`, becomes just that path. The scheme, per component of the key (the
//! pieces between slashes):
//!
//! 1. *Escape.* Control bytes, DEL and `%` become `%` and two upper-case hexadecimal digits. All else
//!    stays. In escaped text `%` is therefore always followed by two such digits.
//! 2. *Cut.* Escaped text longer than [`PIECE_BYTES_MAX`] is cut there, never inside an escape or a
//!    character: every piece but the last is a directory `piece%c`, and the rest goes on inside it.
//! 3. *Mark.* The last piece is the name of a file where the component is the key's last, else of a
//!    directory. A file is named `piece` if the piece ends in `~` and 26 characters of a copy id, else
//!    `piece%f`. A directory is named `piece`, but `piece%d` if the piece could be taken for something
//!    else: if it ends like a copy id, is empty, `.`, `..` or `lost+found`, or begins with `.s3o-`.
//!
//! *Why no two keys meet.* Every name tells its class: `…%c`, `…%d` and `…%f` cannot be the end of
//! escaped text (rule 1), so a marked name gives back its piece and class; an unmarked name is a file
//! if it ends like a copy id, and else a directory. From a path one thus reads the pieces, joins those
//! of `%c` with what follows, undoes the escapes and puts a slash behind every directory: the key.
//! [`path_of`] has a left inverse ([`key_of`]), so it is injective. Nor can one key's file be a
//! directory on another's path, for those names are of different classes: `a` and `a/b` coexist.
//!
//! *Why nothing escapes the root.* No name is empty, `.` or `..`, and none contains a slash or NUL.
//! *Why nothing meets our own folders:* those are unmarked directories that begin with `.s3o-`.
//! *Lengths:* a name has at most 254 bytes; a path of a 1024-byte key at most [`PATH_BYTES_MAX`].
//!
//! A file system that folds case or normalises Unicode would break this; `probe` refuses the former.

/// The longest escaped piece in bytes: with a mark of two it stays below the 255 of file systems.
const PIECE_BYTES_MAX: usize = 252;

/// The longest relative path in bytes. One byte of key takes at most three of path, be it an escape
/// or an empty component; each cut adds three, and a special name at most four more.
#[cfg(test)]
pub(super) const PATH_BYTES_MAX: usize = 3200;

const COPY_ID_CHARS: usize = 26;

/// What the name of a file or directory stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// The end of a key.
    File(String),
    /// A component with more components behind it.
    Directory(String),
    /// The beginning of a component that is too long for one name.
    Cut(String),
}

/// The path of a key below the root.
pub(super) fn path_of(key: &str) -> String {
    let (directories, last) = match key.rfind('/') {
        Some(slash) => key.split_at(slash + 1),
        None => ("", key),
    };
    let mut path = directory_of(directories);
    let piece = push_cuts(&mut path, last);
    path.push_str(&piece);
    if !ends_like_copy_id(&piece) {
        path.push_str("%f");
    }
    path
}

/// The path, with a slash behind it, of the directory where the keys lie that begin with `base`, which
/// is empty or ends in a slash.
pub(super) fn directory_of(base: &str) -> String {
    let mut path = String::with_capacity(base.len());
    for component in base.split_terminator('/') {
        let piece = push_cuts(&mut path, component);
        path.push_str(&piece);
        path.push_str(if is_plain_directory(&piece) {
            "/"
        } else {
            "%d/"
        });
    }
    path
}

/// What a name stands for; `None` for names that this scheme does not give.
pub(super) fn read(name: &str) -> Option<Name> {
    if let Some(piece) = name.strip_suffix("%c") {
        return unescape(piece).map(Name::Cut);
    }
    if let Some(piece) = name.strip_suffix("%d") {
        let marked = !is_plain_directory(piece);
        return marked.then(|| unescape(piece))?.map(Name::Directory);
    }
    if let Some(piece) = name.strip_suffix("%f") {
        let marked = !ends_like_copy_id(piece);
        return marked.then(|| unescape(piece))?.map(Name::File);
    }
    if ends_like_copy_id(name) {
        return unescape(name).map(Name::File);
    }
    is_plain_directory(name)
        .then(|| unescape(name))?
        .map(Name::Directory)
}

/// The key whose path this is; `None` for paths that [`path_of`] does not give.
#[cfg(test)]
pub(super) fn key_of(path: &str) -> Option<String> {
    let mut key = String::new();
    let mut names = path.split('/').peekable();
    while let Some(name) = names.next() {
        match (read(name)?, names.peek()) {
            (Name::Cut(piece), Some(_)) => key.push_str(&piece),
            (Name::Directory(piece), Some(_)) => {
                key.push_str(&piece);
                key.push('/');
            }
            (Name::File(piece), None) => key.push_str(&piece),
            (Name::Cut(_) | Name::Directory(_), None) | (Name::File(_), Some(_)) => return None,
        }
    }
    (path_of(&key) == path).then_some(key)
}

/// Appends a directory for each cut of the component and returns the last piece, unmarked.
fn push_cuts(path: &mut String, component: &str) -> String {
    let mut piece = String::with_capacity(component.len());
    for character in component.chars() {
        let escape = must_escape(character);
        let width = if escape { 3 } else { character.len_utf8() };
        if piece.len() + width > PIECE_BYTES_MAX {
            path.push_str(&piece);
            path.push_str("%c/");
            piece.clear();
        }
        match escape {
            true => piece.push_str(&format!("%{:02X}", u32::from(character))),
            false => piece.push(character),
        }
    }
    piece
}

fn must_escape(character: char) -> bool {
    character.is_ascii_control() || character == '%'
}

fn unescape(piece: &str) -> Option<String> {
    let mut text = String::with_capacity(piece.len());
    let mut rest = piece;
    while let Some(percent) = rest.find('%') {
        text.push_str(&rest[..percent]);
        let digits = rest.get(percent + 1..percent + 3)?;
        let upper = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
        if !digits.bytes().all(upper) {
            return None;
        }
        let character = char::from(u8::from_str_radix(digits, 16).ok()?);
        if !must_escape(character) {
            return None;
        }
        text.push(character);
        rest = &rest[percent + 3..];
    }
    text.push_str(rest);
    Some(text)
}

fn ends_like_copy_id(piece: &str) -> bool {
    let bytes = piece.as_bytes();
    let Some(tilde) = bytes.len().checked_sub(COPY_ID_CHARS + 1) else {
        return false;
    };
    let digit = |b: &u8| b.is_ascii_digit() || (b'a'..=b'v').contains(b);
    bytes[tilde] == b'~' && bytes[tilde + 1..].iter().all(digit)
}

fn is_plain_directory(piece: &str) -> bool {
    let special = matches!(piece, "" | "." | ".." | "lost+found") || piece.starts_with(".s3o-");
    !special && !ends_like_copy_id(piece)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::{Strategy, any, prop_oneof};
    use proptest::{collection, prop_assert, prop_assert_eq, proptest};

    use super::*;

    const ID: &str = "06dg3q1v0c7s9k2m4n5p6r8t0v";

    fn check(key: &str) {
        let path = path_of(key);
        assert_eq!(key_of(&path).as_deref(), Some(key), "{path}");
        assert!(
            path.len() <= PATH_BYTES_MAX,
            "{} bytes for {key:?}",
            path.len()
        );
        for name in path.split('/') {
            assert!((1..=255).contains(&name.len()), "{name}");
            assert!(!matches!(name, "." | ".."), "{path}");
            assert!(!name.bytes().any(|b| b.is_ascii_control()), "{path}");
        }
        assert!(
            !path.starts_with(".s3o-tmp/") && !path.starts_with(".s3o-uploads/"),
            "{path}"
        );
    }

    #[test]
    fn an_ordinary_key_of_ours_is_its_own_path() {
        for key in [
            format!("photos/2026/cat.jpg~{ID}"),
            format!("b/ä ö+=&.txt~{ID}"),
        ] {
            assert_eq!(path_of(&key), key);
            check(&key);
        }
        assert_eq!(path_of("a"), "a%f");
        assert_eq!(path_of("a/b"), "a/b%f");
        assert_eq!(path_of("../x"), "..%d/x%f");
        assert_eq!(path_of(".s3o-tmp/x"), ".s3o-tmp%d/x%f");
        assert_eq!(path_of("a//b/"), "a/%d/b/%f");
        assert_eq!(path_of("%2F\n"), "%252F%0A%f");
    }

    #[test]
    fn the_longest_and_oddest_keys_have_short_enough_paths() {
        for unit in [
            "a", "\u{1}", "/", "./", "../", "%", "ä", "😀", "\u{1}/", ".s3o-/", "%d/", "a/",
        ] {
            let mut key = unit.repeat(1024 / unit.len());
            check(&key);
            key.truncate(key.floor_char_boundary(300));
            check(&key);
        }
        check(&format!("{}~{ID}/", "lost+found/".repeat(80)));
        check(&format!("~{ID}/").repeat(36));
    }

    #[test]
    fn names_that_the_scheme_does_not_give_are_nobodys() {
        for name in [
            "lost+found",
            ".s3o-tmp",
            "%41%f",
            "%0a%f",
            "%",
            "a%d",
            "a%e",
            "..",
            "%f%f",
        ] {
            assert_eq!(read(name), None, "{name}");
        }
        assert_eq!(read(&format!("x~{ID}%f")), None);
    }

    fn keys() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            any::<char>().prop_map(String::from),
            "[a-z~%./]{0,4}",
            "[%cdf0-9A-F]{1,3}",
            "[x]{240,260}",
            proptest::strategy::Just(format!("~{ID}")),
            proptest::sample::select(vec![
                "/",
                "..",
                ".",
                "lost+found",
                ".s3o-tmp",
                "\u{7f}",
                "%25"
            ])
            .prop_map(str::to_owned),
        ];
        collection::vec(piece, 1..12).prop_filter_map("a legal key", |pieces| {
            let key = pieces.concat();
            base::BackendKey::new(&key).map(|key| key.as_str().to_owned())
        })
    }

    proptest! {
        #[test]
        fn every_key_has_a_path_of_its_own_that_gives_it_back(
            keys in collection::vec(keys(), 1..20)
        ) {
            let mut owners: HashMap<String, String> = HashMap::new();
            for key in keys {
                check(&key);
                let path = path_of(&key);
                let owner = owners.entry(path).or_insert_with(|| key.clone());
                prop_assert_eq!(&*owner, &key);
            }
            // No file of one key is a directory on another's path.
            for path in owners.keys() {
                for (end, _) in path.match_indices('/') {
                    prop_assert!(!owners.contains_key(&path[..end]));
                }
            }
        }

        #[test]
        fn whatever_name_is_read_would_be_written_the_same(name in "[a-z~%./A-F0-9]{1,40}") {
            if let Some(key) = key_of(&name) {
                prop_assert_eq!(path_of(&key), name);
            }
        }
    }
}
