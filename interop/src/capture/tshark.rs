//! A second opinion on what we emit: Wireshark's dissectors, by way of `tshark` over a pcap file.

use std::path::Path;
use std::time::Duration;

use crate::process::{Launch, ProcessError};

/// Dissection takes a second or two to start up, and is slow.
const DEADLINE: Duration = Duration::from_secs(60);
/// What separates the fields in our request; no dissector prints it.
const SEPARATOR: char = '|';

/// Something that the dissector finds wrong with a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The frame's number in the file, from 1.
    pub frame: u64,
    /// The dissector's words.
    pub text: String,
}

/// Fields of the frames that match a display filter: one row a frame, in the order asked for. A
/// field that occurs several times in a frame has its values joined by commas.
///
/// # Errors
/// `tshark` is missing or does not like the filter or a field's name.
pub fn fields(pcap: &Path, filter: &str, names: &[&str]) -> Result<Vec<Vec<String>>, ProcessError> {
    let separator = format!("separator={SEPARATOR}");
    let mut launch = Launch::new("tshark")
        .args(["-n", "-T", "fields", "-E", &separator, "-Y", filter])
        .arg("-r")
        .arg(pcap);
    for name in names {
        launch = launch.args(["-e", name]);
    }
    let text = launch.output(DEADLINE)?;
    Ok(text
        .lines()
        .map(|line| line.split(SEPARATOR).map(str::to_owned).collect())
        .collect())
}

/// All that the dissector finds malformed, or warns of as an error, in the frames that match a
/// filter (such as `bgp`). None is the answer to hope for.
///
/// # Errors
/// As for [`fields`].
pub fn complaints(pcap: &Path, filter: &str) -> Result<Vec<Complaint>, ProcessError> {
    // Warnings too: Wireshark flags wrong lengths and flags of BGP attributes as such.
    let filter = format!("({filter}) && (_ws.malformed || _ws.expert.severity >= \"Warning\")");
    let rows = fields(pcap, &filter, &["frame.number", "_ws.expert.message"])?;
    Ok(rows
        .into_iter()
        .map(|mut row| {
            let text = row.pop().unwrap_or_default();
            let frame = row
                .first()
                .and_then(|number| number.parse().ok())
                .unwrap_or(0);
            Complaint {
                frame,
                text: if text.is_empty() {
                    "malformed".to_owned()
                } else {
                    text
                },
            }
        })
        .collect())
}
