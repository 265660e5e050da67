//! The storage backends.

use std::collections::HashMap;

use base::BackendName;
use http::Uri;

use super::super::check::{CheckReport, KeyPosition};
use super::super::reader::Section;
use super::super::types::{
    BackendConfig, BackendKindConfig, HttpConfig, S3BackendConfig, UsageLimitsConfig,
};
use super::{PRESET, count_u32};

/// Keys that only the kind `s3` has.
const S3_KEYS: [&str; 10] = [
    "endpoint",
    "region",
    "bucket",
    "access_key_id",
    "secret_access_key",
    "force_path_style",
    "unsigned_payload",
    "disable_checksum",
    "ca_file",
    "http",
];

pub(super) fn backends(root: &Section<'_>, report: &mut CheckReport) -> Vec<BackendConfig> {
    let sections = root.list("backends");
    if sections.is_empty() && (root.is_list("backends") || !root.has("backends")) {
        report.problem(
            root.place_of("backends"),
            "there is no backend",
            "add one, such as a directory: kind: local with a path",
        );
    }
    let mut names: HashMap<String, KeyPosition> = HashMap::new();
    let mut stores: HashMap<String, KeyPosition> = HashMap::new();
    let mut backends = Vec::new();
    for (index, section) in sections.iter().enumerate() {
        let name = name(section, index, report);
        if let Some(name) = &name {
            let place = section.place_of("name");
            if let Some(first) = names.insert(name.as_str().to_owned(), place.clone()) {
                let what = format!(
                    "the name '{name}' stands already at {} (line {})",
                    first.path, first.line
                );
                report.problem(place, what, "choose another one");
            }
        }
        let kind = kind(section, report);
        if let Some((store, key)) = kind.as_ref().and_then(store) {
            let place = section.place_of(key);
            if let Some(first) = stores.insert(store, place.clone()) {
                let what = format!(
                    "this is the place of {} (line {}) too",
                    first.path, first.line
                );
                report.problem(place, what, "give each backend a place of its own");
            }
        }
        if let (Some(name), Some(kind)) = (name, kind) {
            let limit = |key| section.size(key).filter(|size| size.0 > 0);
            let (quota, max_object_size) = (limit("quota_bytes"), limit("max_object_size"));
            let http = http(&section.map("http"));
            let usage_limits = UsageLimitsConfig {
                requests: section
                    .count("api_request_limit")
                    .filter(|count| *count > 0),
                egress: limit("egress_byte_limit"),
                ingress: limit("ingress_byte_limit"),
            };
            backends.push(BackendConfig {
                name,
                kind,
                quota,
                max_object_size,
                http,
                usage_limits,
            });
        }
    }
    backends
}

/// What two backends cannot share, and the key to blame.
fn store(kind: &BackendKindConfig) -> Option<(String, &'static str)> {
    match kind {
        BackendKindConfig::Memory => None,
        BackendKindConfig::Local { path, .. } => {
            // The same directory under two spellings is caught by its marker at start.
            Some((format!("local {}", path.display()), "path"))
        }
        BackendKindConfig::S3(s3) => {
            let host = s3
                .endpoint
                .authority()
                .map_or("", |authority| authority.as_str());
            let (host, path) = (host.to_ascii_lowercase(), s3.endpoint.path());
            Some((
                format!("s3 {host} {} {}", path.trim_end_matches('/'), s3.bucket),
                "bucket",
            ))
        }
    }
}

fn name(section: &Section<'_>, index: usize, report: &mut CheckReport) -> Option<BackendName> {
    let text = section
        .text("name")
        .unwrap_or_else(|| format!("backend-{}", index + 1));
    text.parse::<BackendName>()
        .map_err(|error| {
            let way_out = "use 1 to 128 printable characters without '/'";
            report.problem(section.place_of("name"), error.to_string(), way_out);
        })
        .ok()
}

fn kind(section: &Section<'_>, report: &mut CheckReport) -> Option<BackendKindConfig> {
    if section.is_refused("kind") {
        return None;
    }
    let kind = section.text("kind").expect(PRESET);
    if kind != "local" {
        refuse_foreign(section, &kind, &["path", "shared"], report);
    }
    if kind != "s3" {
        refuse_foreign(section, &kind, &S3_KEYS, report);
    }
    match kind.as_str() {
        "memory" => Some(BackendKindConfig::Memory),
        "local" => {
            let path = section.path("path");
            if path.is_none() && !section.is_refused("path") {
                missing(section, "path", "name the directory", report);
            }
            Some(BackendKindConfig::Local {
                path: path?,
                shared: section.flag("shared").expect(PRESET),
            })
        }
        _ => s3(section, report).map(|s3| BackendKindConfig::S3(Box::new(s3))),
    }
}

fn refuse_foreign(section: &Section<'_>, kind: &str, keys: &[&str], report: &mut CheckReport) {
    for key in keys {
        if section.has(key) {
            let what = format!("a backend of the kind {kind} has no {key}");
            report.problem(section.place_of(key), what, "remove it, or correct kind");
        }
    }
}

fn missing(section: &Section<'_>, key: &str, way_out: &str, report: &mut CheckReport) {
    let mut place = section.place_of(key);
    place.line = section.place().line;
    report.problem(place, "the key is missing", way_out);
}

fn s3(section: &Section<'_>, report: &mut CheckReport) -> Option<S3BackendConfig> {
    for (key, way_out) in [
        (
            "endpoint",
            "name the provider, such as https://s3.example.com",
        ),
        ("bucket", "name the provider's bucket"),
        ("access_key_id", "give the public half of the key pair"),
    ] {
        if section.text(key).is_none() && !section.is_refused(key) {
            missing(section, key, way_out, report);
        }
    }
    if !section.has_secret("secret_access_key") {
        let way_out = "give it, or secret_access_key_file with the name of a file that holds it";
        missing(section, "secret_access_key", way_out, report);
    }
    let secret = section.secret("secret_access_key", report);
    let endpoint = endpoint(section, report);
    Some(S3BackendConfig {
        endpoint: endpoint?,
        region: section.text("region").expect(PRESET),
        bucket: section.text("bucket")?,
        access_key_id: section.text("access_key_id")?,
        secret_access_key: secret?,
        force_path_style: section.flag("force_path_style"),
        unsigned_payload: section.flag("unsigned_payload"),
        disable_checksum: section.flag("disable_checksum").expect(PRESET),
        ca_file: section.path("ca_file"),
    })
}

fn endpoint(section: &Section<'_>, report: &mut CheckReport) -> Option<Uri> {
    let text = section.text("endpoint")?;
    let fault = match text.parse::<Uri>() {
        Err(_) => "it is not a URL",
        Ok(uri) if !matches!(uri.scheme_str(), Some("http" | "https")) => {
            "the scheme http:// or https:// is missing"
        }
        Ok(uri)
            if uri
                .authority()
                .is_none_or(|authority| authority.as_str().contains('@')) =>
        {
            "it must not hold a user or password"
        }
        Ok(uri) if uri.host().is_none_or(str::is_empty) => "the host is missing",
        Ok(uri) if uri.query().is_some() || text.contains('#') => {
            "it must not have a query or fragment"
        }
        Ok(uri) => return Some(uri),
    };
    // The text itself stays out of the message: it may hold a password.
    let way_out = "write https://host or https://host:port; the bucket has a key of its own";
    report.problem(section.place_of("endpoint"), fault, way_out);
    None
}

fn http(http: &Section<'_>) -> HttpConfig {
    let duration = |name| http.duration(name).expect(PRESET);
    let idle = http.count("max_idle_conns_per_host").expect(PRESET);
    HttpConfig {
        connect_timeout: duration("connect_timeout"),
        body_idle_timeout: duration("body_idle_timeout"),
        max_idle_conns_per_host: usize::try_from(idle).unwrap_or(usize::MAX),
        max_conns_per_host: count_u32(http, "max_conns_per_host"),
    }
}
