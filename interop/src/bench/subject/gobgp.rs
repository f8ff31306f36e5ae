//! GoBGP 3: policies for the injector's and the witness's sessions; originates from an MRT dump, the
//! fastest way its command line has.
//!
//! `gobgp mrt inject` (3.10) ends without having sent its last routes, some 200 to 600 of them. So the
//! dump ends with padding: one route of it over and over.

use std::fmt::Write as _;

use super::{ADDRESS, ASN, Prepared, Running, SubjectError, identities, injector, witness};
use crate::bench::prefix_set::PrefixId;
use crate::bench::stream::MARKER;
use crate::process::Launch;

/// Routes of padding in a dump.
const PADDING: usize = 2_000;
/// Where its API listens.
const API: &str = "127.0.0.1:50051";

impl Running {
    pub(super) fn start_gobgp(&mut self) -> Result<(), SubjectError> {
        let file = self.site.write("gobgpd.toml", configuration())?;
        let process = Launch::new("gobgpd")
            .arg("-f")
            .arg(file)
            .args(["--api-hosts", API, "--pprof-disable", "--log-level", "warn"])
            .in_namespace(self.site.namespace.fd())
            .start(&self.log)?;
        self.processes.push(process);
        Ok(())
    }

    pub(super) fn originate_gobgp(
        &mut self,
        prefixes: &[PrefixId],
    ) -> Result<Prepared, SubjectError> {
        let file = self.site.write("routes.mrt", dump(prefixes))?;
        let command = Launch::new("gobgp")
            .args(["mrt", "inject", "global"])
            .arg(file)
            .in_namespace(self.site.namespace.fd());
        Ok(Prepared::Command(command))
    }

    pub(super) fn change_gobgp(&self, prefix: PrefixId, announced: bool) -> Prepared {
        let verb = if announced { "add" } else { "del" };
        let command = Launch::new("gobgp")
            .args(["global", "rib", verb])
            .arg(prefix.to_string())
            .in_namespace(self.site.namespace.fd());
        Prepared::Command(command)
    }
}

fn configuration() -> String {
    let mut text = format!(
        r#"
[global.config]
as = {ASN}
router-id = "{ADDRESS}"
local-address-list = ["{ADDRESS}"]
[global.apply-policy.config]
export-policy-list = ["export"]
default-export-policy = "accept-route"
default-import-policy = "accept-route"
[[defined-sets.prefix-sets]]
prefix-set-name = "marker"
[[defined-sets.prefix-sets.prefix-list]]
ip-prefix = "{MARKER}"
[[defined-sets.neighbor-sets]]
neighbor-set-name = "injector"
neighbor-info-list = ["{}/32"]
[[defined-sets.neighbor-sets]]
neighbor-set-name = "witness"
neighbor-info-list = ["{}/32"]
[[policy-definitions]]
name = "export"
[[policy-definitions.statements]]
name = "nothing-back"
[policy-definitions.statements.conditions.match-neighbor-set]
neighbor-set = "injector"
[policy-definitions.statements.actions]
route-disposition = "reject-route"
[[policy-definitions.statements]]
name = "marker-only"
[policy-definitions.statements.conditions.match-neighbor-set]
neighbor-set = "witness"
[policy-definitions.statements.conditions.match-prefix-set]
prefix-set = "marker"
match-set-options = "invert"
[policy-definitions.statements.actions]
route-disposition = "reject-route"
"#,
        injector().address,
        witness().address
    );
    for peer in identities() {
        let _ = write!(
            text,
            r#"
[[neighbors]]
[neighbors.config]
neighbor-address = "{}"
peer-as = {}
[neighbors.transport.config]
passive-mode = true
[neighbors.timers.config]
hold-time = 240
keepalive-interval = 80
idle-hold-time-after-reset = 1
[[neighbors.afi-safis]]
[neighbors.afi-safis.config]
afi-safi-name = "ipv4-unicast"
"#,
            peer.address, peer.asn
        );
    }
    text
}

/// A TABLE_DUMP_V2 of the prefixes (RFC 6396 section 4.3), each with an empty path.
fn dump(prefixes: &[PrefixId]) -> Vec<u8> {
    let mut octets = Vec::new();
    // PEER_INDEX_TABLE: collector, no view name, one peer with an IPv4 address and a 4-octet AS.
    let mut body = ADDRESS.octets().to_vec();
    body.extend_from_slice(&[0, 0, 0, 1, 2]);
    body.extend_from_slice(&ADDRESS.octets());
    body.extend_from_slice(&ADDRESS.octets());
    body.extend_from_slice(&ASN.to_be_bytes());
    record(&mut octets, 1, &body);
    // ORIGIN IGP, an empty AS_PATH, NEXT_HOP.
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4];
    attributes.extend_from_slice(&ADDRESS.octets());
    let padding = std::iter::repeat_n(prefixes.last(), PADDING).flatten();
    for (number, prefix) in prefixes.iter().chain(padding).enumerate() {
        let mut body = (number as u32).to_be_bytes().to_vec();
        prefix.write(&mut body);
        // One entry, of peer 0, originated at 0.
        body.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        body.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
        body.extend_from_slice(&attributes);
        record(&mut octets, 2, &body);
    }
    octets
}

/// One MRT record of type TABLE_DUMP_V2.
fn record(into: &mut Vec<u8>, subtype: u16, body: &[u8]) {
    into.extend_from_slice(&[0, 0, 0, 0, 0, 13]);
    into.extend_from_slice(&subtype.to_be_bytes());
    into.extend_from_slice(&(body.len() as u32).to_be_bytes());
    into.extend_from_slice(body);
}
