//! What the admin API answered, for people.
//!
//! Columns are as wide as what is in them. Names and errors come from clients and providers: what
//! could move a terminal's cursor is shown escaped.

use std::fmt::Write as _;

use base::ByteSize;
use serde::Deserialize;

use crate::admin::{Endpoint, answers};

/// Between two columns.
const GAP: &str = "  ";

/// For what cannot be told.
const UNKNOWN: &str = "?";

/// For what never was.
const NEVER: &str = "-";

/// The answer of a call as text.
///
/// # Errors
/// It is not what this version of the program expects.
pub(super) fn render(endpoint: Endpoint, answer: &[u8]) -> serde_json::Result<String> {
    Ok(match endpoint {
        Endpoint::Status => status(&read(answer)?),
        Endpoint::ObjectLocations => object_locations(&read(answer)?),
        Endpoint::Workers => workers(&read(answer)?),
        Endpoint::CleanupQueue => cleanup_queue(&read(answer)?),
        Endpoint::Instances => instances(&read(answer)?),
        Endpoint::LogLevel | Endpoint::SetLogLevel => log_level(&read(answer)?),
    })
}

fn read<'a, T: Deserialize<'a>>(answer: &'a [u8]) -> serde_json::Result<T> {
    serde_json::from_slice(answer)
}

fn status(status: &answers::StatusAnswer) -> String {
    let catalogue = match (&status.db_error, status.db_healthy) {
        (_, true) => "healthy".to_owned(),
        (Some(error), false) => format!("NOT HEALTHY: {}", plain(error)),
        (None, false) => "NOT HEALTHY".to_owned(),
    };
    let mut text = format!(
        "catalogue  {catalogue}\nusage of   {} (UTC)\n",
        plain(&status.usage_period)
    );
    if let Some(reason) = &status.recovery {
        let _ = writeln!(text, "recovery   {}", plain(reason));
    }
    let mut table = Table::new(&[
        TableColumn::Left("BACKEND"),
        TableColumn::Left("STATE"),
        TableColumn::Right("USED"),
        TableColumn::Right("LIMIT"),
        TableColumn::Right("ORPHANS"),
        TableColumn::Right("RESERVED"),
        TableColumn::Right("OBJECTS"),
        TableColumn::Right("REQUESTS"),
        TableColumn::Right("READ"),
        TableColumn::Right("WRITTEN"),
    ]);
    for backend in &status.backends {
        let state = match (backend.healthy, backend.draining) {
            (false, _) => "OUT OF SERVICE",
            (true, Some(true)) => "draining",
            (true, Some(false) | None) => "in service",
        };
        table.row([
            backend.name.clone(),
            state.to_owned(),
            size(backend.bytes_used),
            match backend.bytes_limit {
                0 => "none".to_owned(),
                limit => size(limit),
            },
            size(backend.orphan_bytes),
            size(backend.reserved_bytes),
            told(backend.object_count, |count| count.to_string()),
            backend.api_requests.to_string(),
            size(backend.egress_bytes),
            size(backend.ingress_bytes),
        ]);
    }
    let _ = write!(text, "\n{table}");
    for backend in &status.backends {
        if let Some(reason) = &backend.out_of_service {
            let (name, reason) = (plain(&backend.name), plain(reason));
            let _ = write!(text, "\n{name} is out of service: {reason}\n");
        }
    }
    text
}

fn object_locations(found: &answers::ObjectLocations) -> String {
    let mut text = format!(
        "object   {}\nversion  {}, {}, written {}\n\n",
        plain(&found.key),
        plain(&found.version_id),
        size(found.size_bytes),
        moment(&found.last_modified),
    );
    let mut table = Table::new(&[
        TableColumn::Left("BACKEND"),
        TableColumn::Left("STATE"),
        TableColumn::Right("OFFSET"),
        TableColumn::Right("LENGTH"),
        TableColumn::Right("STORED"),
        TableColumn::Left("KEY THERE"),
    ]);
    for location in &found.locations {
        table.row([
            location.backend_name.clone(),
            location.state.clone(),
            location.offset.to_string(),
            location.length.to_string(),
            size(location.size_bytes),
            location.backend_key.clone(),
        ]);
    }
    match found.locations.is_empty() {
        true => text.push_str("It has no bytes.\n"),
        false => text.push_str(&table.to_string()),
    }
    text
}

fn workers(workers: &answers::WorkersAnswer) -> String {
    let mut table = Table::new(&[
        TableColumn::Left("WORKER"),
        TableColumn::Left("RUNS"),
        TableColumn::Left("LAST SUCCESS"),
        TableColumn::Left("LAST FAILURE"),
        TableColumn::Right("FAILURES IN A ROW"),
        TableColumn::Right("DONE"),
        TableColumn::Left("LAST ERROR"),
    ]);
    for worker in &workers.workers {
        let at = |moment_of: &Option<String>| match moment_of {
            Some(text) => moment(text),
            None => NEVER.to_owned(),
        };
        table.row([
            worker.name.clone(),
            match worker.standby {
                true => "elsewhere".to_owned(),
                false => "here".to_owned(),
            },
            at(&worker.last_success),
            at(&worker.last_failure),
            worker.consecutive_failures.to_string(),
            worker.done.to_string(),
            worker.last_error.clone().unwrap_or_else(|| NEVER.into()),
        ]);
    }
    table.to_string()
}

fn cleanup_queue(queue: &answers::CleanupQueue) -> String {
    let mut text = format!(
        "queued        {}\ndead letters  {}\n",
        queue.depth, queue.dead_letters
    );
    if queue.items.is_empty() {
        return text;
    }
    let mut table = Table::new(&[
        TableColumn::Right("ID"),
        TableColumn::Left("BACKEND"),
        TableColumn::Right("SIZE"),
        TableColumn::Left("REASON"),
        TableColumn::Left("DUE"),
        TableColumn::Right("ATTEMPTS"),
        TableColumn::Left("KEY THERE"),
        TableColumn::Left("LAST ERROR"),
    ]);
    for item in &queue.items {
        table.row([
            item.id.to_string(),
            item.backend_name.clone(),
            size(item.size_bytes),
            item.reason.clone(),
            moment(&item.not_before),
            item.attempts.to_string(),
            item.object_key.clone(),
            item.last_error.clone().unwrap_or_else(|| NEVER.into()),
        ]);
    }
    let _ = write!(text, "\n{table}");
    if queue.depth > queue.items.len() as u64 {
        let _ = writeln!(text, "and {} more", queue.depth - queue.items.len() as u64);
    }
    text
}

fn instances(instances: &answers::Instances) -> String {
    let mut table = Table::new(&[
        TableColumn::Right("INSTANCE"),
        TableColumn::Right("EPOCH"),
        TableColumn::Left("HEARTBEAT"),
        TableColumn::Left(""),
    ]);
    for instance in &instances.instances {
        table.row([
            instance.id.to_string(),
            instance.epoch.to_string(),
            moment(&instance.heartbeat),
            if instance.this { "this one" } else { "" }.to_owned(),
        ]);
    }
    table.to_string()
}

fn log_level(level: &answers::LogLevelAnswer) -> String {
    format!("log level  {}\n", plain(&level.level))
}

fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

fn told(value: Option<u64>, show: impl Fn(u64) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), show)
}

/// `2023-11-14T22:13:20.123Z` as `2023-11-14 22:13:20 UTC`; another text as it is.
fn moment(text: &str) -> String {
    let parts = text.strip_suffix('Z').and_then(|rest| rest.split_once('T'));
    let Some((date, time)) = parts else {
        return plain(text);
    };
    let time = time.split_once('.').map_or(time, |(seconds, _)| seconds);
    plain(&format!("{date} {time} UTC"))
}

/// A key may hold line breaks and terminal codes; a cell stays a cell.
fn plain(text: &str) -> String {
    match text.chars().any(char::is_control) {
        true => text.escape_debug().to_string(),
        false => text.to_owned(),
    }
}

/// A column and how its cells stand.
#[derive(Debug, Clone, Copy)]
enum TableColumn {
    Left(&'static str),
    Right(&'static str),
}

/// Rows under headings.
struct Table<const N: usize> {
    columns: [TableColumn; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    fn new(columns: &[TableColumn; N]) -> Self {
        let heading = |column: &TableColumn| match column {
            TableColumn::Left(name) | TableColumn::Right(name) => (*name).to_owned(),
        };
        Self {
            columns: *columns,
            rows: vec![columns.each_ref().map(heading)],
        }
    }

    fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| plain(&cell)));
    }
}

impl<const N: usize> std::fmt::Display for Table<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = |at: usize| self.rows.iter().map(move |row| row[at].chars().count());
        let widths: [usize; N] = std::array::from_fn(|at| width(at).max().unwrap_or(0));
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, column), width) in row.iter().zip(&self.columns).zip(widths) {
                match column {
                    TableColumn::Left(_) => write!(line, "{cell:<width$}{GAP}")?,
                    TableColumn::Right(_) => write!(line, "{cell:>width$}{GAP}")?,
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_cannot_leave_its_place() {
        let mut table = Table::new(&[TableColumn::Left("KEY"), TableColumn::Right("N")]);
        table.row(["a\u{1b}[2J\nb".to_owned(), "1".to_owned()]);
        table.row(["ü".to_owned(), "20".to_owned()]);
        let text = table.to_string();
        assert_eq!(
            text,
            "KEY             N\na\\u{1b}[2J\\nb   1\nü              20\n"
        );
    }

    #[test]
    fn moments_read_as_people_write_them() {
        assert_eq!(
            moment("2023-11-14T22:13:20.123Z"),
            "2023-11-14 22:13:20 UTC"
        );
        assert_eq!(moment("2023-11-14T22:13:20Z"), "2023-11-14 22:13:20 UTC");
        assert_eq!(moment("yesterday"), "yesterday");
    }
}
