//! What the command line asks for, joined to the running parts.

use std::fmt::Write as _;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use base::{BackendName, ByteSize, Clock, Ids, SystemClock};
use engine::{
    Capabilities, Engine, LoneUploads, Markers, MoveOptions, Moved, Quiet, Recovered,
    Server as DatabaseServer, Verified, move_to_postgres,
};
use indicatif::{ProgressBar, ProgressStyle};

use crate::admin::client::{AdminCall, AdminServer};
use crate::app::{self, ServeOptions, engine_settings};
use crate::cli::{CommandOutcome, Commands, LogTarget, Report, ServeRequest};
use crate::config::{Config, DatabaseConfig};
use crate::telemetry::log::Destination;

/// Lines of each kind that a report shows; the rest is counted.
const LINES_SHOWN_MAX: usize = 20;

/// The program's own commands.
#[derive(Debug, Clone, Copy)]
pub struct Program;

impl Commands for Program {
    fn serve(&self, request: ServeRequest) -> anyhow::Result<()> {
        let log = match request.log {
            LogTarget::Stdout => Destination::Stdout,
            LogTarget::File(path) => Destination::File(path),
        };
        let options = ServeOptions {
            config: request.config,
            config_file: Some(request.config_file),
            log,
            listener: request.listener,
            announce: request.announce,
            role: request.role,
        };
        wait_for(async { Ok(app::serve(options).await?) })
    }

    fn connect(&self, config: &Config) -> anyhow::Result<Report> {
        let settings = engine_settings(config)?;
        let (clock, _) = machine();
        let checks = wait_for(async {
            Ok(Engine::check_backends(&settings, clock, Arc::new(Quiet)).await)
        })?;
        let mut text = String::new();
        let mut verdict = CommandOutcome::Sound;
        for check in checks {
            match check.outcome {
                Ok(found) => writeln!(text, "backend {}: {}", check.name, found_text(&found))?,
                Err(reason) => {
                    verdict = CommandOutcome::Faulty;
                    writeln!(text, "backend {}: FAILED: {reason}", check.name)?;
                }
            }
        }
        Ok(Report { text, verdict })
    }

    fn backup(&self, config: &Config, to: &Path) -> anyhow::Result<Report> {
        let (_, ids) = machine();
        let place = engine_settings(config)?.catalogue;
        wait_for(async { Ok(Engine::backup_catalogue(&place, to, &ids).await?) })?;
        let text = format!(
            "{} holds a copy of the catalogue.\nAfter a restore, run `s3-orchestrator reconcile \
             --recover` before anything is deleted on a backend.\n",
            to.display()
        );
        Ok(Report {
            text,
            verdict: CommandOutcome::Sound,
        })
    }

    fn migrate(&self, config: &Config, to: &DatabaseServer) -> anyhow::Result<Report> {
        let DatabaseConfig::Sqlite(path) = &config.database else {
            anyhow::bail!("the configuration names a catalogue on PostgreSQL already");
        };
        let (clock, ids) = machine();
        let bar = ProgressBar::new(0).with_style(
            ProgressStyle::with_template("{bar:40} {pos} of {len} rows, {msg} ({eta} left)")
                .expect("the template is valid"),
        );
        let moved = wait_for(async {
            let options = MoveOptions { clock, ids };
            let moved = move_to_postgres(path, to.clone(), options, |progress| {
                bar.set_length(progress.rows);
                bar.set_position(progress.copied);
                bar.set_message(progress.table);
            });
            Ok(moved.await?)
        });
        bar.finish_and_clear();
        let Moved { rows, address } = moved?;
        let hosts: Vec<String> = to
            .hosts
            .iter()
            .map(|(host, port)| format!("'{host}:{port}'"))
            .collect();
        let text = format!(
            "{rows} rows were moved to {address}, and add up there.\n{} starts no more. To switch, \
             put this in the place of its section in the configuration:\n\n\
             database:\n  hosts: [{}]\n  database: {}\n  user: {}\n  password_file: FILE\n  \
             ssl_mode: {}\n",
            path.display(),
            hosts.join(", "),
            to.database,
            to.user,
            to.tls
        );
        Ok(Report {
            text,
            verdict: CommandOutcome::Sound,
        })
    }

    fn verify(&self, config: &Config) -> anyhow::Result<Report> {
        let settings = engine_settings(config)?;
        let (clock, _) = machine();
        let verified = wait_for(async {
            Ok(Engine::verify_catalogue(&settings, clock, Arc::new(Quiet)).await?)
        })?;
        let verdict = match verified.is_sound() {
            true => CommandOutcome::Sound,
            false => CommandOutcome::Faulty,
        };
        Ok(Report {
            text: verified_text(&verified)?,
            verdict,
        })
    }

    fn restored(&self, config: &Config) -> anyhow::Result<Report> {
        let (clock, ids) = machine();
        let place = engine_settings(config)?.catalogue;
        wait_for(async { Ok(Engine::declare_restored(&place, clock, ids).await?) })?;
        let text = "The catalogue is marked as restored: nothing is deleted on backends until \
                    `s3-orchestrator reconcile --recover` has run.\n"
            .to_owned();
        Ok(Report {
            text,
            verdict: CommandOutcome::Sound,
        })
    }

    fn recover(&self, config: &Config, lone: LoneUploads) -> anyhow::Result<Report> {
        let settings = engine_settings(config)?;
        let (clock, ids) = machine();
        let recovered = wait_for(async {
            let engine = Engine::start(settings, clock, ids, Arc::new(Quiet)).await?;
            let recovered = engine.recover_with(lone).await;
            engine.stop().await?;
            Ok(recovered?)
        })?;
        let verdict = match recovered.unseen.is_empty() && recovered.missing.is_empty() {
            true => CommandOutcome::Sound,
            false => CommandOutcome::Faulty,
        };
        Ok(Report {
            text: recovered_text(&recovered)?,
            verdict,
        })
    }

    fn admin(&self, server: &AdminServer, call: &AdminCall) -> anyhow::Result<Vec<u8>> {
        wait_for(async { Ok(server.call(call).await?.into()) })
    }
}

fn machine() -> (Arc<dyn Clock>, Arc<Ids>) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids = Arc::new(Ids::new(Arc::clone(&clock)));
    (clock, ids)
}

fn wait_for<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.context("starting the runtime")?;
    let result = runtime.block_on(work);
    // Whatever still blocks was cut off on purpose: a process that was told to end ends.
    runtime.shutdown_background();
    result
}

fn found_text(found: &Capabilities) -> String {
    let able = [
        (found.md5_etag, "MD5 entity tags"),
        (found.checksum_header, "checksum headers verified"),
        (found.checksum_trailer, "checksum trailers verified"),
        (found.echoes_checksum, "checksums echoed"),
        (found.batch_delete, "batch deletes"),
        (found.versioned, "versions kept"),
        (found.copy, "native copies"),
        (found.part_copy, "native part copies"),
        (found.list_uploads, "uploads listed"),
        (found.odd_keys, "odd keys"),
    ];
    let able: Vec<_> = able
        .iter()
        .filter(|(able, _)| *able)
        .map(|(_, name)| *name)
        .collect();
    let proof = match found.md5_etag || found.echoes_checksum {
        true => "",
        false => "; every write is read back, because no reply says what was stored",
    };
    format!("ok ({}{proof})", able.join(", "))
}

fn verified_text(verified: &Verified) -> anyhow::Result<String> {
    let mut text = String::new();
    for sums in &verified.sums.backends {
        let mark = match sums.exact() {
            true => "exact",
            false => "WRONG",
        };
        writeln!(
            text,
            "backend {}: {} objects, used {}, orphan {}, reserved {}: {mark}",
            sums.name,
            sums.locations,
            ByteSize(sums.used.0),
            ByteSize(sums.orphan.0),
            ByteSize(sums.reserved.0),
        )?;
        if !sums.exact() {
            writeln!(
                text,
                "  counted and summed: used {:?}, orphan {:?}, reserved {:?}",
                sums.used, sums.orphan, sums.reserved
            )?;
        }
    }
    let words = |what: &String| what.clone();
    shown(
        &mut text,
        "contradiction",
        &verified.sums.contradictions,
        words,
    )?;
    shown(&mut text, "fault", &verified.faults, |fault| {
        format!(
            "{:?} on {} under {:?}: {}",
            fault.object, fault.backend, fault.key, fault.what
        )
    })?;
    writeln!(
        text,
        "{} copies looked at, {} faults, {} contradictions",
        verified.locations,
        verified.faults.len(),
        verified.sums.contradictions.len()
    )?;
    Ok(text)
}

fn recovered_text(recovered: &Recovered) -> anyhow::Result<String> {
    let mut text = String::new();
    writeln!(
        text,
        "{} keys listed, {} objects adopted",
        recovered.listed, recovered.adopted
    )?;
    shown(
        &mut text,
        "left as it is",
        &recovered.left,
        |(backend, key, why)| format!("{key:?} on {backend}: {why}"),
    )?;
    shown(
        &mut text,
        "not ours",
        &recovered.foreign,
        |(backend, key)| format!("{key:?} on {backend}"),
    )?;
    shown(&mut text, "missing", &recovered.missing, |fault| {
        format!(
            "{:?} on {} under {:?}: {}",
            fault.object, fault.backend, fault.key, fault.what
        )
    })?;
    shown(
        &mut text,
        "not looked at",
        &recovered.unseen,
        |(backend, why)| format!("backend {backend}: {why}"),
    )?;
    if recovered.unnamed > 0 {
        writeln!(
            text,
            "{} more keys that the catalogue does not know",
            recovered.unnamed
        )?;
    }
    if let Some(markers) = &recovered.doubt {
        writeln!(text, "{}", doubt_text(markers))?;
    }
    match recovered.unseen.is_empty() {
        true => writeln!(text, "The recovery is complete. Nothing was deleted.")?,
        false => writeln!(
            text,
            "The recovery is NOT complete: bring these backends back and run it again. Until then \
             nothing is deleted on backends."
        )?,
    }
    Ok(text)
}

/// Why a catalogue was not taken for a restored one.
fn doubt_text(markers: &Markers) -> String {
    let names = |names: &[BackendName]| {
        let names: Vec<_> = names.iter().map(BackendName::as_str).collect();
        names.join(", ")
    };
    let newer = match markers.newer.is_empty() {
        true => "no marker is newer than this catalogue any more".to_owned(),
        false => format!("the markers of {} are newer", names(&markers.newer)),
    };
    let others = match (markers.expected.is_empty(), markers.unseen.is_empty()) {
        (false, _) => format!(
            ", those of {} are not: this catalogue was not restored as a whole",
            names(&markers.expected)
        ),
        (true, false) => format!(
            ", those of {} could not be read: whether this catalogue was restored is not proved",
            names(&markers.unseen)
        ),
        (true, true) => ": this catalogue was not restored".to_owned(),
    };
    format!(
        "Nothing was adopted: {newer}{others}; if it was, run `s3-orchestrator catalogue restored` \
         first, and this again"
    )
}

fn shown<T>(
    text: &mut String,
    title: &str,
    items: &[T],
    line: impl Fn(&T) -> String,
) -> anyhow::Result<()> {
    for item in items.iter().take(LINES_SHOWN_MAX) {
        writeln!(text, "{title}: {}", line(item))?;
    }
    if items.len() > LINES_SHOWN_MAX {
        writeln!(text, "{title}: and {} more", items.len() - LINES_SHOWN_MAX)?;
    }
    Ok(())
}
