//! The virtual buckets.

use std::collections::HashMap;

use base::{BucketName, NameError};

use super::super::check::CheckReport;
use super::super::reader::Section;
use super::super::types::{BucketConfig, MetricsConfig};
use super::access::{SeenCredentials, credential, unique};
use super::{cors, count_u32};

/// Names that are routes of the listener.
const ROUTES: [&str; 4] = ["health", "metrics", "admin", "ui"];

/// Whether no bucket can have this name, because the path belongs to the listener itself.
pub fn is_route(name: &str) -> bool {
    ROUTES.contains(&name)
}

pub(super) fn buckets(
    root: &Section<'_>,
    metrics: Option<&MetricsConfig>,
    has_root: bool,
    seen: &mut SeenCredentials,
    report: &mut CheckReport,
) -> Vec<BucketConfig> {
    let sections = root.list("buckets");
    if sections.is_empty() && !has_root && !has_other_shape(root, "buckets") {
        report.problem(
            root.place_of("buckets"),
            "there is no bucket",
            "add one: a name, and credentials with access_key_id and secret_access_key",
        );
    }
    let mut names = HashMap::new();
    let mut buckets = Vec::new();
    for section in &sections {
        let name = name(section, metrics, report);
        if let Some(name) = &name {
            unique(&mut names, name.as_str(), section.place_of("name"), report);
        }
        let list = section.list("credentials");
        if list.is_empty() && !has_root && !has_other_shape(section, "credentials") {
            report.problem(
                section.place_of("credentials"),
                "the bucket has no credential",
                "add one: access_key_id with secret_access_key, or token",
            );
        }
        let mut credentials = Vec::new();
        for item in &list {
            credential(item, seen, &mut credentials, report);
        }
        let max_multipart_uploads =
            Some(count_u32(section, "max_multipart_uploads")).filter(|count| *count > 0);
        let cors = cors::rules(section, report);
        if let Some(name) = name {
            buckets.push(BucketConfig {
                name,
                credentials,
                max_multipart_uploads,
                cors,
            });
        }
    }
    buckets
}

/// Whether something stands there that was reported already.
fn has_other_shape(section: &Section<'_>, name: &str) -> bool {
    section.has(name) && !section.is_list(name)
}

fn name(
    section: &Section<'_>,
    metrics: Option<&MetricsConfig>,
    report: &mut CheckReport,
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
    if is_route(&text) || metrics_route == Some(text.as_str()) {
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
