//! `CORSConfiguration`

use super::write::Writer;

/// A rule as GetBucketCors shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CorsRule<'a> {
    /// `AllowedOrigin`
    pub origins: Vec<&'a str>,
    /// `AllowedMethod`
    pub methods: Vec<&'a str>,
    /// `AllowedHeader`
    pub headers: Vec<&'a str>,
    /// `ExposeHeader`
    pub expose: Vec<&'a str>,
    /// `MaxAgeSeconds`
    pub max_age: Option<u64>,
}

/// Writes the rules of a bucket.
pub fn print_cors<'a>(rules: impl IntoIterator<Item = CorsRule<'a>>) -> String {
    let mut writer = Writer::new("CORSConfiguration");
    for rule in rules {
        writer.open("CORSRule");
        for (name, values) in [
            ("AllowedHeader", &rule.headers),
            ("AllowedMethod", &rule.methods),
            ("AllowedOrigin", &rule.origins),
            ("ExposeHeader", &rule.expose),
        ] {
            for value in values {
                writer.element(name, value);
            }
        }
        if let Some(seconds) = rule.max_age {
            writer.number("MaxAgeSeconds", seconds);
        }
        writer.close("CORSRule");
    }
    writer.finish()
}
