//! What a credential may do, where, and from where.

use std::net::IpAddr;

use base::BucketName;
use ipnet::IpNet;

/// Something that a credential may do in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `list-buckets`: see that the bucket exists.
    ListBuckets,
    /// `list`: see keys and uploads.
    List,
    /// `read`: read objects and what is known of them.
    Read,
    /// `write`: write objects, in parts too, and replace them.
    Write,
    /// `delete`: delete objects.
    Delete,
    /// `tags`: read and write the tags of objects.
    Tags,
}

impl Verb {
    /// All verbs.
    pub const ALL: [Self; 6] = [
        Self::ListBuckets,
        Self::List,
        Self::Read,
        Self::Write,
        Self::Delete,
        Self::Tags,
    ];

    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ListBuckets => "list-buckets",
            Self::List => "list",
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Tags => "tags",
        }
    }

    /// The verb of this word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == name)
    }
}

/// A set of verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verbs(u8);

impl Verbs {
    /// Whether the verb is in it.
    pub const fn contains(self, verb: Verb) -> bool {
        self.0 & (1 << verb as u8) != 0
    }
}

impl FromIterator<Verb> for Verbs {
    fn from_iter<I: IntoIterator<Item = Verb>>(verbs: I) -> Self {
        Self(
            verbs
                .into_iter()
                .fold(0, |set, verb| set | (1 << verb as u8)),
        )
    }
}

/// What somebody may do in one bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The bucket.
    pub bucket: BucketName,
    /// What; all verbs by default.
    pub allow: Verbs,
    /// Only with keys that begin with one of these; empty (the default) means every key.
    pub prefixes: Vec<String>,
}

impl Grant {
    /// Whether it covers a key, or all keys that begin so.
    pub fn covers(&self, key: &str) -> bool {
        self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| key.starts_with(prefix))
    }
}

/// Whether an address lies in one of the networks; no networks mean any address. An IPv4 peer of an
/// IPv6 socket counts as the IPv4 address that it is.
pub fn is_in_networks(networks: &[IpNet], peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    networks.is_empty() || networks.iter().any(|network| network.contains(&peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_named_once_and_kept_apart() {
        for verb in Verb::ALL {
            assert_eq!(Verb::from_name(verb.as_str()), Some(verb));
            let only: Verbs = [verb].into_iter().collect();
            for other in Verb::ALL {
                assert_eq!(only.contains(other), verb == other);
            }
        }
    }

    #[test]
    fn networks_know_both_families() {
        let networks = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        for (peer, inside) in [
            ("10.1.2.3", true),
            ("11.0.0.1", false),
            ("::ffff:10.1.2.3", true),
            ("fd00::1", true),
            ("fe80::1", false),
        ] {
            assert_eq!(
                is_in_networks(&networks, peer.parse().unwrap()),
                inside,
                "{peer}"
            );
        }
        assert!(is_in_networks(&[], "192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn prefixes_are_beginnings_of_keys() {
        let mut grant = Grant {
            bucket: "b".parse().unwrap(),
            allow: Verb::ALL.into_iter().collect(),
            prefixes: Vec::new(),
        };
        assert!(grant.covers("") && grant.covers("x"));
        grant.prefixes = vec!["a/".into(), "b".into()];
        assert!(grant.covers("a/x") && grant.covers("bc") && grant.covers("a/"));
        assert!(!grant.covers("a") && !grant.covers("") && !grant.covers("c/a/"));
    }
}
