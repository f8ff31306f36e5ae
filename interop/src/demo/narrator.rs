//! What the demo prints, and where: the one place of it that writes. A line a step for people, or
//! one JSON object for programs.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;

use super::Outcome;
use super::steps::Said;

/// Where the text of a step begins, in columns.
const INDENT: usize = 22;
/// The terminal's width that the text is broken to, in columns.
const WIDTH: usize = 100;

/// What there is, and who is where.
const PICTURE: &str = "\
\x20 office-host ---+--- bird  AS 65002 ---+                            +--- VXLAN --- web-1 10.1.0.11
  10.80.1.10     +--- gobgp AS 65003 ---+--- gateway gw, AS 65001 ---+    VNI 1001 on 172.16.0.11

";

/// Writes the narration.
#[derive(Debug)]
pub(super) struct Narrator {
    /// The narration goes to standard error, and JSON to standard output.
    json: bool,
    /// Somebody watches: colours, and a step is shown while it goes on.
    live: bool,
    colours: bool,
}

#[derive(Debug, Clone, Copy)]
enum Colour {
    Good,
    Bad,
    Faint,
    Strong,
}

impl Narrator {
    pub(super) fn new(json: bool) -> Self {
        let live = match json {
            true => io::stderr().is_terminal(),
            false => io::stdout().is_terminal(),
        };
        let colours = live && std::env::var_os("NO_COLOR").is_none();
        Self {
            json,
            live,
            colours,
        }
    }

    pub(super) fn heading(&self) -> io::Result<()> {
        self.write(PICTURE)
    }

    /// A step begins.
    pub(super) fn begin(&self, name: &str) -> io::Result<()> {
        match self.live {
            true => self.write(&format!("  ..         {name}")),
            false => Ok(()),
        }
    }

    /// A step has ended.
    pub(super) fn end(&self, name: &str, ok: bool, took: Duration, said: &Said) -> io::Result<()> {
        let (mark, colour) = match ok {
            true => ("  ok", Colour::Good),
            false => ("FAIL", Colour::Bad),
        };
        let mark = self.coloured(mark, colour);
        let name = self.coloured(&format!("{name:<9}"), Colour::Strong);
        let took = format!("{:4.1} s", took.as_secs_f64());
        let mut text = String::new();
        if self.live {
            // Over the line of the beginning.
            text.push_str("\r\x1b[K");
        }
        let mut first = true;
        for line in said.text.lines() {
            for part in broken(line, INDENT) {
                if first {
                    text.push_str(&format!("{mark} {took} {name} {part}\n"));
                } else {
                    text.push_str(&format!("{:INDENT$}{part}\n", ""));
                }
                first = false;
            }
        }
        for line in said.quote.iter().flat_map(|quote| quote.lines()) {
            let line = self.coloured(line.trim_end(), Colour::Faint);
            text.push_str(&format!("       {line}\n"));
        }
        self.write(&text)
    }

    /// A step was not tried.
    pub(super) fn skipped(&self, name: &str) -> io::Result<()> {
        let mark = self.coloured("  --", Colour::Faint);
        self.write(&format!("{mark}        {name:<9} skipped\n"))
    }

    /// The demo is over.
    pub(super) fn closing(&self, outcomes: &[Outcome], took: Duration) -> io::Result<()> {
        let good = outcomes.iter().filter(|outcome| outcome.ok).count();
        let all = outcomes.len();
        let took = took.as_secs_f64();
        let text = format!("{good} of {all} steps ok in {took:.1} s");
        let colour = if good == all {
            Colour::Good
        } else {
            Colour::Bad
        };
        self.write(&format!("{}\n", self.coloured(&text, colour)))
    }

    /// Further lines.
    pub(super) fn lines(&self, lines: &[String]) -> io::Result<()> {
        let broken: Vec<String> = lines.iter().flat_map(|line| broken(line, 0)).collect();
        self.write(&(broken.join("\n") + "\n"))
    }

    /// The step that was going on will not end: what follows begins on a line of its own.
    pub(super) fn leave_line(&self) -> io::Result<()> {
        match self.live {
            true => self.write("\n"),
            false => Ok(()),
        }
    }

    /// Something went wrong outside of a step.
    pub(super) fn complain(&self, text: &str) -> io::Result<()> {
        let mut err = io::stderr().lock();
        err.write_all(format!("demo: {text}\n").as_bytes())
    }

    /// The one object for programs, if they asked for it.
    pub(super) fn json(&self, report: &impl Serialize) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        let text = serde_json::to_string(report).map_err(io::Error::other)?;
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    }

    fn coloured(&self, text: &str, colour: Colour) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Good => "32",
            Colour::Bad => "31;1",
            Colour::Faint => "2",
            Colour::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    fn write(&self, text: &str) -> io::Result<()> {
        // One call a piece, so that it never tears between the lines of another program.
        if self.json {
            let mut err = io::stderr().lock();
            return err.write_all(text.as_bytes());
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

/// A line broken at blanks so that it fits into the width, with `indent` columns taken already.
fn broken(line: &str, indent: usize) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    for (index, word) in line.split(' ').enumerate() {
        if !part.trim().is_empty() && indent + part.len() + 1 + word.len() > WIDTH {
            parts.push(std::mem::take(&mut part));
        } else if index > 0 {
            part.push(' ');
        }
        part.push_str(word);
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_blanks_and_nothing_is_lost() {
        let long = "word ".repeat(40);
        let parts = broken(long.trim(), INDENT);
        assert!(parts.len() > 1);
        assert!(parts.iter().all(|part| INDENT + part.len() <= WIDTH));
        assert_eq!(parts.join(" "), long.trim());
        assert_eq!(broken("short", INDENT), ["short"]);
        assert_eq!(broken("  two  gaps", INDENT), ["  two  gaps"]);
        let endless = "x".repeat(200);
        assert_eq!(broken(&endless, INDENT), [endless]);
    }
}
