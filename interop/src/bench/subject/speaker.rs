//! Ours: the `speaker` example of the `bgp` crate, told what to announce on its standard input.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::{ADDRESS, ASN, PORT, Running, SubjectError, identities, injector, witness};
use crate::bench::stream::MARKER;
use crate::process::Launch;

impl Running {
    pub(super) fn start_speaker(&mut self, program: &Path) -> Result<(), SubjectError> {
        let file = self.site.write("speaker.toml", configuration())?;
        let (reader, writer) = io::pipe().map_err(|source| SubjectError::File {
            path: "a pipe".into(),
            source,
        })?;
        let process = Launch::new(program)
            .arg(file)
            .input(reader)
            .in_namespace(self.site.namespace.fd())
            .start(&self.log)?;
        self.processes.push(process);
        self.input = Some(writer);
        Ok(())
    }
}

fn configuration() -> String {
    let mut text = format!(
        "[speaker]\nasn = {ASN}\nrouter_id = \"{ADDRESS}\"\nlisten = [\"{ADDRESS}:{PORT}\"]\n"
    );
    for peer in identities() {
        let (import, export) = if peer.name == injector().name {
            ("\"all\"", "\"none\"".to_owned())
        } else if peer.name == witness().name {
            (
                "\"none\"",
                format!("{{ all = [{{ permit = \"{MARKER}\" }}] }}"),
            )
        } else {
            ("\"none\"", "\"all\"".to_owned())
        };
        let _ = write!(
            text,
            "[[speaker.peers]]\nname = \"{}\"\naddress = \"{}\"\nasn = {}\npassive = true\n\
             families = [\"ipv4\"]\nhold_time = 240\nimport = {import}\nexport = {export}\n",
            peer.name, peer.address, peer.asn
        );
    }
    text
}
