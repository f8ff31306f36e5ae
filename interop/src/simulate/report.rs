//! What came of it, for people and as JSON lines of the benchmarks' shape.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use super::Check;
use super::budget;
use super::count::Counted;
use super::model::{self, Basis, Growth, Layout, Load, Scale, Units, Who};
use super::world::Setup;

/// See the room.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) scale: Scale,
    pub(super) seed: u64,
    pub(super) sample: Setup,
    pub(super) checks: Vec<Check>,
    pub(super) counted: Vec<(Layout, Counted)>,
    pub(super) units: Units,
}

fn who(load: &Load) -> &'static str {
    match load.who {
        Who::Etcd => "etcd",
        Who::ApiServer => "api-server",
        Who::Gateway => "gateway",
        Who::Region => "region",
    }
}

fn basis(load: &Load) -> &'static str {
    match load.basis {
        Basis::Counted => "counted",
        Basis::Measured => "measured",
        Basis::Elsewhere => "elsewhere",
    }
}

/// A figure of three digits, with the letter of its size.
fn figure(value: f64) -> String {
    let size = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let (value, letter) = size
        .into_iter()
        .find(|(size, _)| value.abs() >= *size * 0.9995)
        .map_or((value, ""), |(size, letter)| (value / size, letter));
    let digits = match value.abs() {
        large if large >= 99.95 => 0,
        medium if medium >= 9.995 => 1,
        0.0 => 0,
        small if small < 0.0995 => 4,
        _ => 2,
    };
    format!("{value:.digits$}{letter}")
}

fn large(value: f64) -> String {
    let digits = format!("{:.0}", value.round());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Outcome {
    /// Everything, as a page.
    ///
    /// # Errors
    /// Nobody takes it.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        self.print_sample(out)?;
        self.print_units(out)?;
        self.print_loads(out)?;
        self.print_limits(out)
    }

    fn print_sample(&self, out: &mut impl Write) -> io::Result<()> {
        let Scale {
            gateways,
            groups,
            vms,
            vpcs,
            links,
            changes,
            orders,
        } = self.scale;
        writeln!(
            out,
            "{} gateways in {} groups, {} VMs in {} VPCs, {} links, {} changes/s of VMs and {} orders/s, {} API servers",
            large(gateways),
            large(groups),
            large(vms),
            large(vpcs),
            large(links),
            figure(changes),
            figure(orders),
            budget::API_SERVERS,
        )?;
        let sample = &self.sample;
        writeln!(
            out,
            "simulated of it: {} groups of {} gateways with {} VMs in {} VPCs and {} links, seed {}",
            sample.groups,
            sample.gateways,
            large(sample.region.vms as f64),
            large(f64::from(sample.region.vpcs)),
            large((sample.links * sample.groups) as f64),
            self.seed,
        )?;
        for check in &self.checks {
            let both =
                |(counted, said): (f64, f64)| format!("{} ({})", figure(counted), figure(said));
            writeln!(
                out,
                "  {}: counted a second (the formulas say): writes {}, watch events {}, octets of that {}",
                check.layout.name(),
                both(check.writes),
                both(check.events),
                both(check.octets),
            )?;
        }
        for (layout, counted) in &self.counted {
            writeln!(
                out,
                "  {}: {} gateways started in {:.1} s, {} events taken over by the real code in {} s, {} batches; every law kept",
                layout.name(),
                counted.gateways,
                counted.started.as_secs_f64(),
                large(counted.events as f64),
                counted.seconds,
                large(counted.batches as f64),
            )?;
        }
        Ok(())
    }

    fn print_units(&self, out: &mut impl Write) -> io::Result<()> {
        let units = &self.units;
        writeln!(
            out,
            "counted: octets in etcd: a VM {:.0}, a VPC {:.0}, a link {:.0}, a gateway {:.0}; told of a change {:.0}, \
             of an order {:.0}, of a gateway's record {:.0}; read of a record {:.0}; reports an order and gateway {:.1}",
            units.vm_octets,
            units.vpc_octets,
            units.link_octets,
            units.gateway_octets,
            units.change.octets,
            units.order.octets,
            units.registration.octets,
            units.page_octets,
            units.reports,
        )?;
        writeln!(
            out,
            "measured: octets of memory: a VM {:.0}, a VPC {:.0}, a link {:.0} (a served one {:.0}); \
             µs of CPU: a change {:.1}, an order {:.1}, a gateway's record {:.1}, a batch {:.1}, a record loaded {:.2}, listed {:.2}",
            units.memory.vm,
            units.memory.vpc,
            units.memory.link,
            units.memory.own_link,
            units.vm_ns / 1e3,
            units.link_ns / 1e3,
            units.registration_ns / 1e3,
            units.batch_ns / 1e3,
            units.load_ns / 1e3,
            units.list_ns / 1e3,
        )
    }

    fn print_loads(&self, out: &mut impl Write) -> io::Result<()> {
        let columns: Vec<Vec<Load>> = Layout::ALL
            .iter()
            .map(|layout| model::loads(&self.units, self.scale, *layout))
            .collect();
        writeln!(
            out,
            "\n{:<28} {:<9} {:>9} {:>9} {:>9} {:>9}  {:<9}  the budget's source",
            "one of each carries", "", "flat", "prefixes", "stores", "budget", "from"
        )?;
        for (index, load) in columns[0].iter().enumerate() {
            let name = format!("{} {}", who(load), load.what);
            write!(out, "{name:<28} {:<9}", load.unit)?;
            for column in &columns {
                let is_over = load
                    .budget
                    .is_some_and(|(budget, _)| column[index].value > budget);
                let mark = if is_over { "!" } else { " " };
                write!(out, " {:>8}{mark}", figure(column[index].value))?;
            }
            let (most, source) = match load.budget {
                Some((most, source)) => (figure(most), source),
                None => (String::new(), ""),
            };
            writeln!(out, " {most:>8}   {:<9}  {source}", basis(load))?;
        }
        writeln!(
            out,
            "\nflat: one store, everybody watches all of it (today). prefixes: one store, a group's gateways watch what \
             belongs to its CCSIs.\nstores: an etcd for each group. `!`: over the budget. counted, measured: of one, in \
             the sample; elsewhere: by hand or by a bench.\nAll are extrapolated: one of each, multiplied."
        )
    }

    fn print_limits(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out)?;
        for (layout, growth) in growths() {
            let limits = model::limits(&self.units, self.scale, layout, growth);
            let how = match growth {
                Growth::Groups => "more groups of this size",
                Growth::Within => "more in each group",
            };
            let Some((factor, first)) = limits.first() else {
                writeln!(out, "{} ({how}): nothing breaks", layout.name())?;
                continue;
            };
            writeln!(
                out,
                "{} ({how}) breaks first: {} at {} gateways and {} VMs ({} of what was asked for)",
                layout.name(),
                name(first),
                large(self.scale.gateways * factor),
                large(self.scale.vms * factor),
                figure(*factor),
            )?;
            let rest: Vec<String> = limits
                .iter()
                .skip(1)
                .filter(|(factor, _)| *factor < 10.0)
                .map(|(factor, load)| format!("{} at {}", name(load), figure(*factor)))
                .collect();
            if !rest.is_empty() {
                writeln!(out, "  then {}", rest.join(", "))?;
            }
        }
        Ok(())
    }

    /// Appends a line for each load, limit and unit.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn append(&self, path: &Path) -> io::Result<()> {
        let mut text = Vec::new();
        let n = self.scale.vms as u64;
        let mut add = |case: &str, subject: &str, unit: &str, value: f64, note: &str| {
            let line = json!({
                "bench": "simulate", "case": case, "n": n, "subject": subject, "unit": unit,
                "runs": [value], "median": value, "note": note,
            });
            text.extend(line.to_string().into_bytes());
            text.push(b'\n');
        };
        for layout in Layout::ALL {
            for load in model::loads(&self.units, self.scale, layout) {
                let note = basis(&load);
                add(&name(&load), layout.name(), load.unit, load.value, note);
                if let (Layout::Flat, Some((budget, source))) = (layout, load.budget) {
                    add(&name(&load), "budget", load.unit, budget, source);
                }
            }
        }
        for (layout, growth) in growths() {
            let case = match growth {
                Growth::Groups => "limit/groups",
                Growth::Within => "limit/within",
            };
            let limits = model::limits(&self.units, self.scale, layout, growth);
            if let Some((factor, first)) = limits.first() {
                let gateways = self.scale.gateways * factor;
                add(case, layout.name(), "gateways", gateways, &name(first));
            }
        }
        for check in &self.checks {
            let layout = check.layout.name();
            add("formulas-off-by", layout, "", check.error(), "");
        }
        let details = json!({
            "bench": "simulate", "case": "units", "n": n, "subject": "ours", "unit": "", "runs": [], "median": null,
            "note": "", "scale": self.scale, "units": self.units, "counted": self.counted,
        });
        text.extend(details.to_string().into_bytes());
        text.push(b'\n');
        File::options()
            .create(true)
            .append(true)
            .open(path)?
            .write_all(&text)
    }
}

fn growths() -> [(Layout, Growth); 4] {
    [
        (Layout::Flat, Growth::Groups),
        (Layout::Prefixes, Growth::Groups),
        (Layout::Stores, Growth::Groups),
        (Layout::Stores, Growth::Within),
    ]
}

fn name(load: &Load) -> String {
    format!("{}/{}", who(load), load.what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_letter() {
        for (value, text) in [
            (0.0, "0"),
            (0.05, "0.0500"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (999.0, "999"),
            (1_000.0, "1.00k"),
            (34_567_890.0, "34.6M"),
            (2.5e10, "25.0G"),
        ] {
            assert_eq!(figure(value), text, "{value}");
        }
        assert_eq!(large(1_234_567.0), "1,234,567");
        assert_eq!(large(12.0), "12");
    }
}
