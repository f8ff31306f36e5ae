//! One who only reads the events of a speaker: what it has put together of them must be what is.

use std::collections::BTreeMap;

use bgp::core::Core;
use bgp::{Event, Path, PeerName, Prefix, SessionState};

/// The state of a speaker as its events tell it.
#[derive(Default)]
pub(crate) struct Follower {
    states: BTreeMap<PeerName, SessionState>,
    routes: BTreeMap<Prefix, Vec<Path>>,
}

impl Follower {
    pub(crate) fn follow(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::PeerState { peer, state, .. } => {
                    self.states.insert(peer, state);
                }
                Event::Route(route) if route.paths.is_empty() => {
                    self.routes.remove(&route.prefix);
                }
                Event::Route(route) => {
                    self.routes.insert(route.prefix, route.paths);
                }
                _ => {}
            }
        }
    }

    /// Compares with what is.
    pub(crate) fn check(&self, core: &Core) -> Result<(), String> {
        for (peer, told) in &self.states {
            let state = core.state(peer.as_str());
            if state != Some(*told) {
                return Err(format!("events say {peer} is {told}, it is {state:?}"));
            }
        }
        let routes = core.routes().into_iter();
        let routes: BTreeMap<_, _> = routes.map(|route| (route.prefix, route.paths)).collect();
        for prefix in routes.keys().chain(self.routes.keys()) {
            let (told, known) = (self.routes.get(prefix), routes.get(prefix));
            if told != known {
                return Err(format!("events tell {prefix} is {told:?}, it is {known:?}"));
            }
        }
        Ok(())
    }
}
