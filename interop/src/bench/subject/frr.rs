//! FRR's bgpd alone, without zebra: nothing goes to a kernel, as with the other subjects. Originates
//! `network` statements from a file that vtysh reads.

use std::fmt::Write as _;

use super::{
    ADDRESS, ASN, Prepared, Running, SubjectError, identities, injector, listing, witness,
};
use crate::bench::prefix_set::PrefixId;
use crate::bench::stream::MARKER;
use crate::peer::frr::join_vty_group;
use crate::process::Launch;

/// Named in full: OpenBGPD has a `bgpd` too.
const BGPD: &str = "/usr/lib/frr/bgpd";

impl Running {
    pub(super) fn start_frr(&mut self) -> Result<(), SubjectError> {
        let group = self.site.write("group", "")?;
        join_vty_group(&group).map_err(|source| SubjectError::File {
            path: "/etc/group".into(),
            source,
        })?;
        let file = self.site.write("bgpd.conf", configuration())?;
        let process = Launch::new(BGPD)
            .args(["--no_zebra", "--no_kernel", "-u", "root", "-g", "root"])
            .arg("--vty_socket")
            .arg(&self.site.directory)
            .args([
                "--log",
                "stdout",
                "--log-level",
                "warnings",
                "-A",
                "127.0.0.1",
            ])
            .arg("-f")
            .arg(file)
            .arg("-i")
            .arg(self.path("bgpd.pid"))
            .in_namespace(self.site.namespace.fd())
            .start(&self.log)?;
        self.processes.push(process);
        Ok(())
    }

    pub(super) fn originate_frr(
        &mut self,
        prefixes: &[PrefixId],
    ) -> Result<Prepared, SubjectError> {
        let lines = listing(prefixes, |prefix| format!("network {prefix}"));
        let head = format!("router bgp {ASN}\naddress-family ipv4 unicast\n");
        let file = self.site.write("routes.conf", format!("{head}{lines}"))?;
        let command = Launch::new("vtysh")
            .arg("--vty_socket")
            .arg(&self.site.directory)
            .args(["-d", "bgpd", "-f"])
            .arg(file);
        Ok(Prepared::Command(command))
    }

    pub(super) fn change_frr(&self, prefix: PrefixId, announced: bool) -> Prepared {
        let no = if announced { "" } else { "no " };
        let mut command = Launch::new("vtysh")
            .arg("--vty_socket")
            .arg(&self.site.directory)
            .args(["-d", "bgpd"]);
        for words in [
            "configure terminal".to_owned(),
            format!("router bgp {ASN}"),
            "address-family ipv4 unicast".to_owned(),
            format!("{no}network {prefix}"),
        ] {
            command = command.arg("-c").arg(words);
        }
        Prepared::Command(command)
    }
}

fn configuration() -> String {
    let mut text = format!(
        "hostname bench\nip prefix-list marker seq 5 permit {MARKER}\nip prefix-list none seq 5 deny any\n\
         router bgp {ASN}\n bgp router-id {ADDRESS}\n no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n no bgp network import-check\n"
    );
    let peers = identities();
    for peer in &peers {
        let address = peer.address;
        let _ = writeln!(
            text,
            " neighbor {address} remote-as {}\n neighbor {address} passive\n \
             neighbor {address} timers 80 240\n neighbor {address} timers connect 1\n \
             neighbor {address} advertisement-interval 0",
            peer.asn
        );
    }
    text.push_str(" address-family ipv4 unicast\n");
    for peer in &peers {
        let _ = writeln!(text, "  neighbor {} activate", peer.address);
        let (import, export) = if peer.name == injector().name {
            (None, Some("none"))
        } else if peer.name == witness().name {
            (Some("none"), Some("marker"))
        } else {
            (Some("none"), None)
        };
        for (list, way) in [(import, "in"), (export, "out")] {
            if let Some(list) = list {
                let _ = writeln!(text, "  neighbor {} prefix-list {list} {way}", peer.address);
            }
        }
    }
    text.push_str(" exit-address-family\n");
    text
}
