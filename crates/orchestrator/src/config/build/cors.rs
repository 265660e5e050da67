//! `buckets[].cors`: which web pages may use the bucket.

use http::{HeaderName, Method};

use super::super::check::{CheckReport, alternatives};
use super::super::reader::Section;
use super::super::types::CorsRuleConfig;

/// What a rule may allow. Source: Amazon S3 user guide, "Elements of a CORS configuration".
const METHODS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "HEAD"];

pub(super) fn rules(bucket: &Section<'_>, report: &mut CheckReport) -> Vec<CorsRuleConfig> {
    let sections = bucket.list("cors");
    sections
        .iter()
        .map(|section| rule(section, report))
        .collect()
}

fn rule(section: &Section<'_>, report: &mut CheckReport) -> CorsRuleConfig {
    let allowed_origins = section.words("allowed_origins");
    for (name, empty) in [
        ("allowed_origins", allowed_origins.is_empty()),
        (
            "allowed_methods",
            section.words("allowed_methods").is_empty(),
        ),
    ] {
        if empty {
            let what = format!("the rule has no {name}");
            report.problem(section.place_of(name), what, "name at least one");
        }
    }
    let allowed_headers = section.words("allowed_headers");
    for (name, patterns) in [
        ("allowed_origins", &allowed_origins),
        ("allowed_headers", &allowed_headers),
    ] {
        for pattern in patterns.iter().filter(|text| text.matches('*').count() > 1) {
            let what = format!("'{pattern}' has more than one *");
            report.problem(section.place_of(name), what, "write one at most");
        }
    }
    CorsRuleConfig {
        allowed_methods: methods(section, report),
        expose_headers: headers(section, report),
        max_age: section.count("max_age").filter(|seconds| *seconds > 0),
        allowed_origins,
        allowed_headers,
    }
}

fn methods(section: &Section<'_>, report: &mut CheckReport) -> Vec<Method> {
    let method = |word: &String| {
        let known = METHODS.contains(&word.as_str());
        if !known {
            let what = format!("'{word}' is no method that a rule can allow");
            let way_out = format!("write {}", alternatives(&METHODS));
            report.problem(section.place_of("allowed_methods"), what, way_out);
        }
        known.then(|| Method::try_from(word.as_str()).expect("the list holds methods"))
    };
    let words = section.words("allowed_methods");
    words.iter().filter_map(method).collect()
}

/// What pages that upload in parts and check what they read need of an answer.
const UPLOADS_IN_PAGES: &str = "ETag, x-amz-checksum-crc32, x-amz-checksum-crc32c, \
     x-amz-checksum-crc64nvme, x-amz-checksum-sha1, x-amz-checksum-sha256, x-amz-checksum-type";

/// No patterns, as in Amazon S3: a browser takes a `*` for itself, and exposes nothing.
fn headers(section: &Section<'_>, report: &mut CheckReport) -> Vec<HeaderName> {
    let header = |word: &String| {
        if word.contains('*') {
            let what = format!("'{word}' is a pattern, which browsers do not understand");
            let way_out = format!("name each header; uploads in a page need {UPLOADS_IN_PAGES}");
            report.problem(section.place_of("expose_headers"), what, way_out);
            return None;
        }
        let name = HeaderName::try_from(word.as_str()).ok();
        if name.is_none() {
            let what = format!("'{word}' is not the name of a header");
            report.problem(section.place_of("expose_headers"), what, "correct it");
        }
        name
    };
    let words = section.words("expose_headers");
    words.iter().filter_map(header).collect()
}
