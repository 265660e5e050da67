//! The admin API as both ends know it: which calls there are, and what their answers hold.
//!
//! One table, [`ENTRIES`], names every call once. The front routes by it, the command line makes its
//! verbs of it, and `docs/admin.md` is printed from it. A new call is an entry here, its answer in
//! [`answers`], its handler in the front and its table in the command line; the compiler asks for the
//! last two.

pub mod answers;
pub mod client;
mod reference;
mod table;

use http::Method;

pub use reference::render as render_reference;
pub use table::ENTRIES;

/// What the paths of all calls begin with.
pub const PREFIX: &str = "/admin/api/";

/// The header that carries the token.
pub const TOKEN_HEADER: &str = "x-admin-token";

/// The largest body of a call, in bytes.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Rows of the cleanup queue that are shown.
pub const QUEUE_ITEMS_MAX: u32 = 50;

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// The backends at a glance.
    Status,
    /// Where the bytes of an object are.
    ObjectLocations,
    /// The background workers.
    Workers,
    /// What waits for deletion on backends.
    CleanupQueue,
    /// The processes that share the catalogue.
    Instances,
    /// The least severe level that is logged.
    LogLevel,
    /// Another one.
    SetLogLevel,
}

/// How a call is made and what comes back.
#[derive(Debug)]
pub struct AdminEntry {
    /// Which call.
    pub endpoint: Endpoint,
    /// The method.
    pub method: Method,
    /// The path behind [`PREFIX`].
    pub path: &'static str,
    /// The verb of the command line; two calls may share one and differ in their parameters.
    pub verb: &'static str,
    /// The name in audit events, behind `admin.`.
    pub operation: &'static str,
    /// What it does, as the help of the command line says it.
    pub about: &'static str,
    /// What it must be given.
    pub params: &'static [Param],
    /// What the answer holds: a path into the JSON, and its meaning.
    pub answer: &'static [(&'static str, &'static str)],
}

/// Something that a call must be given.
#[derive(Debug)]
pub struct Param {
    /// The name in the query or the body.
    pub name: &'static str,
    /// The flag of the command line.
    pub flag: &'static str,
    /// Where it travels.
    pub place: ParamPlace,
    /// How the help of the command line shows its value.
    pub value: &'static str,
    /// What it is.
    pub about: &'static str,
}

/// Where a parameter travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamPlace {
    /// In the query.
    Query,
    /// In the body, a JSON object.
    Body,
}

/// Why a path and a method are no call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoCall {
    /// No call has the path.
    Path,
    /// Those that have it have other methods.
    Method {
        /// Which, with commas between.
        allow: String,
    },
}

/// Whether a path belongs to the admin API.
pub fn is_admin(path: &str) -> bool {
    path.starts_with(PREFIX) || path == PREFIX.trim_end_matches('/')
}

/// The call that a request makes.
///
/// # Errors
/// [`NoCall`]
pub fn find(method: &Method, path: &str) -> Result<&'static AdminEntry, NoCall> {
    let rest = path.strip_prefix(PREFIX).ok_or(NoCall::Path)?;
    let mut allow = Vec::new();
    for entry in ENTRIES.iter().filter(|entry| entry.path == rest) {
        if entry.method == *method {
            return Ok(entry);
        }
        allow.push(entry.method.as_str());
    }
    match allow.is_empty() {
        true => Err(NoCall::Path),
        false => Err(NoCall::Method {
            allow: allow.join(", "),
        }),
    }
}

/// The verbs of the command line in the order of the table, each with its calls.
pub fn verbs() -> Vec<(&'static str, Vec<&'static AdminEntry>)> {
    let mut verbs: Vec<(&str, Vec<&AdminEntry>)> = Vec::new();
    for entry in ENTRIES {
        match verbs.iter_mut().find(|(verb, _)| *verb == entry.verb) {
            Some((_, entries)) => entries.push(entry),
            None => verbs.push((entry.verb, vec![entry])),
        }
    }
    verbs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_apart_by_path_and_method() {
        let found = |method: Method, path| find(&method, path).map(|entry| entry.endpoint);
        assert_eq!(
            found(Method::GET, "/admin/api/status"),
            Ok(Endpoint::Status)
        );
        assert_eq!(
            found(Method::PUT, "/admin/api/log-level"),
            Ok(Endpoint::SetLogLevel)
        );
        for path in [
            "/admin/api",
            "/admin/api/",
            "/admin/api/status/",
            "/admin/api/stat%75s",
        ] {
            assert!(is_admin(path));
            assert_eq!(found(Method::GET, path), Err(NoCall::Path), "{path}");
        }
        for path in ["/admin", "/admin/apis", "/adminapi/", "/ADMIN/API/status"] {
            assert!(!is_admin(path), "{path}");
        }
        let allow = "GET, PUT".to_owned();
        assert_eq!(
            found(Method::POST, "/admin/api/log-level"),
            Err(NoCall::Method { allow })
        );
        let allow = "GET".to_owned();
        assert_eq!(
            found(Method::HEAD, "/admin/api/status"),
            Err(NoCall::Method { allow })
        );
    }

    #[test]
    fn every_call_stands_once_and_calls_of_one_verb_differ_in_what_they_are_given() {
        for entry in ENTRIES {
            let same = |other: &&AdminEntry| other.endpoint == entry.endpoint;
            assert_eq!(ENTRIES.iter().filter(same).count(), 1, "{entry:?}");
            let same =
                |other: &&AdminEntry| other.path == entry.path && other.method == entry.method;
            assert_eq!(ENTRIES.iter().filter(same).count(), 1, "{entry:?}");
            let same = |other: &&AdminEntry| other.operation == entry.operation;
            assert_eq!(ENTRIES.iter().filter(same).count(), 1, "{entry:?}");
        }
        for (verb, entries) in verbs() {
            let mut counts: Vec<_> = entries.iter().map(|entry| entry.params.len()).collect();
            counts.dedup();
            assert_eq!(counts.len(), entries.len(), "{verb}");
        }
    }
}
