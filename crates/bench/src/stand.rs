//! Who is compared in a field, and the processes that live for it.

use std::path::Path;

use anyhow::Result;
use testbed::{Durability, Postgres};

use crate::contenders::{
    Catalogue, Contender, Nginx, Program, Running, command, foreign, open_target, s3_backend, sink,
};
use crate::processes::Processes;
use crate::s3::Options;
use crate::secured::Certificate;
use crate::target::Target;
use crate::workloads::Field;

/// Those that are compared, and what lives for them.
pub(crate) struct Stand {
    pub(crate) contenders: Vec<Contender>,
    /// The processes of their backends.
    pub(crate) backends: Processes,
    /// Backends that hash what they have not seen.
    pub(crate) hashing: Vec<Target>,
    /// Anonymous memory of the program on SQLite before it was asked anything.
    pub(crate) idle: Option<u64>,
    pub(crate) programs: Vec<Program>,
    _others: Vec<Running>,
    _postgres: Option<Postgres>,
}

/// Where catalogues lie, where one of both is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum On {
    #[default]
    Sqlite,
    Postgres,
}

impl On {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// What takes turns with an older build of itself.
pub(crate) const BUILDS: [&str; 3] = ["now", "before", "before, again"];

impl Stand {
    /// Builds of the program, each over a backend and a catalogue of its own.
    pub(crate) fn builds(
        folder: &Path,
        programs: [&Path; BUILDS.len()],
        field: Field,
        on: On,
    ) -> Result<Self> {
        let certificate = match field {
            Field::Tls => Some(Certificate::make(folder)?),
            Field::Plain | Field::WebDav => None,
        };
        let server = match on {
            On::Postgres => Some(Postgres::start(Durability::Durable)),
            On::Sqlite => None,
        };
        let mut stand = Self {
            contenders: Vec::new(),
            backends: Processes::default(),
            hashing: Vec::new(),
            idle: None,
            programs: Vec::new(),
            _others: Vec::new(),
            _postgres: None,
        };
        for (name, program) in BUILDS.iter().zip(programs) {
            let backend = sink(None)?;
            let database = server.as_ref().map(Postgres::database);
            let catalogue = match &database {
                Some(database) => Catalogue::Postgres(database),
                None => Catalogue::File,
            };
            let program = Program::start(
                command(program),
                &folder.join(format!("{field:?}-{name}").replace([' ', ','], "-")),
                &catalogue,
                &s3_backend(backend.addr),
                certificate.as_ref(),
            )?;
            let target = program.target(name)?;
            stand.contenders.push(Contender {
                target: match &certificate {
                    Some(certificate) => target.secured(&certificate.connector),
                    None => target,
                },
                processes: vec![Processes::new(&[program.running.pid()])],
                has_queue: true,
            });
            stand.hashing.push(open_target("a backend", backend.addr)?);
            stand.programs.push(program);
            stand._others.push(backend);
        }
        stand._postgres = server;
        Ok(stand)
    }

    pub(crate) fn plain(folder: &Path, options: &Options) -> Result<Self> {
        let backend = sink(None)?;
        let nginx = Nginx::Proxy(backend.addr).start(&folder.join("nginx"))?;
        let on_file = Program::start(
            command(&options.program),
            &folder.join("sqlite"),
            &Catalogue::File,
            &s3_backend(backend.addr),
            None,
        )?;
        // Each catalogue has a backend of its own: a backend belongs to one.
        let second = sink(None)?;
        let server = Postgres::start(Durability::Durable);
        let database = server.database();
        let on_postgres = Program::start(
            command(&options.program),
            &folder.join("postgres"),
            &Catalogue::Postgres(&database),
            &s3_backend(second.addr),
            None,
        )?;
        let of_file = Processes::new(&[on_file.running.pid()]);
        let idle = Some(of_file.anonymous());
        let of_postgres =
            [on_postgres.running.pid(), server.pid()].map(|pid| Processes::new(&[pid]));
        let mut contenders = vec![
            Contender::without_queue(open_target("the backend alone", backend.addr)?, None),
            Contender::without_queue(open_target("nginx", nginx.addr)?, Some(&nginx)),
            Contender {
                target: on_file.target("s3-orchestrator, SQLite")?,
                processes: vec![of_file],
                has_queue: true,
            },
            Contender {
                target: on_postgres.target("s3-orchestrator, PostgreSQL")?,
                processes: of_postgres.into(),
                has_queue: true,
            },
        ];
        for other in &options.against {
            contenders.push(Contender::without_queue(foreign(other)?, None));
        }
        Ok(Self {
            contenders,
            backends: Processes::new(&[backend.pid(), second.pid()]),
            hashing: vec![
                open_target("a backend", backend.addr)?,
                open_target("a backend", second.addr)?,
            ],
            idle,
            programs: vec![on_file, on_postgres],
            _others: vec![backend, second, nginx],
            _postgres: Some(server),
        })
    }

    /// TLS ends at whom the load asks; behind that, nginx and the program go on in plain text.
    pub(crate) fn tls(folder: &Path, options: &Options) -> Result<Self> {
        let certificate = Certificate::make(folder)?;
        let (alone, backend) = (sink(Some(&certificate))?, sink(None)?);
        let nginx = Nginx::Tls(backend.addr, &certificate).start(&folder.join("nginx-tls"))?;
        let program = Program::start(
            command(&options.program),
            &folder.join("sqlite-tls"),
            &Catalogue::File,
            &s3_backend(backend.addr),
            Some(&certificate),
        )?;
        let tls = &certificate.connector;
        let contenders = vec![
            Contender::without_queue(
                open_target("the backend alone", alone.addr)?.secured(tls),
                None,
            ),
            Contender::without_queue(open_target("nginx", nginx.addr)?.secured(tls), Some(&nginx)),
            Contender {
                target: program.target("s3-orchestrator, SQLite")?.secured(tls),
                processes: vec![Processes::new(&[program.running.pid()])],
                has_queue: true,
            },
        ];
        Ok(Self {
            hashing: vec![
                open_target("a backend", alone.addr)?.secured(tls),
                open_target("a backend", backend.addr)?,
            ],
            contenders,
            backends: Processes::new(&[alone.pid(), backend.pid()]),
            idle: None,
            programs: vec![program],
            _others: vec![alone, backend, nginx],
            _postgres: None,
        })
    }

    pub(crate) fn web_dav(folder: &Path) -> Result<Self> {
        let files = Nginx::WebDav.start(&folder.join("web-dav"))?;
        let nginx = Nginx::Proxy(files.addr).start(&folder.join("nginx-web-dav"))?;
        let contenders = vec![
            Contender::without_queue(open_target("nginx with WebDAV alone", files.addr)?, None),
            Contender::without_queue(
                open_target("nginx in front of it", nginx.addr)?,
                Some(&nginx),
            ),
        ];
        Ok(Self {
            contenders,
            backends: Processes::new(&[files.pid()]),
            hashing: Vec::new(),
            idle: None,
            programs: Vec::new(),
            _others: vec![files, nginx],
            _postgres: None,
        })
    }
}
