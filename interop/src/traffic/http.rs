//! A web page served in one namespace and fetched from another: enough of HTTP/1.0 to show that an
//! application works, no more.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use netlink::Namespace;

use super::{TrafficError, inside, name};

/// The most that either side reads, bytes.
const LONGEST: u64 = 1 << 20;
/// How often the server looks whether it should end.
const PATIENCE: Duration = Duration::from_millis(5);
/// How long the server waits for a client that says nothing.
const SERVER_DEADLINE: Duration = Duration::from_secs(5);

/// A web server with one page. Dropping it closes its port.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Opens the port and serves `page` to every request, whatever its path.
    ///
    /// # Errors
    /// The address is not one of the namespace's, or the port is taken.
    pub fn start(
        namespace: &Namespace,
        address: SocketAddr,
        page: &str,
    ) -> Result<Self, TrafficError> {
        let place = format!("{} {address}", name(namespace));
        let listener = inside(namespace, || TcpListener::bind(address))
            .map_err(TrafficError::at(&place, "open a TCP port"))?;
        let set_up = listener
            .set_nonblocking(true)
            .and_then(|()| listener.local_addr());
        let address = set_up.map_err(TrafficError::at(&place, "set up a TCP port"))?;
        let (requests, ended) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let thread = std::thread::Builder::new()
            .name(format!("http {address}"))
            .spawn({
                let (requests, ended) = (Arc::clone(&requests), Arc::clone(&ended));
                let page = page.to_owned();
                move || serve(&listener, &page, &requests, &ended)
            })
            .map_err(TrafficError::at(&place, "start a server"))?;
        Ok(Self {
            address,
            requests,
            ended,
            thread: Some(thread),
        })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests received so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, the port is closed all the same.
            let _ = thread.join();
        }
    }
}

/// An answer of a web server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Fetches `/` from a server, with `deadline` for each step.
///
/// # Errors
/// The connection fails or times out, or what answers is not HTTP.
pub fn fetch(
    namespace: &Namespace,
    from: SocketAddr,
    deadline: Duration,
) -> Result<Page, TrafficError> {
    fetch_path(namespace, from, "/", deadline)
}

/// The same of another path.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_path(
    namespace: &Namespace,
    from: SocketAddr,
    path: &str,
    deadline: Duration,
) -> Result<Page, TrafficError> {
    let failed = |action| TrafficError::at(format!("{} {from}", name(namespace)), action);
    let mut stream = inside(namespace, || TcpStream::connect_timeout(&from, deadline))
        .map_err(failed("connect"))?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {from}\r\n\r\n");
    stream
        .set_read_timeout(Some(deadline))
        .and_then(|()| stream.write_all(request.as_bytes()))
        .map_err(failed("send a request"))?;
    let mut answer = String::new();
    stream
        .take(LONGEST)
        .read_to_string(&mut answer)
        .map_err(failed("read the answer"))?;
    parse(&answer).ok_or_else(|| {
        let reason = format!(
            "it is not HTTP: {:?}",
            answer.chars().take(80).collect::<String>()
        );
        failed("read the answer")(io::Error::new(ErrorKind::InvalidData, reason))
    })
}

fn parse(answer: &str) -> Option<Page> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()?;
    Some(Page {
        status,
        body: body.to_owned(),
    })
}

fn serve(listener: &TcpListener, page: &str, requests: &AtomicU64, ended: &AtomicBool) {
    while !ended.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                // One client that fails is no reason not to serve the next.
                let _ = answer(stream, page, requests);
            }
            Err(_) => std::thread::sleep(PATIENCE),
        }
    }
}

fn answer(mut stream: TcpStream, page: &str, requests: &AtomicU64) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SERVER_DEADLINE))?;
    let mut lines = BufReader::new(Read::by_ref(&mut stream).take(LONGEST));
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 && !line.trim_end().is_empty() {
        line.clear();
    }
    // Before the answer, so that whoever has it finds it counted.
    requests.fetch_add(1, Ordering::Relaxed);
    let length = page.len();
    write!(
        stream,
        "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{page}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let page = Page {
            status: 404,
            body: "no\r\n\r\nno".to_owned(),
        };
        let cases = [
            (
                "HTTP/1.0 404 Not Found\r\nA: b\r\n\r\nno\r\n\r\nno",
                Some(page),
            ),
            ("HTTP/1.0 banana\r\n\r\n", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
