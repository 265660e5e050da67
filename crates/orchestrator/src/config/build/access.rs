//! Credentials: what proves them, and what they may do.

use std::collections::HashMap;
use std::net::IpAddr;

use base::{BucketName, Secret};
use ipnet::IpNet;

use super::super::check::{CheckReport, KeyPosition, alternatives};
use super::super::reader::Section;
use super::super::scope::{Grant, Verb, Verbs};
use super::super::types::{
    BucketConfig, BucketCredential, Credential, CredentialGrant, RootCredential,
};

/// A token that is shorter is worth a warning: whoever guesses it rules the server.
const ADMIN_TOKEN_BYTES_ADVISED: usize = 16;

/// Access key ids and tokens that were seen, so that each opens one thing.
#[derive(Default)]
pub(super) struct SeenCredentials {
    ids: HashMap<String, KeyPosition>,
    tokens: Vec<Secret>,
}

impl SeenCredentials {
    fn id(&mut self, id: &str, place: KeyPosition, report: &mut CheckReport) {
        unique(&mut self.ids, id, place, report);
    }

    fn token(&mut self, token: &Secret, place: KeyPosition, report: &mut CheckReport) {
        if self
            .tokens
            .iter()
            .any(|known| known.reveal() == token.reveal())
        {
            report.problem(place, "the token is used twice", "draw another one");
        }
        self.tokens.push(token.clone());
    }
}

pub(super) fn unique(
    seen: &mut HashMap<String, KeyPosition>,
    value: &str,
    place: KeyPosition,
    report: &mut CheckReport,
) {
    match seen.get(value) {
        Some(first) => {
            let what = format!(
                "'{value}' stands already at {} (line {})",
                first.path, first.line
            );
            report.problem(place, what, "choose another one");
        }
        None => {
            seen.insert(value.to_owned(), place);
        }
    }
}

/// One item of `buckets[].credentials`: a key pair, a token, or both under the same rights.
pub(super) fn credential(
    section: &Section<'_>,
    seen: &mut SeenCredentials,
    into: &mut Vec<BucketCredential>,
    report: &mut CheckReport,
) {
    let id = section.has("access_key_id");
    let secret = section.has_secret("secret_access_key");
    let token = section.has_secret("token");
    if !id && !secret && !token {
        report.problem(
            section.place(),
            "the credential is empty",
            "give access_key_id with secret_access_key, or token",
        );
    }
    let mut proofs = Vec::new();
    if let Some((access_key_id, secret_access_key)) = key_pair(section, seen, report) {
        proofs.push(Credential::KeyPair {
            access_key_id,
            secret_access_key,
        });
    }
    if let Some(token) = section.secret("token", report) {
        seen.token(&token, section.place_of("token"), report);
        proofs.push(Credential::Token(token));
    }
    let allow = verbs(section, report);
    let prefixes = section.words("prefixes");
    let networks = networks(section, report);
    for proof in proofs {
        into.push(BucketCredential {
            proof,
            allow,
            prefixes: prefixes.clone(),
            networks: networks.clone(),
        });
    }
}

/// Both halves of a key pair, or neither.
fn key_pair(
    section: &Section<'_>,
    seen: &mut SeenCredentials,
    report: &mut CheckReport,
) -> Option<(String, Secret)> {
    let halves = [
        (section.has("access_key_id"), "access_key_id"),
        (section.has_secret("secret_access_key"), "secret_access_key"),
    ];
    for ((given, name), (other_given, other)) in [(halves[0], halves[1]), (halves[1], halves[0])] {
        if given && !other_given {
            report.problem(
                section.place_of(name),
                format!("{other} is missing"),
                "give both, or neither",
            );
        }
    }
    let id = section.text("access_key_id");
    if let Some(id) = &id {
        seen.id(id, section.place_of("access_key_id"), report);
    }
    let secret = section.secret("secret_access_key", report);
    Some((id?, secret?))
}

/// `auth.root`
pub(super) fn root(
    section: &Section<'_>,
    seen: &mut SeenCredentials,
    report: &mut CheckReport,
) -> Option<RootCredential> {
    let (access_key_id, secret_access_key) = key_pair(section, seen, report)?;
    Some(RootCredential {
        access_key_id,
        secret_access_key,
    })
}

/// `ui.admin_token`, or what stands in for it.
pub(super) fn admin_token(ui: &Section<'_>, report: &mut CheckReport) -> Option<Secret> {
    let names = ["admin_token", "admin_key"];
    // Both are read, so that a file that cannot be is a problem even where the other one counts.
    let given = names.map(|name| (name, ui.secret(name, report)));
    let (name, token) = given
        .into_iter()
        .find_map(|(name, token)| Some((name, token?)))?;
    let text = token.reveal();
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        report.problem(
            ui.place_of(name),
            "it has blanks or characters that no header can carry as they are",
            "draw another one: openssl rand -hex 32",
        );
        return None;
    }
    if text.len() < ADMIN_TOKEN_BYTES_ADVISED {
        report.warning(
            ui.place_of(name),
            format!("a token of {} characters can be guessed", text.len()),
            "draw another one: openssl rand -hex 32",
        );
    }
    Some(token)
}

/// `grants`: further buckets for key pairs that stand elsewhere in the file.
pub(super) fn grants(
    root: &Section<'_>,
    seen: &SeenCredentials,
    (root_id, buckets): (Option<&str>, &[BucketConfig]),
    report: &mut CheckReport,
) -> Vec<CredentialGrant> {
    let mut grants = Vec::new();
    for section in &root.list("grants") {
        for name in ["access_key_id", "bucket"] {
            if !section.has(name) {
                let what = format!("the grant has no {name}");
                report.problem(section.place_of(name), what, format!("add {name}: NAME"));
            }
        }
        let id = section.text("access_key_id");
        if let Some(id) = &id {
            let place = || section.place_of("access_key_id");
            if root_id == Some(id) {
                let way_out = "remove the grant";
                report.problem(place(), "the root account reaches all buckets", way_out);
            } else if !seen.ids.contains_key(id) {
                let what = format!("no bucket has a credential with the access key '{id}'");
                let way_out = "name one of buckets[].credentials[].access_key_id";
                report.problem(place(), what, way_out);
            }
        }
        let bucket = section
            .text("bucket")
            .and_then(|name| bucket(section, &name, report));
        if let Some(name) = &bucket
            && !buckets.iter().any(|known| known.name == *name)
        {
            let what = format!("the file has no bucket '{name}'");
            let way_out = "correct the name, unless a client makes the bucket";
            report.warning(section.place_of("bucket"), what, way_out);
        }
        let (allow, prefixes) = (verbs(section, report), section.words("prefixes"));
        if let (Some(access_key_id), Some(bucket)) = (id, bucket) {
            let grant = Grant {
                bucket,
                allow,
                prefixes,
            };
            grants.push(CredentialGrant {
                access_key_id,
                grant,
            });
        }
    }
    grants
}

fn bucket(section: &Section<'_>, name: &str, report: &mut CheckReport) -> Option<BucketName> {
    match name.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            let what = format!("'{name}': {error}");
            report.problem(section.place_of("bucket"), what, "name a bucket");
            None
        }
    }
}

/// `allow`; all verbs where it is absent.
fn verbs(section: &Section<'_>, report: &mut CheckReport) -> Verbs {
    let words = section.words("allow");
    if words.is_empty() {
        return Verb::ALL.into_iter().collect();
    }
    let verb = |word: &String| {
        let verb = Verb::from_name(word);
        if verb.is_none() {
            let known = Verb::ALL.map(Verb::as_str);
            let what = format!("'{word}' is unknown");
            let way_out = format!("write {}", alternatives(&known));
            report.problem(section.place_of("allow"), what, way_out);
        }
        verb
    };
    words.iter().filter_map(verb).collect()
}

/// `networks`: CIDRs, or single addresses.
fn networks(section: &Section<'_>, report: &mut CheckReport) -> Vec<IpNet> {
    let network = |word: &String| {
        let address = || word.parse::<IpAddr>().ok().map(IpNet::from);
        let network = word.parse().ok().or_else(address);
        if network.is_none() {
            let what = format!("'{word}' is not a network");
            let way_out = "write an address with a length: 10.0.0.0/8 or fd00::/8";
            report.problem(section.place_of("networks"), what, way_out);
        }
        network
    };
    let words = section.words("networks");
    words.iter().filter_map(network).collect()
}
