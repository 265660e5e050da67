//! `init`: writes a new configuration file, asking on a terminal and taking flags elsewhere.

use std::io::{self, IsTerminal as _};
use std::path::Path;

use anyhow::anyhow;
use base::Secret;
use dialoguer::{Confirm, Input, Password, Select};

use crate::config;

use super::args::InitArgs;
use super::draft::{Draft, DraftBackend, DraftPlace, DraftSecret};
use super::keypair::KeyPair;
use super::{CommandError, Console};

const LISTEN: &str = "127.0.0.1:9000";
const DATABASE: &str = "s3-orchestrator.db";
const BUCKET: &str = "my-bucket";

const NEEDS_BACKEND: &str = "there is no terminal to ask on and no --backend; \
     write for example --backend kind=local,path=/srv/s3,quota=10GiB";

pub(super) fn run(args: &InitArgs, console: &mut Console<'_>) -> Result<(), CommandError> {
    let file = &args.config;
    if file.symlink_metadata().is_ok() {
        return Err(exists(file));
    }
    let interactive = io::stdin().is_terminal() && io::stderr().is_terminal();
    let draft = if !args.backends.is_empty() {
        from_flags(args).map_err(CommandError::Usage)?
    } else if interactive {
        ask(args, &mut Terminal).map_err(|error| CommandError::Failed(error.into()))?
    } else {
        return Err(CommandError::Usage(anyhow!(NEEDS_BACKEND)));
    };
    let text = draft.render();
    // What is written must be what `serve` accepts.
    config::parse(&text, file, console.env)?;
    Draft::store(&text, file).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(file),
        _ => {
            let context = format!("writing {}", file.display());
            CommandError::Failed(anyhow::Error::new(error).context(context))
        }
    })?;
    let show = file.display();
    writeln!(
        console.out,
        "Wrote {show} with the keys of the bucket '{}'.",
        draft.bucket
    )?;
    writeln!(console.out, "Next: s3-orchestrator serve --config {show}")?;
    Ok(())
}

fn exists(file: &Path) -> CommandError {
    let show = file.display();
    CommandError::Usage(anyhow!(
        "{show} exists and is not overwritten; give --config another name"
    ))
}

fn from_flags(args: &InitArgs) -> anyhow::Result<Draft> {
    Ok(Draft {
        listen: args.listen.clone().unwrap_or_else(|| LISTEN.to_owned()),
        database: database(args),
        bucket: args.bucket.clone().unwrap_or_else(|| BUCKET.to_owned()),
        keys: KeyPair::generate(),
        backends: args
            .backends
            .iter()
            .map(|spec| backend(spec))
            .collect::<Result<_, _>>()?,
    })
}

fn database(args: &InitArgs) -> String {
    let given = args
        .database
        .as_ref()
        .map(|path| path.to_string_lossy().into_owned());
    given.unwrap_or_else(|| DATABASE.to_owned())
}

/// Reads `key=value,key=value`.
fn backend(spec: &str) -> anyhow::Result<DraftBackend> {
    let mut fields: Vec<(&str, &str)> = Vec::new();
    for field in spec.split(',') {
        // The text stays out of the message: it may be a secret.
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| anyhow!("--backend: a part without '='; write KEY=VALUE,KEY=VALUE"))?;
        if fields.iter().any(|(known, _)| *known == key) {
            return Err(anyhow!("--backend: {key} stands twice"));
        }
        fields.push((key, value));
    }
    let mut take = |key: &str| -> Option<String> {
        let at = fields.iter().position(|(known, _)| *known == key)?;
        Some(fields.swap_remove(at).1.to_owned())
    };
    let name = take("name");
    let quota = take("quota");
    let kind = take("kind").unwrap_or_else(|| "s3".to_owned());
    let mut need = |key: &str| {
        take(key).ok_or_else(|| anyhow!("--backend: {key} is missing for the kind {kind}"))
    };
    let place = match kind.as_str() {
        "local" => DraftPlace::Local {
            path: need("path")?,
        },
        "s3" => {
            let (endpoint, bucket) = (need("endpoint")?, need("bucket")?);
            let access_key_id = need("access_key_id")?;
            let secret = match take("secret_access_key_file") {
                Some(file) => DraftSecret::File(file),
                None => match take("secret_access_key") {
                    Some(secret) => DraftSecret::Inline(Secret::new(secret)),
                    None => {
                        return Err(anyhow!("--backend: secret_access_key_file is missing"));
                    }
                },
            };
            DraftPlace::S3 {
                endpoint,
                region: take("region"),
                bucket,
                access_key_id,
                secret,
            }
        }
        _ => return Err(anyhow!("--backend: the kind is s3 or local")),
    };
    match fields.first() {
        Some((key, _)) => Err(anyhow!("--backend: {key} is unknown for the kind {kind}")),
        None => Ok(DraftBackend { name, place, quota }),
    }
}

/// Someone who answers questions.
trait Person {
    fn text(&mut self, question: &str, default: Option<&str>) -> io::Result<String>;
    fn secret(&mut self, question: &str) -> io::Result<String>;
    fn choice(&mut self, question: &str, choices: &[&str]) -> io::Result<usize>;
    fn more(&mut self, question: &str) -> io::Result<bool>;
}

struct Terminal;

impl Person for Terminal {
    fn text(&mut self, question: &str, default: Option<&str>) -> io::Result<String> {
        let input = Input::<String>::new().with_prompt(question);
        let input = match default {
            Some(default) => input.default(default.to_owned()),
            None => input,
        };
        input.interact_text().map_err(into_io)
    }

    fn secret(&mut self, question: &str) -> io::Result<String> {
        Password::new()
            .with_prompt(question)
            .interact()
            .map_err(into_io)
    }

    fn choice(&mut self, question: &str, choices: &[&str]) -> io::Result<usize> {
        Select::new()
            .with_prompt(question)
            .items(choices)
            .default(0)
            .interact()
            .map_err(into_io)
    }

    fn more(&mut self, question: &str) -> io::Result<bool> {
        Confirm::new()
            .with_prompt(question)
            .default(false)
            .interact()
            .map_err(into_io)
    }
}

fn into_io(error: dialoguer::Error) -> io::Error {
    match error {
        dialoguer::Error::IO(error) => error,
    }
}

fn ask(args: &InitArgs, person: &mut dyn Person) -> io::Result<Draft> {
    let listen = match &args.listen {
        Some(listen) => listen.clone(),
        None => person.text("Listen on", Some(LISTEN))?,
    };
    let bucket = match &args.bucket {
        Some(bucket) => bucket.clone(),
        None => person.text("Name of the bucket that clients see", Some(BUCKET))?,
    };
    let database = match &args.database {
        Some(_) => database(args),
        None => person.text("File of the catalogue", Some(DATABASE))?,
    };
    let mut backends = vec![ask_backend(1, person)?];
    while person.more("Another backend?")? {
        backends.push(ask_backend(backends.len() + 1, person)?);
    }
    Ok(Draft {
        listen,
        database,
        bucket,
        keys: KeyPair::generate(),
        backends,
    })
}

fn ask_backend(number: usize, person: &mut dyn Person) -> io::Result<DraftBackend> {
    let name = person.text("Name of the backend", Some(&format!("backend-{number}")))?;
    let kinds = ["A bucket of an S3 provider", "A directory"];
    let place = match person.choice("Where are its bytes?", &kinds)? {
        0 => DraftPlace::S3 {
            endpoint: person.text("Endpoint, such as https://s3.example.com", None)?,
            region: Some(person.text("Region", Some("us-east-1"))?),
            bucket: person.text("The provider's bucket", None)?,
            access_key_id: person.text("Access key id", None)?,
            secret: DraftSecret::Inline(Secret::new(person.secret("Secret access key")?)),
        },
        _ => DraftPlace::Local {
            path: person.text("Directory", None)?,
        },
    };
    let quota = person.text("Quota, such as 10GiB (0 for none)", Some("0"))?;
    Ok(DraftBackend {
        name: Some(name),
        place,
        quota: (quota != "0").then_some(quota),
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{BackendKindConfig, NoEnvironment, parse};

    fn args(backends: &[&str]) -> InitArgs {
        InitArgs {
            config: PathBuf::from("config.yaml"),
            listen: None,
            database: None,
            bucket: None,
            backends: backends.iter().map(|spec| (*spec).to_owned()).collect(),
        }
    }

    /// Answers in order and checks that every question was expected.
    struct Scripted(Vec<(&'static str, &'static str)>);

    impl Scripted {
        fn next(&mut self, question: &str) -> &'static str {
            let (expected, answer) = self.0.remove(0);
            assert!(
                question.contains(expected),
                "{question} instead of {expected}"
            );
            answer
        }
    }

    impl Person for Scripted {
        fn text(&mut self, question: &str, default: Option<&str>) -> io::Result<String> {
            match self.next(question) {
                "" => Ok(default
                    .expect("a question without default is answered")
                    .to_owned()),
                answer => Ok(answer.to_owned()),
            }
        }
        fn secret(&mut self, question: &str) -> io::Result<String> {
            Ok(self.next(question).to_owned())
        }
        fn choice(&mut self, question: &str, choices: &[&str]) -> io::Result<usize> {
            let answer = self.next(question);
            Ok(choices
                .iter()
                .position(|choice| choice.contains(answer))
                .unwrap())
        }
        fn more(&mut self, question: &str) -> io::Result<bool> {
            Ok(self.next(question) == "yes")
        }
    }

    #[test]
    fn answers_on_a_terminal_become_a_valid_file() {
        let mut person = Scripted(vec![
            ("Listen", ""),
            ("bucket that clients see", "photos"),
            ("catalogue", ""),
            ("Name of the backend", "b2"),
            ("Where", "S3 provider"),
            ("Endpoint", "https://s3.example.com"),
            ("Region", ""),
            ("provider's bucket", "mine"),
            ("Access key id", "ID"),
            ("Secret access key", "s$cret"),
            ("Quota", "10GiB"),
            ("Another", "yes"),
            ("Name of the backend", ""),
            ("Where", "directory"),
            ("Directory", "/srv/s3"),
            ("Quota", ""),
            ("Another", "no"),
        ]);
        let text = ask(&args(&[]), &mut person).unwrap().render();
        let config = parse(&text, Path::new("f"), &NoEnvironment).unwrap().config;
        assert_eq!(config.buckets[0].name.as_str(), "photos");
        assert_eq!(config.backends[0].name.as_str(), "b2");
        assert_eq!(config.backends[0].quota.unwrap().0, 10 << 30);
        let BackendKindConfig::S3(s3) = &config.backends[0].kind else {
            panic!("{text}")
        };
        assert_eq!(s3.secret_access_key.reveal(), "s$cret");
        assert_eq!(config.backends[1].name.as_str(), "backend-2");
        assert_eq!(config.backends[1].quota, None);
    }

    #[test]
    fn flags_describe_backends() {
        let specs = [
            "kind=local,path=/srv/a b,quota=10GiB",
            "name=x,endpoint=http://h:1,bucket=b,access_key_id=I,secret_access_key=S=S",
        ];
        let text = from_flags(&args(&specs)).unwrap().render();
        let config = parse(&text, Path::new("f"), &NoEnvironment).unwrap().config;
        assert!(
            matches!(&config.backends[0].kind, BackendKindConfig::Local { path, .. }
            if path == Path::new("/srv/a b"))
        );
        let BackendKindConfig::S3(s3) = &config.backends[1].kind else {
            panic!("{text}")
        };
        assert_eq!(s3.secret_access_key.reveal(), "S=S");
    }

    #[test]
    fn wrong_flags_are_named_without_their_secrets() {
        for (spec, expected) in [
            ("kind=local", "path is missing"),
            ("kind=local,path=/a,path=/b", "path stands twice"),
            (
                "kind=local,path=/a,bucket=b",
                "bucket is unknown for the kind local",
            ),
            ("kind=ftp", "the kind is s3 or local"),
            (
                "endpoint=http://h,bucket=b,access_key_id=I",
                "secret_access_key_file is missing",
            ),
            ("hunter2", "without '='"),
        ] {
            let error = from_flags(&args(&[spec])).unwrap_err().to_string();
            assert!(
                error.contains(expected) && !error.contains("hunter2"),
                "{error}"
            );
        }
    }
}
