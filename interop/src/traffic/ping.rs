//! The system's own `ping` (Debian package `iputils-ping`), because its words convince people.

use std::net::IpAddr;
use std::time::Duration;

use netlink::Namespace;

use crate::process::{Launch, ProcessError};

/// The pause between two echo requests: the shortest that ping allows to users other than root.
const INTERVAL: &str = "0.2";

/// How a ping went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// Echo requests sent.
    pub sent: u32,
    /// Echo replies received.
    pub received: u32,
    /// TTL of the first reply.
    pub ttl: Option<u8>,
    /// Everything that ping printed.
    pub said: String,
}

impl Ping {
    /// Every request was answered.
    pub fn is_perfect(&self) -> bool {
        self.sent > 0 && self.sent == self.received
    }

    /// ping's own summary: `3 packets transmitted, 3 received, ...`.
    pub fn summary(&self) -> &str {
        self.said
            .lines()
            .find(|line| line.contains("packets transmitted"))
            .unwrap_or(&self.said)
    }
}

/// Sends `count` echo requests to `to`; each has `wait` to be answered.
///
/// # Errors
/// ping is missing, or says what the lab cannot read. That nothing answers is no error.
pub fn ping(
    namespace: &Namespace,
    to: IpAddr,
    count: u32,
    wait: Duration,
) -> Result<Ping, ProcessError> {
    ping_from(namespace, None, to, count, wait)
}

/// [`ping`] with a source address of the namespace's.
///
/// # Errors
/// As for [`ping`].
pub fn ping_from(
    namespace: &Namespace,
    from: Option<IpAddr>,
    to: IpAddr,
    count: u32,
    wait: Duration,
) -> Result<Ping, ProcessError> {
    let mut launch = Launch::new("ping").args(["-n", "-i", INTERVAL, "-c", &count.to_string()]);
    launch = launch.args(["-W", &format!("{:.3}", wait.as_secs_f64())]);
    if let Some(from) = from {
        launch = launch.args(["-I", &from.to_string()]);
    }
    let deadline = wait + Duration::from_millis(200) * count + Duration::from_secs(5);
    let finished = launch
        .arg(to.to_string())
        .in_namespace(namespace.fd())
        .finish(deadline)?;
    match parse(&finished.stdout) {
        Some(ping) => Ok(ping),
        // No route at all: ping fails before it sends, and prints no summary.
        None if finished.stderr.contains("unreachable") => Ok(Ping {
            sent: 0,
            received: 0,
            ttl: None,
            said: finished.stderr,
        }),
        None => {
            let said = finished.stderr;
            Err(ProcessError::Failed {
                command: finished.command,
                status: finished.status,
                said,
            })
        }
    }
}

fn parse(text: &str) -> Option<Ping> {
    let summary = text
        .lines()
        .find(|line| line.contains(" packets transmitted"))?;
    let mut numbers = summary.split(", ");
    let sent = numbers.next()?.split(' ').next()?.parse().ok()?;
    let received = numbers.next()?.split(' ').next()?.parse().ok()?;
    let ttl = text
        .split_once(" ttl=")
        .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    Some(Ping {
        sent,
        received,
        ttl,
        said: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_read_as_ping_prints_them() {
        let cases = [
            (
                "64 bytes from 10.0.0.1: icmp_seq=1 ttl=63 time=0.05 ms\n\n\
                 3 packets transmitted, 3 received, 0% packet loss, time 401ms\n",
                Some((3, 3, Some(63))),
            ),
            (
                "From 10.0.0.9 icmp_seq=1 Destination Net Unreachable\n\
                 2 packets transmitted, 0 received, +2 errors, 100% packet loss, time 200ms\n",
                Some((2, 0, None)),
            ),
            ("nonsense", None),
        ];
        for (text, expected) in cases {
            let read = parse(text).map(|ping| (ping.sent, ping.received, ping.ttl));
            assert_eq!(read, expected, "{text}");
        }
    }
}
