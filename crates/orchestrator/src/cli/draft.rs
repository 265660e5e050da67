//! A configuration file to be written: rendered with comments, checked, stored.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base::Secret;

use super::keypair::KeyPair;

/// The file holds secrets: its owner reads and writes it, nobody else.
const FILE_MODE: u32 = 0o600;

/// What the new file will say.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) listen: String,
    pub(super) database: String,
    pub(super) bucket: String,
    pub(super) keys: KeyPair,
    pub(super) backends: Vec<DraftBackend>,
}

/// One backend of the new file.
#[derive(Debug)]
pub(super) struct DraftBackend {
    pub(super) name: Option<String>,
    pub(super) place: DraftPlace,
    pub(super) quota: Option<String>,
}

/// Where a backend of the new file stores its bytes.
#[derive(Debug)]
pub(super) enum DraftPlace {
    Local {
        path: String,
    },
    S3 {
        endpoint: String,
        region: Option<String>,
        bucket: String,
        access_key_id: String,
        secret: DraftSecret,
    },
}

/// Where a secret of the new file stands.
#[derive(Debug)]
pub(super) enum DraftSecret {
    Inline(Secret),
    File(String),
}

impl Draft {
    /// The text of the file.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        self.render_into(&mut text)
            .expect("a string takes any text");
        text
    }

    fn render_into(&self, out: &mut String) -> std::fmt::Result {
        let q = |text: &str| quote(text);
        writeln!(
            out,
            "# Configuration of s3-orchestrator. It holds secrets: keep it private."
        )?;
        writeln!(
            out,
            "# Every key is described in docs/configuration.md. After a change, try"
        )?;
        writeln!(
            out,
            "# 's3-orchestrator validate --config THIS_FILE' and restart the server."
        )?;
        writeln!(out, "\nserver:")?;
        writeln!(
            out,
            "  # ':9000' would accept requests from other machines, too."
        )?;
        writeln!(out, "  listen_addr: {}", q(&self.listen))?;
        writeln!(out, "  log_level: info  # debug, info, warn or error")?;
        writeln!(out, "  # HTTPS needs both files:")?;
        writeln!(out, "  # tls:")?;
        writeln!(out, "  #   cert_file: /etc/s3-orchestrator/cert.pem")?;
        writeln!(out, "  #   key_file: /etc/s3-orchestrator/key.pem")?;
        writeln!(
            out,
            "\n# The catalogue knows where every object's bytes are: back it up with"
        )?;
        writeln!(out, "# 's3-orchestrator catalogue backup --to FILE'.")?;
        writeln!(
            out,
            "database:\n  driver: sqlite\n  path: {}",
            q(&self.database)
        )?;
        writeln!(
            out,
            "\n# What clients see. A second credential allows keys to be rotated."
        )?;
        writeln!(
            out,
            "buckets:\n  - name: {}\n    credentials:",
            q(&self.bucket)
        )?;
        writeln!(
            out,
            "      - access_key_id: {}",
            q(&self.keys.access_key_id)
        )?;
        writeln!(
            out,
            "        secret_access_key: {}",
            q(self.keys.secret_access_key.reveal())
        )?;
        writeln!(
            out,
            "\n# Where bytes are stored. 'pack' fills the first backend, then the next;"
        )?;
        writeln!(out, "# 'spread' keeps all of them equally full.")?;
        writeln!(out, "routing_strategy: pack\n")?;
        writeln!(
            out,
            "# A backend's name is recorded in the catalogue: do not change it later."
        )?;
        writeln!(out, "backends:")?;
        for (index, backend) in self.backends.iter().enumerate() {
            let name = backend
                .name
                .clone()
                .unwrap_or_else(|| format!("backend-{}", index + 1));
            writeln!(out, "  - name: {}", q(&name))?;
            render_place(out, &backend.place)?;
            match &backend.quota {
                Some(quota) => writeln!(out, "    quota_bytes: {}", q(quota))?,
                None => writeln!(out, "    # quota_bytes: 10GiB  # no limit without it")?,
            }
        }
        writeln!(
            out,
            "\ntelemetry:\n  metrics:\n    enabled: true  # at /metrics of the same listener"
        )
    }

    /// Writes the text into a file that does not exist yet.
    ///
    /// # Errors
    /// `AlreadyExists` where it does; nothing is overwritten, and no half a file stays.
    pub(super) fn store(text: &str, file: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut open = options
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(file)?;
        let written = open
            .write_all(text.as_bytes())
            .and_then(|()| open.sync_all());
        if written.is_err() {
            // The first error is the one to tell.
            let _ = fs::remove_file(file);
        }
        written
    }
}

fn render_place(out: &mut String, place: &DraftPlace) -> std::fmt::Result {
    match place {
        DraftPlace::Local { path } => {
            writeln!(out, "    kind: local\n    path: {}", quote(path))
        }
        DraftPlace::S3 {
            endpoint,
            region,
            bucket,
            access_key_id,
            secret,
        } => {
            writeln!(out, "    kind: s3\n    endpoint: {}", quote(endpoint))?;
            if let Some(region) = region {
                writeln!(out, "    region: {}", quote(region))?;
            }
            writeln!(out, "    bucket: {}", quote(bucket))?;
            writeln!(out, "    access_key_id: {}", quote(access_key_id))?;
            match secret {
                DraftSecret::Inline(secret) => {
                    writeln!(out, "    secret_access_key: {}", quote(secret.reveal()))
                }
                DraftSecret::File(file) => {
                    writeln!(out, "    secret_access_key_file: {}", quote(file))
                }
            }
        }
    }
}

/// A YAML scalar that reads as exactly this text, dollars included.
fn quote(text: &str) -> String {
    let text = text.replace('$', "$$");
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(plain)
        && !is_yaml_word(&text);
    if word {
        return text;
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                quoted.push_str(&format!("\\U{:08X}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Words that are not texts in YAML.
fn is_yaml_word(text: &str) -> bool {
    let words = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    words.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::{any, proptest};

    use super::*;
    use crate::config::{BackendKindConfig, NoEnvironment, parse};

    fn draft(path: &str) -> Draft {
        Draft {
            listen: "127.0.0.1:9000".to_owned(),
            database: "x.db".to_owned(),
            bucket: "b".to_owned(),
            keys: KeyPair::generate(),
            backends: vec![DraftBackend {
                name: None,
                place: DraftPlace::Local {
                    path: path.to_owned(),
                },
                quota: Some("10GiB".to_owned()),
            }],
        }
    }

    proptest! {
        #[test]
        fn any_path_survives_the_way_through_the_file(path in any::<String>()) {
            let path = path.replace('\0', "");
            if !path.is_empty() {
                let text = draft(&path).render();
                let loaded = parse(&text, Path::new("f"), &NoEnvironment).unwrap();
                let BackendKindConfig::Local { path: read, .. } = &loaded.config.backends[0].kind else {
                    panic!("{text}");
                };
                assert_eq!(read, &PathBuf::from(path));
                assert_eq!(loaded.warnings, []);
            }
        }
    }

    #[test]
    fn words_that_mean_something_in_yaml_are_quoted() {
        assert_eq!(quote("true"), "\"true\"");
        assert_eq!(quote("12"), "\"12\"");
        assert_eq!(quote("a$b"), "\"a$$b\"");
        assert_eq!(quote("my-bucket"), "my-bucket");
        assert_eq!(quote(""), "\"\"");
    }
}
