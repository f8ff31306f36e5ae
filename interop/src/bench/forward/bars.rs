//! The bars of the `ebpf` plane, each said beside the figure it is for. Whether one is cleared is for the
//! reader: nothing fails here.

use crate::bench::report::{Case, Report};

const PLANE: &str = "ebpf";
const FLOOR: &str = "plain-vxlan";

/// A figure of the plane, and what it is held against.
struct Bar {
    name: String,
    n: usize,
    unit: &'static str,
    against: Against,
    /// The ratio that it may not be above, or below for throughput.
    limit: f64,
}

/// What a figure is divided by.
enum Against {
    /// The floor in the same case.
    Floor,
    /// The plane in another case.
    Case(String, usize),
}

/// Adds a note to each figure that has a bar.
pub fn tell(report: &mut Report) {
    for bar in bars(report) {
        let case = |name, n| Case {
            name,
            n,
            unit: bar.unit,
        };
        let own = case(&bar.name, bar.n);
        let (base, what) = match &bar.against {
            Against::Floor => (report.median(own, FLOOR), FLOOR.to_owned()),
            Against::Case(name, n) => (
                report.median(case(name, *n), PLANE),
                format!("its {name} at {n}"),
            ),
        };
        if let (Some(figure), Some(base)) = (report.median(own, PLANE), base) {
            let word = if bar.unit == "ns" { "most" } else { "least" };
            let (ratio, limit) = (figure / base, bar.limit);
            let note = format!("x{ratio:.3} of {what}, bar: at {word} x{limit}");
            report.note(own, PLANE, &note);
        }
    }
}

fn bars(report: &Report) -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut add = |name: &str, n, unit, against, limit| {
        bars.push(Bar {
            name: name.to_owned(),
            n,
            unit,
            against,
            limit,
        });
    };
    for way in ["encapsulate", "decapsulate", "vpc-to-vpc"] {
        let sizes = report.sizes(way);
        if let (Some(&few), Some(&many)) = (sizes.first(), sizes.last())
            && few < many
        {
            add(way, many, "ns", Against::Case(way.to_owned(), few), 1.25);
        }
        let most = format!("{way}/ccsis=4096");
        for n in report.sizes(&most) {
            let one = Against::Case(format!("{way}/ccsis=1"), n);
            add(&most, n, "ns", one, 1.05);
            if way != "vpc-to-vpc" {
                add(&most, n, "ns", Against::Floor, 1.15);
            }
        }
        let most = format!("{way}/links=10000");
        for n in report.sizes(&most) {
            let one = Against::Case(format!("{way}/links=1"), n);
            add(&most, n, "ns", one, 1.05);
        }
    }
    for way in ["tcp/to-vpc", "tcp/from-vpc"] {
        add(way, 1, "Gbit/s", Against::Floor, 0.9);
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_said_where_both_figures_are_there() {
        let mut report = Report::new("forward", FLOOR);
        let mut add = |name, n, subject, value| {
            report.add(
                Case {
                    name,
                    n,
                    unit: "ns",
                },
                subject,
                value,
            );
        };
        add("encapsulate", 1, PLANE, 1000.0);
        add("encapsulate", 1_000_000, PLANE, 1200.0);
        add("encapsulate/ccsis=4096", 1_000_000, PLANE, 1150.0);
        add("encapsulate/ccsis=4096", 1_000_000, FLOOR, 1000.0);
        tell(&mut report);
        let text = serde_json::to_string(report.lines()).expect("JSON");
        for said in [
            "x1.200 of its encapsulate at 1, bar: at most x1.25",
            "x1.150 of plain-vxlan, bar: at most x1.15",
        ] {
            assert!(text.contains(said), "{said} is not in {text}");
        }
        assert!(!text.contains("links"), "{text}");
    }
}
