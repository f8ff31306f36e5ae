//! Regions in files: JSON Lines, one `{"key":"vpcs/web","value":{...}}` a line.
//!
//! A region is a file, or a directory of `*.jsonl` files. The order of its lines means nothing:
//! readers get what is named before what names it. An error names file, line, field and reason.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::record::{MAX_VALUE_BYTES, Reason, Record, RecordError, RecordKey};
use crate::store::Stored;

#[cfg(test)]
mod tests;

/// The longest line, in bytes: the longest value, and room for its key.
const MAX_LINE: usize = MAX_VALUE_BYTES + 1024;

/// A record of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionEntry {
    /// Where it stands in the store.
    pub key: RecordKey,
    /// What it says.
    pub record: Record,
}

impl RegionEntry {
    /// Its line in a region file, without the line feed.
    pub fn line(&self) -> String {
        line(&self.key.to_string(), &self.record)
    }
}

/// A line of a region file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<K, V> {
    key: K,
    value: V,
}

fn line(key: &str, value: &impl Serialize) -> String {
    // Maps with string keys and numbers that came from JSON: there is nothing that can fail.
    serde_json::to_string(&Line { key, value }).unwrap_or_default()
}

/// A place in a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    path: Arc<Path>,
    line: usize,
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// Why a region cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// A file or directory cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's own words.
        error: io::Error,
    },
    /// A directory without any file of the format.
    #[error("{}: there is no *.jsonl file in this directory", .0.display())]
    NoFiles(PathBuf),
    /// A line is too long to be one.
    #[error("{at}: the line has over {MAX_LINE} bytes")]
    TooLong {
        /// The line.
        at: At,
    },
    /// A line is not `{"key":...,"value":...}`.
    #[error("{at}: the line is not {{\"key\":...,\"value\":...}}: {detail}")]
    Line {
        /// The line.
        at: At,
        /// What is wrong with it.
        detail: String,
    },
    /// A record is wrong by itself.
    #[error("{at}: {error}")]
    Record {
        /// Its line.
        at: At,
        /// Key, field and reason.
        error: Box<RecordError>,
    },
    /// A key stands there twice.
    #[error("{at}: {key} stands in {first} already")]
    Twice {
        /// The second line.
        at: At,
        /// The key.
        key: RecordKey,
        /// The first line.
        first: At,
    },
}

/// Reads a whole region: what is named before what names it, and by key within a kind.
///
/// # Errors
/// The first that is found. Whether the records can stand beside one another is not looked at.
pub fn read(path: &Path) -> Result<Vec<RegionEntry>, RegionError> {
    let mut all = entries(path)?.collect::<Result<Vec<_>, _>>()?;
    // Of the same key the first stays the first.
    all.sort_by(|(_, one), (_, other)| one.key.cmp(&other.key));
    for pair in all.windows(2) {
        if let [(first, one), (at, other)] = pair
            && one.key == other.key
        {
            return Err(RegionError::Twice {
                at: at.clone(),
                key: other.key.clone(),
                first: first.clone(),
            });
        }
    }
    Ok(all.into_iter().map(|(_, entry)| entry).collect())
}

/// The records of a region one by one, as they stand in its files (the files by name).
///
/// # Errors
/// When a directory cannot be read or has no `*.jsonl` file. What is wrong with a file or a line
/// comes as an item.
pub fn entries(
    path: &Path,
) -> Result<impl Iterator<Item = Result<(At, RegionEntry), RegionError>>, RegionError> {
    let failed = |error| RegionError::Io {
        path: path.to_owned(),
        error,
    };
    let mut files = Vec::new();
    if path.is_dir() {
        for item in path.read_dir().map_err(failed)? {
            files.push(item.map_err(failed)?.path());
        }
        files.retain(|file| {
            file.extension()
                .is_some_and(|extension| extension == "jsonl")
        });
        files.sort();
        if files.is_empty() {
            return Err(RegionError::NoFiles(path.to_owned()));
        }
    } else {
        files.push(path.to_owned());
    }
    // One at a time: a directory may hold more files than a process may have open.
    Ok(files.into_iter().flat_map(|path| {
        let (lines, failure) = match File::open(&path) {
            Ok(file) => (Some(Lines::new(&path, file)), None),
            Err(error) => (None, Some(Err(RegionError::Io { path, error }))),
        };
        lines.into_iter().flatten().chain(failure)
    }))
}

/// The records of one file. Blank lines are passed over.
struct Lines<R> {
    reader: R,
    at: At,
    buffer: Vec<u8>,
    /// A reader that failed is at its end.
    done: bool,
}

impl Lines<BufReader<File>> {
    fn new(path: &Path, file: File) -> Self {
        let at = At {
            path: Arc::from(path),
            line: 0,
        };
        Lines {
            reader: BufReader::new(file),
            at,
            buffer: Vec::new(),
            done: false,
        }
    }
}

impl<R: BufRead> Lines<R> {
    fn next_line(&mut self) -> Result<Option<RegionEntry>, RegionError> {
        loop {
            self.buffer.clear();
            self.at.line += 1;
            let mut limited = (&mut self.reader).take(MAX_LINE as u64 + 1);
            let read = limited
                .read_until(b'\n', &mut self.buffer)
                .map_err(|error| {
                    self.done = true;
                    RegionError::Io {
                        path: self.at.path.to_path_buf(),
                        error,
                    }
                })?;
            if read == 0 {
                return Ok(None);
            }
            if read > MAX_LINE {
                // Where the next line begins is not known.
                self.done = true;
                return Err(RegionError::TooLong {
                    at: self.at.clone(),
                });
            }
            if !self.buffer.trim_ascii().is_empty() {
                return parse(&self.at, &self.buffer).map(Some);
            }
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<(At, RegionEntry), RegionError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        match self.next_line() {
            Ok(entry) => Some(Ok((self.at.clone(), entry?))),
            Err(error) => Some(Err(error)),
        }
    }
}

fn parse(at: &At, line: &[u8]) -> Result<RegionEntry, RegionError> {
    let Line { key, value }: Line<String, Value> =
        serde_json::from_slice(line).map_err(|error| RegionError::Line {
            at: at.clone(),
            detail: error.to_string(),
        })?;
    let wrong = |error| RegionError::Record {
        at: at.clone(),
        error: Box::new(error),
    };
    let key: RecordKey = key.parse().map_err(|error| {
        wrong(RecordError {
            key,
            field: "key".to_owned(),
            reason: Reason::BadKey(error),
        })
    })?;
    if key.kind().registers_itself() {
        return Err(wrong(RecordError::new(
            &key,
            "key",
            Reason::RegistersItself,
        )));
    }
    let record = Record::from_value(&key, value).map_err(wrong)?;
    Ok(RegionEntry { key, record })
}

/// Writes records of a store as a region, in the order in which [`read`] gives them. Those whose
/// key or value is wrong come last, and a value that is no JSON is written as a text, so that
/// nothing is left out but the gateways, which register themselves.
///
/// # Errors
/// When `out` cannot be written.
pub fn write(mut out: impl Write, records: &[Stored]) -> io::Result<()> {
    let mut sorted: Vec<(Option<RecordKey>, &Stored)> = records
        .iter()
        .map(|stored| (stored.key.parse().ok(), stored))
        .filter(|(key, _): &(Option<RecordKey>, _)| {
            key.as_ref()
                .is_none_or(|key| !key.kind().registers_itself())
        })
        .collect();
    sorted.sort_by(|(one, first), (other, second)| {
        (one.is_none(), one, &first.key).cmp(&(other.is_none(), other, &second.key))
    });
    for (key, stored) in sorted {
        let good = key.and_then(|key| Record::parse(&key, &stored.value).ok());
        let line = match (good, serde_json::from_slice::<Value>(&stored.value)) {
            (Some(record), _) => line(&stored.key, &record),
            (None, Ok(value)) => line(&stored.key, &value),
            (None, Err(_)) => line(&stored.key, &String::from_utf8_lossy(&stored.value)),
        };
        out.write_all(line.as_bytes())?;
        out.write_all(b"\n")?;
    }
    out.flush()
}
