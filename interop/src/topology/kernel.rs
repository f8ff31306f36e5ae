//! What a node's kernel holds, in a form that two readings compare in: for tests that nothing
//! changed, or that only ours did.

use netlink::RouteFilter;

use super::node::{Node, TopologyError};

/// Number of the table that the kernel keeps its own addresses in.
const LOCAL: u32 = 255;

/// What a node's kernel holds that forwards or steers packets, each as a line, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelState {
    /// Links: name, kind, MAC, MTU, whether up, alias.
    pub links: Vec<String>,
    /// Routes of all tables but those of the kernel's own.
    pub routes: Vec<String>,
    /// Policy rules.
    pub rules: Vec<String>,
    /// Permanent neighbours of all links.
    pub neighbours: Vec<String>,
}

impl KernelState {
    /// Reads it.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn read(node: &mut Node) -> Result<Self, TopologyError> {
        let name = node.name().to_owned();
        Self::dump(node.netlink())
            .map_err(|error| TopologyError::new(&name, "dump its kernel's state", error))
    }

    fn dump(socket: &mut netlink::Socket) -> Result<Self, netlink::Error> {
        let links = socket.links()?;
        let mut neighbours = Vec::new();
        for link in &links {
            let here = socket.neighbours(link.index)?;
            let permanent = here.iter().filter(|n| n.permanent);
            neighbours.extend(permanent.map(|n| format!("{}: {n:?}", link.name)));
        }
        let links = links.iter().map(|link| {
            let alias = link.alias.as_deref().unwrap_or_default();
            let (kind, mac) = (link.kind.as_deref().unwrap_or_default(), link.mac);
            format!(
                "{} {kind} {mac:?} mtu {} up {} {alias}",
                link.name, link.mtu, link.up
            )
        });
        let routes = socket.routes(&RouteFilter::default())?;
        let routes = routes.iter().filter(|route| route.table != LOCAL);
        let rules = socket.rules(None)?;
        Ok(Self {
            links: sorted(links),
            routes: sorted(routes.map(|route| format!("{route:?}"))),
            rules: sorted(rules.iter().map(|rule| format!("{rule:?}"))),
            neighbours: sorted(neighbours),
        })
    }

    /// What differs, for messages: lines of the other that are not here with `+`, the reverse `-`.
    pub fn difference(&self, other: &Self) -> String {
        let mut text = Vec::new();
        for (here, there) in [
            (&self.links, &other.links),
            (&self.routes, &other.routes),
            (&self.rules, &other.rules),
            (&self.neighbours, &other.neighbours),
        ] {
            text.extend(
                here.iter()
                    .filter(|l| !there.contains(l))
                    .map(|l| format!("- {l}")),
            );
            text.extend(
                there
                    .iter()
                    .filter(|l| !here.contains(l))
                    .map(|l| format!("+ {l}")),
            );
        }
        text.join("\n")
    }
}

fn sorted(lines: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.into_iter().collect();
    lines.sort();
    lines
}
