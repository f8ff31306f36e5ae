//! What the CLI prints: the one place that writes to standard output.

use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::Value;

/// Writes tables for people, or JSON for scripts.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

/// A column: its heading, and how to read a cell from a JSON object.
pub type Column = (&'static str, fn(&Value) -> String);

impl Output {
    /// Prints JSON when `json` is set.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Output { json }
    }

    /// Whether JSON was asked for.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.json
    }

    /// One line of text; nothing when JSON was asked for.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn line(self, text: impl AsRef<str>) -> io::Result<()> {
        if self.json {
            Ok(())
        } else {
            raw(text.as_ref())
        }
    }

    /// Whether somebody looks on while something takes long: text on a terminal.
    #[must_use]
    pub fn shows_progress(self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    /// One line on standard error, for who looks on.
    pub fn progress(self, text: &str) {
        if self.shows_progress() && !text.is_empty() {
            // Nobody misses a line that cannot be shown.
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// A value as JSON, indented; nothing unless JSON was asked for.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn json(self, value: &impl Serialize) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        raw(&serde_json::to_string_pretty(value).map_err(io::Error::other)?)
    }

    /// A list: as JSON, or as a table with these columns, or as `empty` when nothing is in it.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn list(self, rows: &Value, columns: &[Column], empty: &str) -> io::Result<()> {
        if self.json {
            return self.json(rows);
        }
        let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
        if rows.is_empty() {
            return self.line(empty);
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(columns.iter().map(|(heading, _)| *heading));
        for row in rows {
            table.add_row(columns.iter().map(|(_, cell)| cell(row)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
            column.set_cell_alignment(CellAlignment::Left);
        }
        self.line(
            table
                .to_string()
                .lines()
                .map(str::trim_end)
                .collect::<Vec<_>>()
                .join("\n"),
        )
    }
}

/// One line, whether or not JSON was asked for.
///
/// # Errors
/// When standard output cannot be written.
pub fn raw(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")
}

/// The text at a JSON pointer: strings bare, lists joined by a comma, null and nothing as `-`.
#[must_use]
pub fn text(value: &Value, pointer: &str) -> String {
    fn plain(value: &Value) -> String {
        match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            Value::Array(items) if items.is_empty() => "-".to_owned(),
            Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
            other => other.to_string(),
        }
    }
    value.pointer(pointer).map_or_else(|| "-".to_owned(), plain)
}
