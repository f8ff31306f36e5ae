//! What a node's kernel holds, in a form that two readings compare in: for tests that nothing
//! changed, or that only ours did.

use netlink::RouteFilter;

use super::node::{Node, TopologyError};

/// Number of the table that the kernel keeps its own addresses in.
const LOCAL: u32 = 255;

/// What a node's kernel holds that forwards or steers packets, each as a line, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelState {
    /// Links: name, kind, MAC (not of bridges), MTU, whether up, alias.
    pub links: Vec<String>,
    /// Routes of all tables but those of the kernel's own.
    pub routes: Vec<String>,
    /// Policy rules.
    pub rules: Vec<String>,
    /// Permanent neighbours of all links.
    pub neighbours: Vec<String>,
    /// What the gateway's plane says that it has in the kernel, but for the places that it chose.
    pub plane: Vec<String>,
}

impl KernelState {
    /// Reads it, but for what only a gateway's plane can tell.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn read(node: &mut Node) -> Result<Self, TopologyError> {
        Self::read_with(node, &[])
    }

    /// Reads it, with what `ccn plane dump` says.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn read_with(node: &mut Node, plane: &[String]) -> Result<Self, TopologyError> {
        let name = node.name().to_owned();
        Self::dump(node.netlink(), plane)
            .map_err(|error| TopologyError::new(&name, "dump its kernel's state", error))
    }

    fn dump(socket: &mut netlink::Socket, plane: &[String]) -> Result<Self, netlink::Error> {
        let links = socket.links()?;
        // A device that was made anew has another index: tell it by its name.
        let named = |line: String| {
            links.iter().fold(line, |line, link| {
                line.replace(
                    &format!("ifindex: {},", link.index),
                    &format!("dev: {},", link.name),
                )
            })
        };
        let mut neighbours = Vec::new();
        for link in &links {
            let here = socket.neighbours(link.index)?;
            let permanent = here.iter().filter(|neighbour| neighbour.permanent);
            neighbours.extend(permanent.map(|neighbour| named(format!("{neighbour:?}"))));
        }
        let routes = socket.routes(&RouteFilter::default())?;
        let routes = routes.iter().filter(|route| route.table != LOCAL);
        let rules = socket.rules(None)?;
        Ok(Self {
            links: sorted(links.iter().map(|link| {
                let alias = link.alias.as_deref().unwrap_or_default();
                let kind = link.kind.as_deref().unwrap_or_default();
                // The kernel draws a bridge's MAC.
                let mac = link.mac.filter(|_| kind != "bridge");
                format!(
                    "{} {kind} {mac:?} mtu {} up {} {alias}",
                    link.name, link.mtu, link.up
                )
            })),
            routes: sorted(routes.map(|route| named(format!("{route:?}")))),
            rules: sorted(rules.iter().map(|rule| format!("{rule:?}"))),
            neighbours: sorted(neighbours),
            plane: sorted(plane.iter().map(|line| placeless(line, &links))),
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
            (&self.plane, &other.plane),
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

/// A line of a plane's with the names of links for their indices, and without numbers of slots and
/// counters: where something lies is the plane's own affair, and another time it lies elsewhere.
fn placeless(line: &str, links: &[netlink::Link]) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in line.split(' ') {
        let named = links.iter().find(|link| link.index.to_string() == word);
        match (words.last().copied(), named) {
            (Some("dev" | "link" | "index"), Some(link)) => words.push(&link.name),
            (Some("counter" | "window" | "from"), _) if word.parse::<u32>().is_ok() => {}
            _ => words.push(word),
        }
    }
    words.join(" ")
}

fn sorted(lines: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.into_iter().collect();
    lines.sort();
    lines
}
