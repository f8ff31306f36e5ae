//! The audit log: who ordered what, before it is done, and what came of it.
//!
//! A JSON object a line. An order that cannot be written down is not carried out.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::caller::Caller;
use crate::api::error::{ApiError, ErrorCode};
use crate::ledger::Made;

/// The log. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Audit {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: Mutex<File>,
    next: AtomicU64,
    /// Records whose change is written down.
    changes: AtomicU64,
    /// Lines that could not be written.
    unwritten: AtomicU64,
    /// Distinguishes the entries of this process from those of others.
    process: u64,
}

/// An order that is written down and not carried out yet.
#[derive(Debug)]
pub(super) struct Entry {
    audit: Audit,
    id: String,
    caller: Caller,
    order: &'static str,
}

#[derive(Serialize)]
struct Line<'l> {
    time: f64,
    id: &'l str,
    event: &'l str,
    #[serde(flatten)]
    caller: &'l Caller,
    order: &'l str,
    #[serde(flatten)]
    more: Value,
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

impl Audit {
    /// Opens the log, which is made when it is not there; lines are added to it.
    ///
    /// # Errors
    /// The file, or its folder, cannot be had.
    pub(super) fn open(path: &Path) -> io::Result<Audit> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let inner = Inner {
            path: path.to_owned(),
            file: Mutex::new(open(path)?),
            next: AtomicU64::new(1),
            changes: AtomicU64::new(0),
            unwritten: AtomicU64::new(0),
            process: now().to_bits() ^ u64::from(std::process::id()),
        };
        Ok(Audit {
            inner: Arc::new(inner),
        })
    }

    /// Opens the file anew, as after it was moved away.
    ///
    /// # Errors
    /// It cannot be had; the one that is open stays in use.
    pub(super) fn reopen(&self) -> io::Result<()> {
        let file = open(&self.inner.path)?;
        *self
            .inner
            .file
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    /// How many changes of records are written down since the process started.
    pub(super) fn changes(&self) -> u64 {
        self.inner.changes.load(Ordering::Relaxed)
    }

    /// How many lines could not be written since then.
    pub(super) fn unwritten(&self) -> u64 {
        self.inner.unwritten.load(Ordering::Relaxed)
    }

    /// Writes down that somebody ordered something.
    ///
    /// # Errors
    /// It cannot be written down: the order is not to be carried out.
    pub(super) fn begin(
        &self,
        caller: &Caller,
        order: &'static str,
        what: Value,
    ) -> Result<Entry, ApiError> {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let entry = Entry {
            audit: self.clone(),
            id: format!("{:016x}-{number}", self.inner.process),
            caller: caller.clone(),
            order,
        };
        let written = entry.write("ordered", json!({ "what": what }));
        written.map_err(|error| {
            let path = self.inner.path.display();
            let message =
                format!("the audit log {path} cannot be written ({error}): nothing is changed");
            ApiError::new(ErrorCode::Unavailable, message)
        })?;
        Ok(entry)
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

impl Entry {
    /// Writes down what came of it.
    pub(super) fn end(self, outcome: &Result<Made, ApiError>) {
        let written = match outcome {
            Ok(made) => {
                let changes: Vec<Value> = match made.diff.is_empty() {
                    true => made.keys.iter().map(|key| json!({ "key": key })).collect(),
                    false => made
                        .diff
                        .iter()
                        .map(|diff| {
                            json!({"key": diff.key, "before": record(&diff.before), "after": record(&diff.after)})
                        })
                        .collect(),
                };
                let event = if made.before { "done-before" } else { "done" };
                let (generation, count) = (made.generation, changes.len());
                let more = json!({ "generation": generation, "changes": changes });
                let written = self.write(event, more);
                if written.is_ok() && !made.before {
                    let total = &self.audit.inner.changes;
                    total.fetch_add(count as u64, Ordering::Relaxed);
                }
                written
            }
            Err(error) => self.write("refused", json!({ "error": error })),
        };
        self.was(written);
    }

    /// Writes down what a gateway answered.
    pub(super) fn answered(self, said: &Result<(StatusCode, Value), ApiError>) {
        let written = match said {
            Ok((status, answer)) if status.is_success() => {
                self.write("done", json!({ "answer": answer }))
            }
            Ok((_, error)) => self.write("refused", json!({ "error": error })),
            Err(error) => self.write("refused", json!({ "error": error })),
        };
        self.was(written);
    }

    /// Whether what came of it is written down: nobody else can be told.
    fn was(&self, written: io::Result<()>) {
        if let Err(error) = written {
            tracing::error!(%error, id = self.id, "what came of an order is not in the audit log");
        }
    }

    fn write(&self, event: &str, more: Value) -> io::Result<()> {
        let written = self.try_write(event, more);
        if written.is_err() {
            let unwritten = &self.audit.inner.unwritten;
            unwritten.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    fn try_write(&self, event: &str, more: Value) -> io::Result<()> {
        let line = Line {
            time: now(),
            id: &self.id,
            event,
            caller: &self.caller,
            order: self.order,
            more,
        };
        let mut line = serde_json::to_vec(&line)?;
        line.push(b'\n');
        let inner = &self.audit.inner;
        let mut file = inner.file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write, so that lines of several processes do not mix.
        file.write_all(&line)
    }
}

/// A value of the store, as JSON if it is.
fn record(value: &Option<bytes::Bytes>) -> Value {
    match value {
        None => Value::Null,
        Some(value) => serde_json::from_slice(value)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(value).into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Diff;

    #[test]
    fn an_order_and_what_came_of_it_are_two_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log/audit.jsonl");
        let audit = Audit::open(&path).unwrap();
        let caller = Caller::local();
        let entry = audit.begin(&caller, "link", json!({"vpc": "web"})).unwrap();
        entry.end(&Ok(Made {
            generation: 7,
            keys: vec!["links/web".to_owned()],
            before: false,
            diff: vec![Diff {
                key: "links/web".to_owned(),
                before: None,
                after: Some(br#"{"vpc":"web"}"#.to_vec().into()),
            }],
        }));
        std::fs::rename(&path, folder.path().join("log/old")).unwrap();
        audit.reopen().unwrap();
        let entry = audit.begin(&caller, "unlink", json!({})).unwrap();
        entry.end(&Err(ApiError::new(ErrorCode::NotFound, "no such link")));
        let lines = |name: &str| -> Vec<Value> {
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            text.lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        };
        let (old, new) = (lines("log/old"), lines("log/audit.jsonl"));
        assert_eq!(old.len(), 2);
        assert_eq!(old[0]["id"], old[1]["id"]);
        assert_eq!(old[0]["event"], "ordered");
        assert_eq!(old[1]["changes"][0]["after"]["vpc"], "web");
        assert_eq!(old[1]["changes"][0]["before"], Value::Null);
        assert_eq!((audit.changes(), audit.unwritten()), (1, 0));
        assert_eq!(new[1]["event"], "refused");
        assert_eq!(new[1]["name"], "local");
    }
}
