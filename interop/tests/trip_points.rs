//! docs/trip-points.md names a test for each complaint and each point of the RFCs: all of them are
//! there, and no row is without one.

use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn every_trip_point_has_tests_and_they_exist() {
    let root = Path::new(ROOT);
    let text = std::fs::read_to_string(root.join("docs/trip-points.md")).expect("the list");
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let rows: Vec<&str> = rows.filter(|line| !line.contains("| tests |")).collect();
    assert!(rows.len() > 40, "{} rows", rows.len());
    for row in rows {
        let named: Vec<(&str, &str)> = row
            .split('`')
            .filter_map(|piece| piece.split_once("::"))
            .collect();
        assert!(!named.is_empty(), "no test in {row:?}");
        for (file, name) in named {
            let source = std::fs::read_to_string(root.join(file));
            let source = source.unwrap_or_else(|error| panic!("{file} of {row:?}: {error}"));
            assert!(
                source.contains(&format!("fn {name}(")),
                "no test {name} in {file}"
            );
        }
    }
}
