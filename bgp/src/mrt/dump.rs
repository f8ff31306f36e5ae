//! A table as it stands, written to a file piece by piece and put in its place when it is whole.
//!
//! Runs on a thread that may wait for the disk; the table is handed over in pieces by somebody who
//! may not.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::{Body, PeerIndexTable, PutError, Record, Rib, RibEntry, Timestamp, attributes_of};
use crate::rib::attributes::RouteAttributes;
use crate::tap::Accepted;

/// Why a table was not written. No file is there then that was not there before.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The file.
    #[error("cannot write {}: {source}", .path.display())]
    File {
        /// The file at fault.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// More peers than the format can number.
    #[error("cannot write the table: {0}")]
    Table(#[from] PutError),
    /// The speaker has stopped before the table was complete.
    #[error("the BGP speaker has stopped before its table was written")]
    Stopped,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Dumped {
    /// Prefixes.
    pub prefixes: u32,
    /// Routes to them.
    pub routes: u64,
    /// Octets in the file.
    pub octets: u64,
}

/// A part of the table.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Some prefixes.
    Routes(Vec<Accepted>),
    /// That was all.
    End,
}

/// Writes the whole table; waits for its pieces, and for the disk.
pub(crate) fn write(
    path: &Path,
    peers: PeerIndexTable,
    time: Timestamp,
    pieces: mpsc::Receiver<Piece>,
) -> Result<Dumped, DumpError> {
    let unfinished = beside(path);
    let written = File::create(&unfinished)
        .map_err(|source| file_error(&unfinished, source))
        .and_then(|file| write_to(file, &unfinished, peers, time, pieces))
        .and_then(|dumped| {
            fs::rename(&unfinished, path).map_err(|source| file_error(path, source))?;
            Ok(dumped)
        });
    if written.is_err() {
        // It may never have been made.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// Where the file is while it is unfinished: in the same directory, so that renaming is atomic.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    name.into()
}

fn file_error(path: &Path, source: io::Error) -> DumpError {
    DumpError::File {
        path: path.to_owned(),
        source,
    }
}

fn write_to(
    file: File,
    path: &Path,
    peers: PeerIndexTable,
    time: Timestamp,
    mut pieces: mpsc::Receiver<Piece>,
) -> Result<Dumped, DumpError> {
    let mut file = BufWriter::with_capacity(1 << 18, file);
    let failed = |source| file_error(path, source);
    let mut dumped = Dumped::default();
    let mut out = BytesMut::new();
    let body = Body::PeerIndexTable(peers);
    Record { time, body }.put(&mut out)?;
    let mut known = Known::default();
    loop {
        dumped.octets += out.len() as u64;
        file.write_all(&out).map_err(failed)?;
        out.clear();
        match pieces.blocking_recv() {
            Some(Piece::Routes(routes)) => {
                for accepted in routes {
                    for rib in ribs(&accepted, &mut known) {
                        let sequence = dumped.prefixes;
                        dumped.prefixes = dumped.prefixes.saturating_add(1);
                        dumped.routes += rib.entries.len() as u64;
                        let body = Body::Rib(Rib { sequence, ..rib });
                        Record { time, body }.put(&mut out)?;
                    }
                }
            }
            Some(Piece::End) => break,
            None => return Err(DumpError::Stopped),
        }
    }
    let file = file
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    Ok(dumped)
}

/// The records of one prefix: routes with and without a path identifier do not share one.
fn ribs(accepted: &Accepted, known: &mut Known) -> Vec<Rib> {
    let mut ribs = Vec::with_capacity(1);
    for add_path in [false, true] {
        let mut entries = Vec::new();
        for path in &accepted.paths {
            if (path.path_id != 0) != add_path {
                continue;
            }
            if let Some(attributes) = known.octets(accepted, &path.attributes) {
                entries.push(RibEntry {
                    peer: path.peer,
                    // Not kept: it would cost four octets a route.
                    originated: 0,
                    path_id: path.path_id,
                    attributes,
                });
            }
        }
        if !entries.is_empty() {
            ribs.push(Rib {
                sequence: 0,
                prefix: accepted.prefix,
                add_path,
                entries,
            });
        }
    }
    ribs
}

/// Attributes that were written before: most routes share theirs with others.
#[derive(Debug, Default)]
struct Known {
    octets: HashMap<(usize, bool), (Arc<RouteAttributes>, Option<Bytes>)>,
}

/// Sets of attributes kept at a time.
const MOST_KNOWN: usize = 1 << 16;

impl Known {
    /// `None` for attributes that do not fit: what came in a message does.
    fn octets(&mut self, route: &Accepted, attributes: &Arc<RouteAttributes>) -> Option<Bytes> {
        if self.octets.len() >= MOST_KNOWN {
            self.octets.clear();
        }
        // An allocation that is held here stands for one set of attributes only.
        let key = (
            Arc::as_ptr(attributes) as usize,
            route.prefix.addr().is_ipv6(),
        );
        let entry = self.octets.entry(key).or_insert_with(|| {
            let octets = attributes_of(&route.prefix, &attributes.to_wire(), attributes.next_hop);
            (attributes.clone(), octets.ok())
        });
        entry.1.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::mrt::{PeerEntry, Reader};
    use crate::tap::AcceptedPath;
    use crate::wire::NextHop;

    fn peers() -> PeerIndexTable {
        PeerIndexTable {
            collector: Ipv4Addr::new(10, 0, 0, 1),
            view: String::new(),
            peers: vec![PeerEntry {
                router_id: Ipv4Addr::new(10, 0, 0, 2),
                address: Ipv4Addr::new(10, 99, 0, 2).into(),
                asn: 65002,
            }],
        }
    }

    fn accepted(prefix: &str, path_ids: &[u32]) -> Accepted {
        let next_hop = NextHop::V4(Ipv4Addr::new(10, 99, 0, 2));
        let attributes = Arc::new(RouteAttributes::originated(next_hop));
        let path = |path_id: &u32| AcceptedPath {
            peer: 0,
            path_id: *path_id,
            attributes: attributes.clone(),
        };
        Accepted {
            prefix: prefix.parse().unwrap(),
            paths: path_ids.iter().map(path).collect(),
        }
    }

    fn written(path: &Path, pieces: Vec<Piece>) -> Result<Dumped, DumpError> {
        let (sender, receiver) = mpsc::channel(pieces.len().max(1));
        for piece in pieces {
            sender.try_send(piece).unwrap();
        }
        drop(sender);
        write(path, peers(), Timestamp::seconds(7), receiver)
    }

    fn names(directory: &Path) -> Vec<std::ffi::OsString> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_table_is_written_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.mrt");
        let first = vec![accepted("10.1.0.0/24", &[0]), accepted("10.2.0.0/24", &[])];
        let second = vec![accepted("10.3.0.0/24", &[0, 4, 5])];
        let dumped = written(
            &path,
            vec![Piece::Routes(first), Piece::Routes(second), Piece::End],
        )
        .unwrap();
        let file = fs::read(&path).unwrap();
        assert_eq!(
            dumped,
            Dumped {
                prefixes: 3,
                routes: 4,
                octets: file.len() as u64,
            }
        );
        let mut seen = Vec::new();
        for record in Reader::new(&file[..]) {
            seen.push(match record.unwrap().body {
                Body::PeerIndexTable(table) => format!("{} peers", table.peers.len()),
                Body::Rib(rib) => {
                    let ids = rib.entries.iter().map(|entry| entry.path_id);
                    let ids: Vec<u32> = ids.collect();
                    assert!(
                        rib.entries[0]
                            .decode(&rib.prefix)
                            .unwrap()
                            .findings
                            .is_empty()
                    );
                    format!("{} {} {} {ids:?}", rib.sequence, rib.prefix, rib.add_path)
                }
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(
            seen,
            [
                "1 peers",
                "0 10.1.0.0/24 false [0]",
                "1 10.3.0.0/24 false [0]",
                "2 10.3.0.0/24 true [4, 5]",
            ]
        );
        assert_eq!(names(directory.path()), ["t.mrt"]);
    }

    #[test]
    fn half_a_table_never_takes_the_place_of_an_earlier_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.mrt");
        fs::write(&path, "the earlier one").unwrap();
        let pieces = vec![Piece::Routes(vec![accepted("10.1.0.0/24", &[0])])];
        let error = written(&path, pieces).unwrap_err();
        assert!(matches!(error, DumpError::Stopped), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "the earlier one");
        assert_eq!(names(directory.path()), ["t.mrt"]);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("none/t.mrt");
        let error = written(&path, vec![Piece::End]).unwrap_err().to_string();
        assert!(error.contains("none/t.mrt"), "{error}");
        // A directory stands where the file should be.
        let error = written(directory.path(), vec![Piece::End]).unwrap_err();
        assert!(matches!(error, DumpError::File { .. }), "{error}");
    }
}
