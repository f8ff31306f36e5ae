//! `--keep`: the way into a lab that was left up, for people at another terminal.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::unistd::Uid;

use super::{Failure, Scene};
use crate::enter::Lab;

/// What the nodes are, in the order of a packet's way; hypervisors and instances follow.
const NODES: [(&str, &str); 5] = [
    ("gw", "gateway: ccn links; ccn link web --classic office"),
    ("bird", "IDC router: birdc show protocols"),
    ("gobgp", "IDC router: gobgp neighbor"),
    (
        "office-host",
        "classic host: ping 10.1.0.11, once web is linked",
    ),
    ("lab-host", "classic host, of a network that is not linked"),
];

/// Writes the script that leads into the lab, and says how it is used.
///
/// # Errors
/// The lab's process is not known on the host, or a file cannot be written.
pub(super) fn invite(lab: &Lab, scene: &Scene) -> Result<Vec<String>, Failure> {
    let target = lab.host_process()?;
    let script = lab.scratch().join("in");
    fs::write(&script, way_in(target)?)?;
    accustom(scene)?;
    let script = script.display();
    let who = match runs_as_root()? {
        true => "root",
        false => "the same user",
    };
    let mut lines = vec![format!(
        "\nThe lab stays up until Ctrl-C. A shell in any node, from another terminal, as {who}:"
    )];
    for (node, what) in NODES {
        lines.push(format!("  sh {script} {node:<12} # {what}"));
    }
    let mut others: Vec<String> = fs::read_dir("/run/netns")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| NODES.iter().all(|(node, _)| node != name))
        .collect();
    others.sort();
    lines.push(format!("and likewise: {}", others.join(" ")));
    Ok(lines)
}

/// A shell script: enters the lab's namespaces, then the network namespace of the node.
fn way_in(target: u32) -> Result<String, Failure> {
    let own = std::env::current_exe()?;
    let directory = own.parent().unwrap_or(Path::new("/"));
    let user = match runs_as_root()? {
        true => "",
        // Who made the user namespace is root in it.
        false => " --user --preserve-credentials",
    };
    let mut text = String::from("#!/bin/sh\n# usage: in NODE [COMMAND...]\n");
    let _ = writeln!(text, "PATH={}:/usr/sbin:/sbin:$PATH", quoted(directory));
    text.push_str("CCN_SOCKET=/run/lab/gw/agent.sock\nexport PATH CCN_SOCKET\n");
    text.push_str("node=${1:?which node}\nshift\n[ $# -gt 0 ] || set -- \"${SHELL:-sh}\"\n");
    let _ = writeln!(
        text,
        "exec nsenter --target {target}{user} --mount --pid --wdns=/ \
         nsenter --net=/run/netns/\"$node\" \"$@\""
    );
    Ok(text)
}

/// A path in single quotes for the shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

/// Puts sockets where command lines look for them unless told otherwise.
fn accustom(scene: &Scene) -> Result<(), Failure> {
    let links = [
        (
            Path::new("/run/lab/bird/bird.ctl"),
            Path::new("/run/bird/bird.ctl"),
        ),
        (
            &scene.gateway.config.admin_socket,
            Path::new(ccn::config::DEFAULT_SOCKET),
        ),
    ];
    for (socket, usual) in links {
        if let Some(directory) = usual.parent() {
            fs::create_dir_all(directory)?;
        }
        symlink(socket, usual)?;
    }
    Ok(())
}

/// Whether the lab was entered by root, rather than by a user who is root in it only.
fn runs_as_root() -> Result<bool, Failure> {
    // One line, "0 0 4294967295", in the host's own user namespace.
    let map = fs::read_to_string("/proc/self/uid_map")?;
    let mut numbers = map.split_whitespace();
    let whole = numbers.next() == Some("0") && numbers.next() == Some("0");
    Ok(whole && Uid::effective().is_root())
}
