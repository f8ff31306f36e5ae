//! BIRD 2: no kernel protocol, one BGP protocol a session; originates static routes that are put into
//! an included file and read by `birdc configure`.

use std::fmt::Write as _;

use super::{
    ADDRESS, ASN, Prepared, Running, SubjectError, identities, injector, listing, text, witness,
};
use crate::bench::prefix_set::PrefixId;
use crate::bench::stream::MARKER;
use crate::process::Launch;

/// The file of its static routes.
const ROUTES: &str = "routes.conf";

impl Running {
    pub(super) fn start_bird(&mut self) -> Result<(), SubjectError> {
        self.site.write(ROUTES, "")?;
        let file = self
            .site
            .write("bird.conf", configuration(&text(&self.path(ROUTES))))?;
        let process = Launch::new("bird")
            .arg("-f")
            .arg("-c")
            .arg(file)
            .arg("-s")
            .arg(self.path("bird.ctl"))
            .arg("-P")
            .arg(self.path("bird.pid"))
            .in_namespace(self.site.namespace.fd())
            .start(&self.log)?;
        self.processes.push(process);
        Ok(())
    }

    pub(super) fn originate_bird(
        &mut self,
        prefixes: &[PrefixId],
    ) -> Result<Prepared, SubjectError> {
        self.originated.extend_from_slice(prefixes);
        self.reconfigure_bird()
    }

    pub(super) fn change_bird(
        &mut self,
        prefix: PrefixId,
        announced: bool,
    ) -> Result<Prepared, SubjectError> {
        self.originated.retain(|known| *known != prefix);
        if announced {
            self.originated.push(prefix);
        }
        self.reconfigure_bird()
    }

    fn reconfigure_bird(&self) -> Result<Prepared, SubjectError> {
        let lines = listing(&self.originated, |prefix| {
            format!("route {prefix} blackhole;")
        });
        self.site.write(ROUTES, lines)?;
        let command = Launch::new("birdc")
            .arg("-s")
            .arg(self.path("bird.ctl"))
            .arg("configure");
        Ok(Prepared::Command(command))
    }
}

fn configuration(routes: &str) -> String {
    let mut text = format!(
        "log stderr {{ warning, error, fatal, bug }};\nrouter id {ADDRESS};\nprotocol device {{}}\n\
         protocol static originated {{ ipv4;\ninclude \"{routes}\";\n}}\n\
         filter marker {{ if net = {MARKER} then accept; reject; }}\n"
    );
    for peer in identities() {
        let (import, export) = if peer.name == injector().name {
            ("all", "none")
        } else if peer.name == witness().name {
            ("none", "filter marker")
        } else {
            ("none", "all")
        };
        let _ = writeln!(
            text,
            "protocol bgp {} {{ local {ADDRESS} as {ASN}; neighbor {} as {}; passive on; hold time 240; \
             error wait time 1, 2; ipv4 {{ import {import}; export {export}; }}; }}",
            peer.name, peer.address, peer.asn
        );
    }
    text
}
