//! The table: its rows, the running of its cells, several at a time, and its print.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use interop::enter::{Chain, Lab};
use interop::peer::{Daemon, Extra};

use super::meeting::{Failure, Meeting, Terms};

/// How many cells are at work at a time. They wait most of the time.
const WORKERS: usize = 6;

/// What a cell has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Both sides say that it works.
    Ok,
    /// The router has no such thing; why.
    Lacks(&'static str),
}

/// One row: a feature, and how a cell of it is shown.
pub(super) struct Row {
    /// As it is printed.
    pub name: &'static str,
    /// Letters and digits, for names of files.
    pub short: &'static str,
    /// Meets the router of the cell and says what it found.
    pub show: fn(&Cell<'_>) -> Result<Verdict, Failure>,
}

/// One cell at work.
pub(super) struct Cell<'a> {
    lab: &'a Lab,
    pub daemon: Daemon,
    name: String,
}

impl Cell<'_> {
    /// [`Meeting::arrange`] with the cell's router.
    pub(super) fn arrange(&self, terms: &Terms) -> Result<Meeting, Failure> {
        Meeting::arrange(self.lab, self.daemon, &self.name, terms)
    }

    /// [`Meeting::established`] with the cell's router.
    pub(super) fn established(&self, terms: &Terms) -> Result<Meeting, Failure> {
        Meeting::established(self.lab, self.daemon, &self.name, terms)
    }

    /// See [`Daemon::lacks`].
    pub(super) fn lacks(&self, extra: Extra) -> Option<&'static str> {
        self.daemon.lacks(extra)
    }

    /// All that the cell's router has logged.
    pub(super) fn logs(&self) -> Result<String, Failure> {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.lab.scratch())? {
            let entry = entry?;
            let start = format!("{}-", self.name);
            if entry.file_name().to_string_lossy().starts_with(&start) {
                text += &String::from_utf8_lossy(&std::fs::read(entry.path())?);
            }
        }
        Ok(text)
    }
}

/// What has come out, or the error: by row and column.
pub(super) type Outcomes = BTreeMap<(usize, usize), Result<Verdict, String>>;

/// Runs all cells.
pub(super) fn run(lab: &Lab, rows: &[Row], columns: &[Daemon]) -> Outcomes {
    let cells: Vec<(usize, usize)> = (0..rows.len())
        .flat_map(|row| (0..columns.len()).map(move |column| (row, column)))
        .collect();
    let outcomes = Mutex::new(Outcomes::new());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((row, column)) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = show(lab, &rows[*row], columns[*column]);
                    let mut outcomes = outcomes.lock().expect("no worker panics");
                    outcomes.insert((*row, *column), outcome);
                }
            });
        }
    });
    outcomes.into_inner().expect("no worker panics")
}

fn show(lab: &Lab, row: &Row, daemon: Daemon) -> Result<Verdict, String> {
    let cell = Cell {
        lab,
        daemon,
        name: format!("{}-{}", daemon.to_string().to_lowercase(), row.short),
    };
    let started = Instant::now();
    let shown = catch_unwind(AssertUnwindSafe(|| (row.show)(&cell)));
    let outcome = match shown {
        Ok(Ok(verdict)) => Ok(verdict),
        Ok(Err(error)) => Err(Chain(error.as_ref()).to_string()),
        Err(panic) => Err(words(panic.as_ref())),
    };
    tracing::info!(
        cell = cell.name,
        seconds = started.elapsed().as_secs_f64(),
        ?outcome,
        "shown"
    );
    outcome
}

/// The message of a failed assertion.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

/// The table in Markdown: verdicts, with a numbered reason for each cell that is not plainly `ok`.
pub(super) fn markdown(rows: &[Row], columns: &[Daemon], outcomes: &Outcomes) -> String {
    let mut text = String::from("| |");
    for daemon in columns {
        let _ = write!(text, " {daemon} |");
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(columns.len()));
    text.push('\n');
    let mut reasons = Vec::new();
    for (row, Row { name, .. }) in rows.iter().enumerate() {
        let _ = write!(text, "| {name} |");
        for (column, daemon) in columns.iter().enumerate() {
            let (word, reason) = match outcomes.get(&(row, column)) {
                Some(Ok(Verdict::Ok)) => ("ok", None),
                Some(Ok(Verdict::Lacks(reason))) => ("lacks", Some(*reason)),
                Some(Err(_)) | None => ("FAILED", None),
            };
            let _ = write!(text, " {word}");
            if let Some(reason) = reason {
                let _ = write!(text, " {}", number(&mut reasons, *daemon, reason));
            }
            text.push_str(" |");
        }
        text.push('\n');
    }
    text.push('\n');
    for (index, (daemon, reason)) in reasons.iter().enumerate() {
        let _ = writeln!(text, "{}. {daemon}: {reason}", index + 1);
    }
    text
}

fn number(
    reasons: &mut Vec<(Daemon, &'static str)>,
    daemon: Daemon,
    reason: &'static str,
) -> usize {
    let reason = (daemon, reason);
    let known = reasons.iter().position(|known| *known == reason);
    let index = known.unwrap_or_else(|| {
        reasons.push(reason);
        reasons.len() - 1
    });
    index + 1
}
