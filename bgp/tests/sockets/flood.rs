//! Connections from where nobody is configured.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::pair::{PORT, address, established, pair, status, until};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// They cost nothing but the accept: all are closed at once, none is kept, and the session of a
/// peer does not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_closed_at_once_and_a_session_goes_on() {
    const CONNECTIONS: u64 = 20_000;
    let [(first, _), (second, _)] = pair(16, [|_: &mut _| {}, |_: &mut _| {}]);
    established(&first).await;
    established(&second).await;
    let before = descriptors();
    let target = SocketAddr::new(address(16, 1), PORT);
    let flood = tokio::task::spawn_blocking(move || {
        for _ in 0..CONNECTIONS {
            // The reset may come before the answer to connect(2) is looked at.
            match TcpStream::connect_timeout(&target, Duration::from_secs(5)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    flood.await.unwrap();
    let refused = || first.refused_connections();
    until("refused", refused, |count| *count == CONNECTIONS).await;
    let open = || async { descriptors() };
    until("descriptors", open, |count| *count <= before + 4).await;
    assert_eq!(established(&first).await.sessions, 1);
    assert_eq!(status(&second).await.sessions, 1);
}

/// A stranger that stays is closed all the same.
#[tokio::test]
async fn a_stranger_that_waits_is_not_waited_for() {
    use tokio::io::AsyncReadExt;

    let [(first, _), (_second, _)] = pair(17, [|_: &mut _| {}, |_: &mut _| {}]);
    let target = SocketAddr::new(address(17, 1), PORT);
    let mut stream = tokio::net::TcpStream::connect(target).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_u8()).await;
    assert!(read.expect("still open").is_err());
    assert!(first.refused_connections().await >= 1);
}
