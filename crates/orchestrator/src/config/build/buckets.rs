//! The virtual buckets and what opens them.

use std::collections::HashMap;

use base::{BucketName, NameError, Secret};

use super::super::check::{Place, Report};
use super::super::reader::Section;
use super::super::types::{BucketConfig, Credential, MetricsConfig};
use super::count_u32;

/// Names that are routes of the listener.
const ROUTES: [&str; 4] = ["health", "metrics", "admin", "ui"];

pub(super) fn buckets(
    root: &Section<'_>,
    metrics: Option<&MetricsConfig>,
    report: &mut Report,
) -> Vec<BucketConfig> {
    let sections = root.list("buckets");
    if sections.is_empty() && !has_other_shape(root, "buckets") {
        report.problem(
            root.place_of("buckets"),
            "there is no bucket",
            "add one: a name, and credentials with access_key_id and secret_access_key",
        );
    }
    let mut names = HashMap::new();
    let mut ids = HashMap::new();
    let mut tokens = Vec::new();
    let mut buckets = Vec::new();
    for section in &sections {
        let name = name(section, metrics, report);
        if let Some(name) = &name {
            unique(&mut names, name.as_str(), section.place_of("name"), report);
        }
        let list = section.list("credentials");
        if list.is_empty() && !has_other_shape(section, "credentials") {
            report.problem(
                section.place_of("credentials"),
                "the bucket has no credential",
                "add one: access_key_id with secret_access_key, or token",
            );
        }
        let mut credentials = Vec::new();
        for item in &list {
            credential(item, &mut credentials, report);
            if let Some(id) = item.text("access_key_id") {
                unique(&mut ids, &id, item.place_of("access_key_id"), report);
            }
        }
        for (item, token) in tokens_of(&list, &credentials) {
            if tokens
                .iter()
                .any(|known: &Secret| known.reveal() == token.reveal())
            {
                report.problem(item, "the token is used twice", "draw another one");
            }
            tokens.push(token);
        }
        let max_multipart_uploads =
            Some(count_u32(section, "max_multipart_uploads")).filter(|count| *count > 0);
        if let Some(name) = name {
            buckets.push(BucketConfig {
                name,
                credentials,
                max_multipart_uploads,
            });
        }
    }
    buckets
}

/// Whether something stands there that was reported already.
fn has_other_shape(section: &Section<'_>, name: &str) -> bool {
    section.has(name) && !section.is_list(name)
}

fn unique(seen: &mut HashMap<String, Place>, value: &str, place: Place, report: &mut Report) {
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

fn name(
    section: &Section<'_>,
    metrics: Option<&MetricsConfig>,
    report: &mut Report,
) -> Option<BucketName> {
    let Some(text) = section.text("name") else {
        if !section.has("name") {
            report.problem(
                section.place_of("name"),
                "the bucket has no name",
                "add name: NAME",
            );
        }
        return None;
    };
    let metrics_route = metrics
        .filter(|metrics| metrics.listen.is_none())
        .and_then(|metrics| metrics.path.split('/').nth(1));
    if ROUTES.contains(&text.as_str()) || metrics_route == Some(text.as_str()) {
        report.problem(
            section.place_of("name"),
            format!("'{text}' is a path of the server itself"),
            "choose another name",
        );
        return None;
    }
    match text.parse::<BucketName>() {
        Ok(name) => Some(name),
        Err(error @ NameError::BadStart { .. }) => {
            let what = format!("'{text}': {error}");
            report.problem(
                section.place_of("name"),
                what,
                "begin with a letter or digit",
            );
            None
        }
        Err(error) => {
            let way_out = "use 1 to 255 bytes without '/' and control characters";
            report.problem(section.place_of("name"), error.to_string(), way_out);
            None
        }
    }
}

fn credential(section: &Section<'_>, into: &mut Vec<Credential>, report: &mut Report) {
    let id = section.has("access_key_id");
    let secret = section.has_secret("secret_access_key");
    let token = section.has_secret("token");
    match (id, secret, token) {
        (false, false, false) => report.problem(
            section.place(),
            "the credential is empty",
            "give access_key_id with secret_access_key, or token",
        ),
        (true, false, _) => report.problem(
            section.place_of("access_key_id"),
            "secret_access_key is missing",
            "give both, or neither",
        ),
        (false, true, _) => report.problem(
            section.place_of("secret_access_key"),
            "access_key_id is missing",
            "give both, or neither",
        ),
        (true, true, _) | (false, false, true) => {}
    }
    if let (Some(access_key_id), Some(secret_access_key)) = (
        section.text("access_key_id"),
        section.secret("secret_access_key", report),
    ) {
        into.push(Credential::KeyPair {
            access_key_id,
            secret_access_key,
        });
    }
    if let Some(token) = section.secret("token", report) {
        into.push(Credential::Token(token));
    }
}

/// The tokens of a bucket with the place of each.
fn tokens_of(list: &[Section<'_>], credentials: &[Credential]) -> Vec<(Place, Secret)> {
    let places = list
        .iter()
        .filter(|item| item.has_secret("token"))
        .map(|item| item.place_of("token"));
    let tokens = credentials
        .iter()
        .filter_map(|credential| match credential {
            Credential::Token(token) => Some(token.clone()),
            Credential::KeyPair { .. } => None,
        });
    places.zip(tokens).collect()
}
