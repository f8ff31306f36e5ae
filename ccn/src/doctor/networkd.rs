//! Whether systemd-networkd would take routes and rules of others away, which it does by default.
//!
//! Reads its configuration as systemd does; changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where systemd looks, the first first.
const FOLDERS: [&str; 4] = [
    "etc/systemd",
    "run/systemd",
    "usr/local/lib/systemd",
    "usr/lib/systemd",
];
/// There while it runs.
const STATE: &str = "run/systemd/netif/state";

/// What is known of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Networkd {
    /// It runs on this machine.
    pub runs: bool,
    /// It deletes routes that others made (`ManageForeignRoutes`).
    pub takes_routes: bool,
    /// It deletes policy rules that others made (`ManageForeignRoutingPolicyRules`).
    pub takes_rules: bool,
}

/// Looks below this root, `/` but for tests.
#[must_use]
pub fn look(root: &Path) -> Networkd {
    let read = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default();
    let main = FOLDERS.map(|folder| root.join(folder).join("networkd.conf"));
    let main = main.iter().find(|path| path.exists());
    let mut texts: Vec<String> = main.into_iter().map(read).collect();
    // Of one name the first folder's counts; all names in one order.
    let mut parts = BTreeMap::new();
    for folder in FOLDERS {
        let folder = root.join(folder).join("networkd.conf.d");
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        for path in files.map(|file| file.path()) {
            if path.extension().is_some_and(|ext| ext == "conf") {
                parts
                    .entry(path.file_name().map(ToOwned::to_owned))
                    .or_insert(path);
            }
        }
    }
    texts.extend(parts.values().map(read));
    Networkd {
        runs: root.join(STATE).exists(),
        ..settings(texts.iter().map(String::as_str))
    }
}

/// What files say together, the last word counting.
fn settings<'a>(texts: impl Iterator<Item = &'a str>) -> Networkd {
    let mut networkd = Networkd {
        runs: false,
        takes_routes: true,
        takes_rules: true,
    };
    for text in texts {
        let mut section = "";
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                section = line;
                continue;
            }
            let Some((name, value)) = line.split_once('=').filter(|_| section == "[Network]")
            else {
                continue;
            };
            let yes = match value.trim().to_ascii_lowercase().as_str() {
                "yes" | "true" | "on" | "1" | "y" | "t" => true,
                "no" | "false" | "off" | "0" | "n" | "f" => false,
                _ => continue,
            };
            match name.trim() {
                "ManageForeignRoutes" => networkd.takes_routes = yes,
                "ManageForeignRoutingPolicyRules" => networkd.takes_rules = yes,
                _ => {}
            }
        }
    }
    networkd
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts() {
        let off = "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules = no\n";
        for (texts, takes) in [
            (&[][..], (true, true)),
            (&[off], (false, false)),
            (&["[Network]\n#ManageForeignRoutes=no"], (true, true)),
            (&["[DHCPv4]\nManageForeignRoutes=no"], (true, true)),
            (&[off, "[Network]\nManageForeignRoutes=yes"], (true, false)),
            (
                &[off, "[Network]\nManageForeignRoutes=maybe"],
                (false, false),
            ),
        ] {
            let found = settings(texts.iter().copied());
            assert_eq!((found.takes_routes, found.takes_rules), takes, "{texts:?}");
        }
    }

    #[test]
    fn files_count_in_the_order_of_systemd() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        assert!(!look(root.path()).runs);
        write(STATE, "");
        write("etc/systemd/networkd.conf", "[Network]\n");
        write(
            "usr/lib/systemd/networkd.conf",
            "[Network]\nManageForeignRoutes=no\n",
        );
        let found = look(root.path());
        assert!(found.runs && found.takes_routes, "only the first is read");
        let part = "[Network]\nManageForeignRoutes=no\n";
        write("usr/lib/systemd/networkd.conf.d/50-ccn.conf", part);
        assert!(!look(root.path()).takes_routes);
        write("etc/systemd/networkd.conf.d/50-ccn.conf", "");
        assert!(look(root.path()).takes_routes, "it is masked");
    }
}
