//! `quickstart`: a server that works at once, from a directory that it makes itself.
//!
//! The first start creates three local backends, a catalogue, one bucket and a key pair; every
//! later one reuses them. The file it writes is an ordinary one that `serve` accepts.

use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::config::{
    self, BackendKindConfig, BucketConfig, Config, ConfigError, Credential, Environment,
    ListenAddr, Loaded,
};

use super::draft::{Draft, DraftBackend, DraftPlace};
use super::keypair::KeyPair;

const BACKENDS: usize = 3;
const QUOTA: &str = "10GiB";
const BUCKET: &str = "my-bucket";
const LISTEN: &str = "127.0.0.1:9000";
const REGION: &str = "us-east-1";
const CONFIG_FILE: &str = "config.yaml";
const CATALOGUE_FILE: &str = "catalogue.db";
const LOG_FILE: &str = "s3-orchestrator.log";
const DIR_MODE: u32 = 0o700;
/// How many ports behind a taken one are tried.
const PORT_TRIES: u16 = 100;

/// Everything that serving needs.
#[derive(Debug)]
pub struct Prepared {
    /// The configuration, with the address that is really listened on.
    pub loaded: Loaded,
    /// The file that it is in.
    pub config_file: PathBuf,
    /// Where log lines go.
    pub log_file: PathBuf,
    /// Bound, so that nobody else can take the port.
    pub listener: TcpListener,
    /// What to tell the person: endpoint, keys, commands to paste.
    pub banner: String,
}

/// Why there is nothing to serve.
#[derive(Debug, thiserror::Error)]
pub enum QuickstartError {
    /// A directory or the configuration file cannot be made.
    #[error("creating {}", .path.display())]
    Create {
        /// What was to be made.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The configuration of an earlier start is not usable any more.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No port is free.
    #[error("listening on {address} or one of the next {PORT_TRIES} ports")]
    Listen {
        /// The first address tried.
        address: ListenAddr,
        /// Why the last one failed.
        source: io::Error,
    },
}

/// Makes what is missing in the directory, reads the configuration and takes a port.
///
/// # Errors
/// See [`QuickstartError`]; what was made stays and is used by the next start.
pub fn prepare(dir: &Path, env: &dyn Environment) -> Result<Prepared, QuickstartError> {
    let create = |path: &Path| {
        let path = path.to_owned();
        move |source| QuickstartError::Create { path, source }
    };
    let dir = std::path::absolute(dir).map_err(create(dir))?;
    let config_file = dir.join(CONFIG_FILE);
    if config_file.symlink_metadata().is_err() {
        make_dir(&dir).map_err(create(&dir))?;
        let backends: Vec<_> = (1..=BACKENDS)
            .map(|number| dir.join(format!("backend-{number}")))
            .collect();
        for backend in &backends {
            make_dir(backend).map_err(create(backend))?;
        }
        // Last, so that a start that was cut short is simply begun again.
        let text = draft(&dir, &backends).map_err(create(&dir))?.render();
        Draft::store(&text, &config_file).map_err(create(&config_file))?;
    }
    let mut loaded = config::load(&config_file, env)?;
    let wanted = loaded.config.server.listen_addr.clone();
    let (listener, address) = listen(&wanted).map_err(|source| QuickstartError::Listen {
        address: wanted.clone(),
        source,
    })?;
    loaded.config.server.listen_addr = address.clone();
    let log_file = dir.join(LOG_FILE);
    let moved_from = (address.port() != wanted.port()).then_some(wanted.port());
    let banner = banner(&loaded.config, moved_from, &config_file, &log_file);
    Ok(Prepared {
        loaded,
        config_file,
        log_file,
        listener,
        banner,
    })
}

fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIR_MODE)
        .create(path)
}

/// Paths are absolute, so that `serve --config` works from any directory.
fn draft(dir: &Path, backends: &[PathBuf]) -> io::Result<Draft> {
    let text = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .ok_or_else(|| io::Error::other("its name is not UTF-8"))
    };
    let backend = |path: &PathBuf| -> io::Result<DraftBackend> {
        let place = DraftPlace::Local { path: text(path)? };
        Ok(DraftBackend {
            name: None,
            place,
            quota: Some(QUOTA.to_owned()),
        })
    };
    Ok(Draft {
        listen: LISTEN.to_owned(),
        database: text(&dir.join(CATALOGUE_FILE))?,
        bucket: BUCKET.to_owned(),
        keys: KeyPair::generate(),
        backends: backends.iter().map(backend).collect::<Result<_, _>>()?,
    })
}

/// Takes the wanted port, or the next free one.
fn listen(wanted: &ListenAddr) -> io::Result<(TcpListener, ListenAddr)> {
    let host = match wanted.host() {
        "" => "::",
        host => host,
    };
    let mut port = wanted.port();
    for _ in 0..PORT_TRIES {
        match TcpListener::bind((host, port)) {
            Ok(listener) => {
                let port = listener.local_addr()?.port();
                return Ok((listener, ListenAddr::new(wanted.host(), port)));
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                port = port.checked_add(1).ok_or(error)?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

fn banner(config: &Config, moved_from: Option<u16>, config_file: &Path, log_file: &Path) -> String {
    let mut text = String::new();
    let endpoint = endpoint(config);
    let moved = match moved_from {
        Some(port) => format!("  (port {port} is taken; this is the next free one)"),
        None => String::new(),
    };
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<11} {value}");
    };
    line("Endpoint", &format!("{endpoint}{moved}"));
    // A file that was changed since may leave the buckets to its root account.
    let target = config.buckets.first().and_then(|bucket| {
        let (id, secret) = first_pair(bucket)?;
        Some(Target {
            endpoint: &endpoint,
            bucket: bucket.name.as_str(),
            id,
            secret,
        })
    });
    if let Some(target) = &target {
        line("Bucket", target.bucket);
        line("Access key", target.id);
        line("Secret key", target.secret);
    }
    line("Region", REGION);
    for backend in &config.backends {
        if let BackendKindConfig::Local { path, .. } = &backend.kind {
            let quota = backend
                .quota
                .map(|quota| format!(" ({quota})"))
                .unwrap_or_default();
            line("Stored in", &format!("{}{quota}", path.display()));
        }
    }
    line("Config", &config_file.display().to_string());
    line("Log", &log_file.display().to_string());
    let commands = target.as_ref().map(commands).unwrap_or_default();
    format!("s3-orchestrator is ready. Ctrl-C ends it; what is stored stays.\n\n{text}\n{commands}")
}

fn first_pair(bucket: &BucketConfig) -> Option<(&str, &str)> {
    bucket
        .credentials
        .iter()
        .find_map(|given| match &given.proof {
            Credential::KeyPair {
                access_key_id,
                secret_access_key,
            } => Some((access_key_id.as_str(), secret_access_key.reveal())),
            Credential::Token(_) => None,
        })
}

/// The URL for a client on this machine.
fn endpoint(config: &Config) -> String {
    let scheme = if config.server.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let address = &config.server.listen_addr;
    match address.host() {
        "" | "0.0.0.0" | "::" => format!("{scheme}://127.0.0.1:{}", address.port()),
        _ => format!("{scheme}://{address}"),
    }
}

struct Target<'a> {
    endpoint: &'a str,
    bucket: &'a str,
    id: &'a str,
    secret: &'a str,
}

/// Commands that work in any POSIX shell as they are printed, whatever its environment says about
/// other S3 accounts. Each block begins with a comment and ends with an empty line.
fn commands(target: &Target<'_>) -> String {
    let Target {
        endpoint,
        bucket,
        id,
        secret,
    } = target;
    let (url, id_word, secret_word) = (shell(endpoint), shell(id), shell(secret));
    let aws = format!(
        "AWS_ACCESS_KEY_ID={id_word} AWS_SECRET_ACCESS_KEY={secret_word} AWS_SESSION_TOKEN= \
         AWS_CONFIG_FILE=/dev/null AWS_DEFAULT_REGION={REGION} aws --endpoint-url {url} s3"
    );
    // Some builds of rclone fail to start where a bundle of authorities is set, even over HTTP.
    let rclone = format!(
        "AWS_CA_BUNDLE= rclone --config= --s3-provider Other --s3-endpoint {url} --s3-region {REGION} \
         --s3-force-path-style --s3-access-key-id {id_word} --s3-secret-access-key {secret_word}"
    );
    let object = |key: &str| shell(&format!("s3://{bucket}/{key}"));
    let remote = |key: &str| shell(&format!(":s3:{bucket}/{key}"));
    let mut text = String::from("To try it, paste a block into another terminal.\n\n");
    let _ = writeln!(text, "# aws-cli");
    let _ = writeln!(
        text,
        "echo 'hello from aws-cli' | {aws} cp - {}",
        object("aws.txt")
    );
    let _ = writeln!(text, "{aws} cp {} -", object("aws.txt"));
    let _ = writeln!(text, "\n# rclone");
    let _ = writeln!(
        text,
        "echo 'hello from rclone' | {rclone} rcat {}",
        remote("rclone.txt")
    );
    let _ = writeln!(text, "{rclone} cat {}", remote("rclone.txt"));
    let _ = writeln!(text, "\n# boto3");
    let _ = writeln!(text, "python3 - <<'END'");
    let _ = writeln!(text, "import boto3");
    let _ = writeln!(text, "from botocore.config import Config");
    let _ = writeln!(text, "s3 = boto3.client(");
    let _ = writeln!(
        text,
        "    's3', endpoint_url={}, region_name='{REGION}',",
        python(endpoint)
    );
    let _ = writeln!(text, "    aws_access_key_id={},", python(id));
    let _ = writeln!(text, "    aws_secret_access_key={},", python(secret));
    let _ = writeln!(
        text,
        "    config=Config(s3={{'addressing_style': 'path'}}))"
    );
    let name = python(bucket);
    let _ = writeln!(
        text,
        "s3.put_object(Bucket={name}, Key='boto3.txt', Body=b'hello from boto3')"
    );
    let _ = writeln!(
        text,
        "print(s3.get_object(Bucket={name}, Key='boto3.txt')['Body'].read().decode())"
    );
    let _ = writeln!(text, "END");
    text
}

/// The text as one word of a POSIX shell.
fn shell(text: &str) -> String {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | ':' | '.' | '-' | '_' | '[' | ']');
    match !text.is_empty() && text.chars().all(plain) && !text.contains('[') {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// The text as a literal of Python.
fn python(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::{DatabaseConfig, NoEnvironment};

    fn start(dir: &Path) -> Prepared {
        prepare(dir, &NoEnvironment).unwrap()
    }

    #[test]
    fn a_fresh_directory_gets_everything() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("s3o-data");
        let prepared = start(&dir);
        let mode = fs::metadata(&prepared.config_file)
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let config = &prepared.loaded.config;
        assert_eq!(prepared.loaded.warnings, []);
        assert_eq!(config.backends.len(), 3);
        for backend in &config.backends {
            assert_eq!(backend.quota.unwrap().0, 10 << 30);
            let BackendKindConfig::Local { path, .. } = &backend.kind else {
                panic!("{backend:?}")
            };
            assert!(path.is_absolute() && path.starts_with(&dir) && path.is_dir());
        }
        assert!(matches!(&config.database, DatabaseConfig::Sqlite(path) if path.starts_with(&dir)));
        assert_eq!(
            prepared.listener.local_addr().unwrap().port(),
            config.server.listen_addr.port()
        );
    }

    #[test]
    fn the_next_start_reuses_it_and_serve_accepts_the_file() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("s3o-data");
        let first = start(&dir);
        let text = fs::read(&first.config_file).unwrap();
        drop(first);
        let second = start(&dir);
        assert_eq!(fs::read(&second.config_file).unwrap(), text);
        config::load(&second.config_file, &NoEnvironment).unwrap();
    }

    #[test]
    fn a_taken_port_is_said_and_the_next_free_one_used() {
        let home = tempfile::tempdir().unwrap();
        let file = start(home.path()).config_file;
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = holder.local_addr().unwrap();
        let text = fs::read_to_string(&file)
            .unwrap()
            .replace(LISTEN, &taken.to_string());
        fs::write(&file, &text).unwrap();
        let prepared = start(home.path());
        let port = prepared.loaded.config.server.listen_addr.port();
        assert_ne!(port, taken.port());
        let said = format!("http://127.0.0.1:{port}  (port {} is taken;", taken.port());
        assert!(prepared.banner.contains(&said), "{}", prepared.banner);
        // The file keeps the wanted port.
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }

    #[test]
    fn a_start_that_was_cut_short_is_begun_again() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("s3o-data");
        fs::create_dir_all(dir.join("backend-1")).unwrap();
        assert_eq!(start(&dir).loaded.config.backends.len(), 3);
    }

    #[test]
    fn a_broken_file_is_reported_and_kept() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(CONFIG_FILE), "server: [").unwrap();
        let error = prepare(home.path(), &NoEnvironment).unwrap_err();
        assert!(matches!(
            error,
            QuickstartError::Config(ConfigError::Invalid { .. })
        ));
        assert_eq!(
            fs::read(home.path().join(CONFIG_FILE)).unwrap(),
            b"server: ["
        );
    }

    #[test]
    fn words_survive_the_shell_and_python() {
        assert_eq!(shell("a'b c"), "'a'\\''b c'");
        assert_eq!(shell("http://[::1]:9000"), "'http://[::1]:9000'");
        assert_eq!(shell(""), "''");
        assert_eq!(python("a'b\\"), "'a\\'b\\\\'");
    }
}
