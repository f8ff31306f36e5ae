//! `ccn decode`: BGP messages in hex, or MRT records, to one JSON object a line.
//!
//! Only lines and options are handled here; messages are read by the code that sessions use.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use bgp::mrt;
use bgp::wire::json::Report;
use bgp::wire::{FamilySet, WireOptions};

use super::CliError;
use super::args::{DecodeArgs, Switch};

/// Longest line that is read as a message, in octets: one of 65,535 octets takes 131,070 digits,
/// and may have two separators around each pair.
const MAX_LINE: usize = 4 * 65_535;

/// Runs the command over standard input, or over the MRT file.
pub(super) fn decode(args: &DecodeArgs) -> Result<(), CliError> {
    let mut out = io::BufWriter::with_capacity(64 << 10, io::stdout().lock());
    match &args.mrt {
        Some(path) => records(path, &mut out)?,
        None => {
            let input = BufReader::with_capacity(64 << 10, io::stdin().lock());
            lines(input, &options(args), &mut out)?;
        }
    }
    Ok(out.flush()?)
}

/// What the flags say of the session.
fn options(args: &DecodeArgs) -> WireOptions {
    let add_path = match args.add_path {
        true => FamilySet::all(),
        false => FamilySet::EMPTY,
    };
    WireOptions {
        four_octet_as: args.as4 == Switch::On,
        extended_messages: args.extended,
        internal: args.ibgp,
        add_path_receive: add_path,
        add_path_send: add_path,
        ipv4_next_hop_v6: args.next_hop_v6,
        allow_as_set: args.allow_as_set,
        first_as: args.peer_as.filter(|_| !args.ibgp),
    }
}

/// Each line that is not empty becomes one object.
fn lines(
    mut input: BufReader<impl Read>,
    options: &WireOptions,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let mut line = Vec::new();
    while next_line(&mut input, &mut line)? {
        let report = match octets(&line) {
            Ok(octets) if octets.is_empty() => continue,
            Ok(octets) => Report::of(&octets, options),
            Err(reason) => Report::incomplete(reason),
        };
        object(&report, out)?;
        // Whoever types a line wants the answer; whoever pipes many in has more of them here.
        if !input.buffer().contains(&b'\n') {
            out.flush()?;
        }
    }
    Ok(())
}

/// Reads a line without its end, as far as [`MAX_LINE`]; the rest of a longer one is skipped, and
/// one octet more than that shows it.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let read = input
        .by_ref()
        .take(MAX_LINE as u64 + 1)
        .read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > MAX_LINE {
        input.skip_until(b'\n')?;
    }
    Ok(read > 0)
}

/// The octets of a line of hex digits; spaces and colons are skipped.
fn octets(line: &[u8]) -> Result<Vec<u8>, String> {
    if line.len() > MAX_LINE {
        return Err(format!("the line is longer than {MAX_LINE} characters"));
    }
    let mut octets = Vec::with_capacity(line.len() / 2);
    let mut high = None;
    for (at, &c) in line.iter().enumerate() {
        if c.is_ascii_whitespace() || c == b':' {
            continue;
        }
        let Some(digit) = char::from(c).to_digit(16) else {
            let shown = char::from(c).escape_default();
            return Err(format!("'{shown}' at column {} is no hex digit", at + 1));
        };
        // A digit is below 16.
        let digit = digit as u8;
        high = match high {
            None => Some(digit),
            Some(high) => {
                octets.push(high << 4 | digit);
                None
            }
        };
    }
    match high {
        Some(_) => Err("the line has an odd number of hex digits".to_owned()),
        None => Ok(octets),
    }
}

/// Each record of the file becomes one object, also one that is wrong inside.
fn records(path: &Path, out: &mut impl Write) -> Result<(), CliError> {
    let file = File::open(path).map_err(|error| at(path, &error))?;
    for record in mrt::Reader::new(BufReader::with_capacity(64 << 10, file)) {
        match record {
            Ok(record) => object(&mrt::json::RecordView(&record), out)?,
            Err(error @ mrt::ReadError::Record { .. }) => {
                object(&mrt::json::Unreadable::of(&error), out)?;
            }
            Err(error) => {
                // What was read so far is told before the complaint.
                out.flush()?;
                return Err(at(path, &error));
            }
        }
    }
    Ok(())
}

fn at(path: &Path, error: &dyn std::error::Error) -> CliError {
    CliError::Failed(format!("{}: {error}", path.display()))
}

fn object(value: &impl serde::Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn decoded(input: &[u8], options: &WireOptions) -> Vec<Value> {
        let mut out = Vec::new();
        lines(BufReader::new(input), options, &mut out).expect("no error of input or output");
        String::from_utf8(out)
            .expect("UTF-8")
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    const KEEPALIVE: &str = "ffffffffffffffffffffffffffffffff001304";
    const FOUR_OCTET: WireOptions = WireOptions {
        four_octet_as: true,
        ..WireOptions::BEFORE_OPEN
    };

    #[test]
    fn a_line_is_read_however_it_is_spaced() {
        let colons: Vec<&str> = KEEPALIVE
            .as_bytes()
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).unwrap())
            .collect();
        let forms = [
            KEEPALIVE.to_owned(),
            KEEPALIVE.to_uppercase(),
            colons.join(":"),
            colons.join(" "),
            format!("  {}\t\r", colons.join(" : ")),
        ];
        let expected = json!({
            "verdict": "accept", "type": "keepalive", "message": {}, "errors": [],
        });
        for form in &forms {
            assert_eq!(
                decoded(form.as_bytes(), &FOUR_OCTET),
                std::slice::from_ref(&expected)
            );
        }
        // Empty lines say nothing, and the last line needs no end.
        let all = format!("\n{}\n \n\r\n", forms.join("\n\n"));
        assert_eq!(decoded(all.as_bytes(), &FOUR_OCTET).len(), forms.len());
    }

    #[test]
    fn junk_is_told_in_its_place() {
        let input = format!("{KEEPALIVE}\nhello\nff0\n{KEEPALIVE}\nÿ\n");
        let reasons: Vec<Value> = decoded(input.as_bytes(), &FOUR_OCTET)
            .iter()
            .map(|report| {
                json!([
                    report["verdict"],
                    report["errors"][0]["reason"],
                    report["message"]
                ])
            })
            .collect();
        let incomplete = |reason: &str| json!(["incomplete", reason, null]);
        assert_eq!(
            reasons,
            [
                json!(["accept", null, {}]),
                incomplete("'h' at column 1 is no hex digit"),
                incomplete("the line has an odd number of hex digits"),
                json!(["accept", null, {}]),
                incomplete("'\\u{c3}' at column 1 is no hex digit"),
            ]
        );
    }

    #[test]
    fn a_line_beyond_all_measure_is_refused_and_the_next_one_read() {
        let long = "f".repeat(MAX_LINE + 1000);
        let reports = decoded(format!("{long}\n{KEEPALIVE}").as_bytes(), &FOUR_OCTET);
        assert_eq!(reports[0]["verdict"], "incomplete");
        assert_eq!(reports[1]["verdict"], "accept");
        assert_eq!(reports.len(), 2);
    }

    proptest! {
        #[test]
        fn any_input_is_answered_line_by_line(
            lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..8),
            hex in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let digits: String = hex.iter().map(|octet| format!("{octet:02x}")).collect();
            let mut input = lines.join(&b'\n');
            input.push(b'\n');
            input.extend(digits.as_bytes());
            let blank = |line: &[u8]| line.iter().all(|c| c.is_ascii_whitespace() || *c == b':');
            let wanted = input.split(|c| *c == b'\n').filter(|line| !blank(line)).count();
            prop_assert_eq!(decoded(&input, &FOUR_OCTET).len(), wanted);
        }
    }
}
