//! The interop matrix: what we and each of five routers can do together, shown in the lab by what
//! both sides say. A cell is `ok`, or says what the router lacks.
//!
//! The table is printed, written to `target/interop-matrix.md`, and must be the one in the README.

mod meeting;
mod promises;
mod routes;
mod security;
mod sessions;
mod table;

use std::path::Path;
use std::time::Duration;

use interop::enter;
use interop::peer::Daemon;

use table::Row;

/// For the whole table.
const DEADLINE: Duration = Duration::from_secs(230);
/// The repository.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// The heading of the table in the README.
const HEADING: &str = "## Interop matrix\n";

const ROWS: [Row; 18] = [
    Row {
        name: "IPv4",
        short: "v4",
        show: routes::v4,
    },
    Row {
        name: "IPv6",
        short: "v6",
        show: routes::v6,
    },
    Row {
        name: "IPv4 with IPv6 next hops",
        short: "extnh",
        show: routes::v4_over_v6,
    },
    Row {
        name: "graceful restart: we keep its routes",
        short: "helper",
        show: sessions::helper,
    },
    Row {
        name: "graceful restart: it keeps our routes",
        short: "restarter",
        show: sessions::restarter,
    },
    Row {
        name: "TCP-MD5",
        short: "md5",
        show: security::md5,
    },
    Row {
        name: "GTSM",
        short: "gtsm",
        show: security::gtsm,
    },
    Row {
        name: "BFD",
        short: "bfd",
        show: sessions::bfd,
    },
    Row {
        name: "add-path",
        short: "addpath",
        show: routes::add_path,
    },
    Row {
        name: "large communities",
        short: "large",
        show: routes::large_communities,
    },
    Row {
        name: "route refresh: it answers ours",
        short: "ourrefresh",
        show: sessions::our_refresh,
    },
    Row {
        name: "route refresh: we answer its",
        short: "refresh",
        show: sessions::refresh,
    },
    Row {
        name: "extended messages",
        short: "extmsg",
        show: routes::extended_message,
    },
    Row {
        name: "limit of prefixes: ours refuses the surplus",
        short: "ourlimit",
        show: routes::our_limit,
    },
    Row {
        name: "limit of prefixes: its own ends the session",
        short: "itslimit",
        show: routes::its_limit,
    },
    Row {
        name: "text with a shutdown",
        short: "text",
        show: sessions::notification_text,
    },
    Row {
        name: "hold time of 3 s",
        short: "hold",
        show: sessions::hold_3_s,
    },
    Row {
        name: "9 s of silence",
        short: "silence",
        show: sessions::silence_9_s,
    },
];

#[test]
fn every_cell_is_ok_or_says_what_the_router_lacks() {
    enter::test_within(DEADLINE, |lab| {
        let outcomes = table::run(lab, &ROWS, &Daemon::ALL);
        let markdown = table::markdown(&ROWS, &Daemon::ALL, &outcomes);
        std::fs::write(Path::new(ROOT).join("target/interop-matrix.md"), &markdown)?;
        let failed: Vec<String> = outcomes
            .iter()
            .filter_map(|((row, column), outcome)| {
                let error = outcome.as_ref().err()?;
                let (row, daemon) = (&ROWS[*row].name, Daemon::ALL[*column]);
                Some(format!("{daemon}, {row}: {error}"))
            })
            .collect();
        assert!(failed.is_empty(), "{markdown}\n{}", failed.join("\n"));

        let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md"))?;
        let section = readme
            .split_once(HEADING)
            .ok_or("the README has no matrix")?
            .1;
        assert!(
            section.trim_start().contains(markdown.trim()),
            "the README's matrix is not what was shown: put this in its place\n{markdown}"
        );
        Ok(())
    });
}
