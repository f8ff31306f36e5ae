//! Results: gathered while a bench runs, told as progress, and at the end as one table and as one
//! JSON object a line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use serde::Serialize;

/// One line of a bench: a subject in one case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    bench: &'static str,
    case: String,
    n: usize,
    subject: String,
    unit: &'static str,
    runs: Vec<f64>,
    /// `None` if there is no run: `note` says why.
    median: Option<f64>,
    note: String,
}

/// What is measured: a case, how large, and in which unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case<'a> {
    /// Its name.
    pub name: &'a str,
    /// How large: prefixes, VMs.
    pub n: usize,
    /// `s`, `bytes`, `UPDATEs`.
    pub unit: &'static str,
}

/// All lines of a bench in the order in which they began.
#[derive(Debug)]
pub struct Report {
    bench: &'static str,
    /// The subject that others are compared with.
    yardstick: &'static str,
    lines: Vec<Line>,
    progress: bool,
}

impl Report {
    /// An empty one, whose table compares all subjects with one of them. What is measured is told on stderr at once; what is being done, too, if that is a
    /// terminal.
    pub fn new(bench: &'static str, yardstick: &'static str) -> Report {
        Report {
            bench,
            yardstick,
            lines: Vec::new(),
            progress: io::stderr().is_terminal(),
        }
    }

    /// Says what is being done.
    pub fn progress(&self, what: &str) {
        if self.progress {
            // A lost line of progress is no loss.
            let _ = write!(io::stderr(), "\r\x1b[K{what}");
        }
    }

    /// One more run.
    pub fn add(&mut self, case: Case<'_>, subject: &str, value: f64) {
        let line = self.line(case, subject);
        line.runs.push(value);
        line.median = median(&line.runs);
        let said = format!(
            "{:>9} {:<20} {subject:<10} {value:.4} {}",
            case.n, case.name, case.unit
        );
        self.progress(&said);
        let end = if self.progress {
            "\n"
        } else {
            &format!("{said}\n")
        };
        // What is known is known, also if the bench is stopped before its end.
        let _ = write!(io::stderr(), "{end}");
    }

    /// Something to be read beside the numbers.
    pub fn note(&mut self, case: Case<'_>, subject: &str, note: &str) {
        let line = self.line(case, subject);
        if !line.note.contains(note) {
            if !line.note.is_empty() {
                line.note.push_str("; ");
            }
            line.note.push_str(note);
        }
    }

    /// The median of a subject in a case, if it was measured.
    pub fn median(&self, case: Case<'_>, subject: &str) -> Option<f64> {
        let same =
            |line: &&Line| line.case == case.name && line.n == case.n && line.subject == subject;
        self.lines.iter().find(same)?.median
    }

    /// Sizes at which a case was measured, ascending.
    pub fn sizes(&self, case: &str) -> Vec<usize> {
        let of_case = self.lines.iter().filter(|line| line.case == case);
        let sizes: BTreeSet<usize> = of_case.map(|line| line.n).collect();
        sizes.into_iter().collect()
    }

    /// The lines so far.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    fn line(&mut self, case: Case<'_>, subject: &str) -> &mut Line {
        let same =
            |line: &Line| line.case == case.name && line.n == case.n && line.subject == subject;
        let at = self.lines.iter().position(same).unwrap_or_else(|| {
            self.lines.push(Line {
                bench: self.bench,
                case: case.name.to_owned(),
                n: case.n,
                subject: subject.to_owned(),
                unit: case.unit,
                runs: Vec::new(),
                median: None,
                note: String::new(),
            });
            self.lines.len() - 1
        });
        &mut self.lines[at]
    }

    /// Appends every line to a file of JSON lines.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&self, path: &Path) -> io::Result<()> {
        let mut text = Vec::new();
        for line in &self.lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        File::options()
            .create(true)
            .append(true)
            .open(path)?
            .write_all(&text)
    }

    /// Writes the table: a row a case, a column a subject; medians, and behind them the ratio to the
    /// yardstick. What could not be measured is explained below.
    ///
    /// # Errors
    /// Nobody takes it.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let mut subjects: Vec<&str> = Vec::new();
        let mut rows: Vec<(&str, usize, &str)> = Vec::new();
        let mut cells: BTreeMap<(usize, &str), &Line> = BTreeMap::new();
        for line in &self.lines {
            if !subjects.contains(&line.subject.as_str()) {
                subjects.push(&line.subject);
            }
            let row = (line.case.as_str(), line.n, line.unit);
            let at = rows
                .iter()
                .position(|known| *known == row)
                .unwrap_or_else(|| {
                    rows.push(row);
                    rows.len() - 1
                });
            cells.insert((at, &line.subject), line);
        }
        let case = rows
            .iter()
            .map(|(case, ..)| case.len())
            .max()
            .unwrap_or(0)
            .max(4);
        write!(out, "{:<case$}  {:>9}  {:<7}", "case", "n", "unit")?;
        for subject in &subjects {
            write!(out, "  {subject:>16}")?;
        }
        writeln!(out)?;
        for (at, (name, n, unit)) in rows.iter().enumerate() {
            write!(out, "{name:<case$}  {n:>9}  {unit:<7}")?;
            let median = |subject| cells.get(&(at, subject)).and_then(|line| line.median);
            let yardstick = median(self.yardstick);
            for subject in &subjects {
                let text = match (median(subject), yardstick) {
                    (None, _) => "-".to_owned(),
                    (Some(value), Some(yardstick))
                        if *subject != self.yardstick && yardstick > 0.0 =>
                    {
                        format!("{} x{:<5.2}", figure(value), value / yardstick)
                    }
                    (Some(value), _) => format!("{}       ", figure(value)),
                };
                write!(out, "  {text:>16}")?;
            }
            writeln!(out)?;
        }
        for line in self.lines.iter().filter(|line| !line.note.is_empty()) {
            writeln!(
                out,
                "{} {} {}: {}",
                line.case, line.n, line.subject, line.note
            )?;
        }
        Ok(())
    }
}

/// Three digits that matter.
fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        small if small < 0.0995 => format!("{value:.4}"),
        small if small < 9.95 => format!("{value:.3}"),
        small if small < 99.5 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The middle one; of an even number the mean of the two in the middle.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => Some(sorted[half]),
        _ => Some((sorted.get(half.checked_sub(1)?)? + sorted[half]) / 2.0),
    }
}

/// The value under which this share (0 to 1) of the values lies: the smallest that does it.
pub fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 0.5), Some(50.0));
        assert_eq!(percentile(&hundred, 0.99), Some(99.0));
        assert_eq!(percentile(&[7.0], 0.99), Some(7.0));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn a_line_has_the_agreed_shape() {
        let mut report = Report::new("bgp", "bird");
        let case = Case {
            name: "pass-on-8",
            n: 100_000,
            unit: "s",
        };
        for run in [0.5, 0.25, 0.75] {
            report.add(case, "ours", run);
        }
        report.add(case, "bird", 1.0);
        report.note(case, "gobgp", "over 60 s");
        let json = serde_json::to_string(&report.lines()[0]).expect("JSON");
        assert_eq!(
            json,
            r#"{"bench":"bgp","case":"pass-on-8","n":100000,"subject":"ours","unit":"s","runs":[0.5,0.25,0.75],"median":0.5,"note":""}"#
        );
        let mut table = Vec::new();
        report.print(&mut table).expect("a table");
        let table = String::from_utf8(table).expect("text");
        assert!(
            table.contains("0.500 x0.50") && table.contains("gobgp: over 60 s"),
            "{table}"
        );
    }
}
