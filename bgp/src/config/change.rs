//! What has to happen when the configuration of a peer becomes another one.

use super::PeerConfig;

/// How a new configuration of a peer takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Nothing is different.
    None,
    /// The session goes on under the new terms.
    InPlace,
    /// The session goes on as it is, and the next one has the new terms. What is not yet a session
    /// is begun anew.
    NextSession,
    /// The session must end: it cannot be what is configured now.
    Reset,
}

impl PeerConfig {
    /// What becoming `new` takes. A field that is not named here needs a new session: the safe
    /// thing for those that are added.
    pub fn effect_of(&self, new: &PeerConfig) -> Effect {
        if self == new {
            return Effect::None;
        }
        let mut same = self.clone();
        same.connect_retry = new.connect_retry;
        same.idle_hold = new.idle_hold;
        same.idle_hold_max = new.idle_hold_max;
        same.send_hold_time = new.send_hold_time;
        same.bfd.clone_from(&new.bfd);
        // Where the key lies; whether it is another one is seen when it is read.
        if self.password_file.is_some() == new.password_file.is_some() {
            same.password_file.clone_from(&new.password_file);
        }
        same.import.clone_from(&new.import);
        same.export.clone_from(&new.export);
        same.remove_private_as = new.remove_private_as;
        same.next_hop_v4 = new.next_hop_v4;
        same.next_hop_v6 = new.next_hop_v6;
        if same == *new {
            return Effect::InPlace;
        }
        same.port = new.port;
        same.passive = new.passive;
        same.hold_time = new.hold_time;
        same.delay_open = new.delay_open;
        match same == *new {
            true => Effect::NextSession,
            false => Effect::Reset,
        }
    }

    /// Whether the routes that come in, or go out, are to be judged anew.
    pub fn policy_differs(&self, new: &PeerConfig) -> (bool, bool) {
        let out = self.export != new.export
            || self.remove_private_as != new.remove_private_as
            || self.next_hop_v4 != new.next_hop_v4
            || self.next_hop_v6 != new.next_hop_v6;
        (self.import != new.import, out)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::{ExportPolicy, ImportPolicy};
    use crate::wire::Family;

    #[test]
    fn a_session_is_reset_only_when_it_must_be() {
        type Change = fn(&mut PeerConfig);
        let rows: &[(&str, Change, Effect)] = &[
            ("nothing", |_| {}, Effect::None),
            ("import", |p| p.import = ImportPolicy::All, Effect::InPlace),
            (
                "export",
                |p| p.export = ExportPolicy::Local,
                Effect::InPlace,
            ),
            (
                "next_hop_v4",
                |p| p.next_hop_v4 = Some("10.0.0.1".parse().unwrap()),
                Effect::InPlace,
            ),
            (
                "connect_retry",
                |p| p.connect_retry = Duration::from_secs(1),
                Effect::InPlace,
            ),
            (
                "send_hold_time",
                |p| p.send_hold_time = Some(Duration::from_secs(60)),
                Effect::InPlace,
            ),
            (
                "password_file",
                |p| p.password_file = Some("/other".into()),
                Effect::InPlace,
            ),
            ("bfd", |p| p.bfd = Some(Default::default()), Effect::InPlace),
            ("no password", |p| p.password_file = None, Effect::Reset),
            ("hold_time", |p| p.hold_time = 90, Effect::NextSession),
            ("passive", |p| p.passive = true, Effect::NextSession),
            ("port", |p| p.port = 1179, Effect::NextSession),
            ("asn", |p| p.asn = 65003, Effect::Reset),
            ("local_asn", |p| p.local_asn = Some(65009), Effect::Reset),
            (
                "address",
                |p| p.address = "10.0.0.3".parse().unwrap(),
                Effect::Reset,
            ),
            (
                "families",
                |p| p.families = vec![Family::Ipv4Unicast],
                Effect::Reset,
            ),
            ("ttl_security", |p| p.ttl_security = Some(1), Effect::Reset),
            (
                "import and asn",
                |p| {
                    p.import = ImportPolicy::All;
                    p.asn = 65003;
                },
                Effect::Reset,
            ),
        ];
        let old = PeerConfig {
            password_file: Some("/key".into()),
            ..PeerConfig::new("a".parse().unwrap(), "10.0.0.2".parse().unwrap(), 65002)
        };
        for (what, change, expected) in rows {
            let mut new = old.clone();
            change(&mut new);
            assert_eq!(old.effect_of(&new), *expected, "{what}");
        }
    }
}
