//! OpenBGPD: its three processes, no kernel; originates by `bgpctl network bulk add`.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::{
    ADDRESS, ASN, Prepared, Running, SubjectError, identities, injector, listing, text, witness,
};
use crate::bench::prefix_set::PrefixId;
use crate::bench::stream::MARKER;
use crate::process::Launch;

/// Named in full: FRR has a `bgpd` too.
const BGPD: &str = "/usr/sbin/bgpd";
/// Where its processes meet; it does not make the directory itself.
const RUN: &str = "/run/openbgpd";

impl Running {
    pub(super) fn start_openbgpd(&mut self) -> Result<(), SubjectError> {
        let socket = self.path("bgpd.sock");
        let file = self
            .site
            .write("bgpd.conf", configuration(&text(&socket)))?;
        fs::create_dir_all(RUN)
            .and_then(|()| fs::set_permissions(&file, Permissions::from_mode(0o600)))
            .map_err(|source| SubjectError::File {
                path: file.clone(),
                source,
            })?;
        let process = Launch::new(BGPD)
            .arg("-d")
            .arg("-f")
            .arg(file)
            .in_namespace(self.site.namespace.fd())
            .start(&self.log)?;
        self.processes.push(process);
        Ok(())
    }

    pub(super) fn originate_openbgpd(
        &mut self,
        prefixes: &[PrefixId],
    ) -> Result<Prepared, SubjectError> {
        let file = self
            .site
            .write("routes.txt", listing(prefixes, ToString::to_string))?;
        let routes =
            File::open(&file).map_err(|source| SubjectError::File { path: file, source })?;
        let command = Launch::new("bgpctl")
            .arg("-s")
            .arg(self.path("bgpd.sock"))
            .args(["network", "bulk", "add"])
            .input(routes);
        Ok(Prepared::Command(command))
    }

    pub(super) fn change_openbgpd(&self, prefix: PrefixId, announced: bool) -> Prepared {
        let verb = if announced { "add" } else { "delete" };
        let command = Launch::new("bgpctl")
            .arg("-s")
            .arg(self.path("bgpd.sock"))
            .args(["network", verb])
            .arg(prefix.to_string());
        Prepared::Command(command)
    }
}

fn configuration(socket: &str) -> String {
    let mut text = format!(
        "AS {ASN}\nrouter-id {ADDRESS}\nsocket \"{socket}\"\nlisten on {ADDRESS}\nfib-update no\nholdtime 240\n"
    );
    for peer in identities() {
        let export = if peer.name == injector().name {
            "  export none\n"
        } else {
            ""
        };
        let _ = write!(
            text,
            "neighbor {} {{\n  remote-as {}\n  local-address {ADDRESS}\n  descr \"{}\"\n  passive\n  \
             announce IPv4 unicast\n  announce restart no\n{export}}}\n",
            peer.address, peer.asn, peer.name
        );
    }
    // The last that matches counts.
    let _ = write!(
        text,
        "deny from any\nallow from {}\nallow to any\ndeny to {witness}\nallow to {witness} prefix {MARKER}\n",
        injector().address,
        witness = witness().address,
    );
    text
}
