//! The connection to one monitoring station: opened, fed from a bounded queue, opened again.
//!
//! Knows octets only. What they say is made elsewhere; a station that does not read what is made
//! for it is cut off there, and starts over when it reads again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{info, warn};

/// Octets that may wait for a station.
const MOST_WAITING: usize = 32 << 20;
/// How long a connection may take to open, and to take the last octets when we stop.
const CONNECT: Duration = Duration::from_secs(10);
const FAREWELL: Duration = Duration::from_secs(1);
/// The pause before connecting again: doubled with each failure up to the longest, and short again
/// after a connection that has held for a while.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
const STEADY: Duration = Duration::from_secs(60);

/// A station has connected, or rather we to it.
#[derive(Debug)]
pub(super) struct Joined {
    /// Which one, by its place in the configuration.
    pub(super) station: usize,
    /// What it is told goes in here.
    pub(super) outlet: Outlet,
}

/// The end of the queue that is put into. Dropping it says that nothing more comes.
#[derive(Debug)]
pub(super) struct Outlet {
    octets: mpsc::UnboundedSender<Bytes>,
    waiting: Arc<AtomicUsize>,
    cut: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct Queue {
    octets: mpsc::UnboundedReceiver<Bytes>,
    waiting: Arc<AtomicUsize>,
    cut: oneshot::Receiver<()>,
}

fn queue() -> (Outlet, Queue) {
    let (sender, octets) = mpsc::unbounded_channel();
    let (cut, cut_off) = oneshot::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let outlet = Outlet {
        octets: sender,
        waiting: waiting.clone(),
        cut: Some(cut),
    };
    let queue = Queue {
        octets,
        waiting,
        cut: cut_off,
    };
    (outlet, queue)
}

impl Outlet {
    /// Hands over whole messages; false when the station is gone, or has so much to read already
    /// that it is cut off. The outlet is then to be dropped.
    pub(super) fn send(&mut self, octets: Bytes) -> bool {
        let length = octets.len();
        let waiting = self.waiting.fetch_add(length, Ordering::Relaxed);
        if waiting > 0 && waiting + length > MOST_WAITING {
            if let Some(cut) = self.cut.take() {
                // Fails when it is gone already.
                let _ = cut.send(());
            }
            return false;
        }
        self.octets.send(octets).is_ok()
    }

    /// Octets that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// Keeps the station connected until the other end of `joins` is gone.
pub(super) async fn run(station: usize, address: SocketAddr, joins: mpsc::Sender<Joined>) {
    let mut pause = FIRST_PAUSE;
    let mut complained = None;
    loop {
        let why = match connect(address).await {
            Ok(stream) => {
                info!(station = %address, "BMP station connected");
                complained = None;
                let (outlet, queue) = queue();
                let joined = Joined { station, outlet };
                if joins.send(joined).await.is_err() {
                    return;
                }
                let since = Instant::now();
                let ended = serve(stream, queue).await;
                if since.elapsed() >= STEADY {
                    pause = FIRST_PAUSE;
                }
                ended
            }
            Err(error) => Some(error.to_string()),
        };
        // One that stays away fails in the same way each time: that is said once.
        if let Some(error) = &why
            && complained != why
        {
            warn!(station = %address, error, "no BMP station");
            complained = why;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = joins.closed() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Writes what comes until there is nothing more to say (`None`), or until it cannot go on.
async fn serve(stream: TcpStream, queue: Queue) -> Option<String> {
    let Queue {
        mut octets,
        waiting,
        cut,
    } = queue;
    let (mut reading, mut writing) = stream.into_split();
    let write = async {
        while let Some(chunk) = octets.recv().await {
            if octets.is_closed() {
                // Nothing more comes, and we will not wait for long to say so.
                let last = tokio::time::timeout(FAREWELL, writing.write_all(&chunk)).await;
                if !matches!(last, Ok(Ok(()))) {
                    return None;
                }
            } else if let Err(error) = writing.write_all(&chunk).await {
                return Some(error.to_string());
            }
            waiting.fetch_sub(chunk.len(), Ordering::Relaxed);
        }
        // It may be gone already.
        let _ = writing.shutdown().await;
        None
    };
    let cut_off = async {
        if cut.await.is_err() {
            // Dropped with the outlet: then the queue ends as well.
            std::future::pending::<()>().await;
        }
    };
    let gone = async {
        let mut waste = [0; 512];
        loop {
            match reading.read(&mut waste).await {
                Ok(0) => return "it closed the connection".to_owned(),
                // Stations have nothing to say (RFC 7854 section 3.2).
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
        }
    };
    tokio::select! {
        biased;
        () = cut_off => Some(format!(
            "it does not read: {} MiB waited for it", MOST_WAITING >> 20
        )),
        ended = write => ended,
        why = gone => Some(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_station_that_does_not_read_is_cut_off_and_its_memory_is_free() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (joins, mut joined) = mpsc::channel(1);
        let task = tokio::spawn(run(7, address, joins));
        let (_deaf, _) = listener.accept().await.unwrap();
        let Joined {
            station,
            mut outlet,
        } = joined.recv().await.unwrap();
        assert_eq!(station, 7);
        let chunk = Bytes::from(vec![0; 1 << 20]);
        let mut sent = 0;
        while outlet.send(chunk.clone()) {
            sent += 1;
            assert!(sent < 1000, "never cut off");
            tokio::task::yield_now().await;
        }
        assert!(sent >= MOST_WAITING >> 20);
        drop(outlet);
        // It connects again.
        let (_deaf, _) = listener.accept().await.unwrap();
        drop(joined);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn what_was_said_before_the_end_arrives() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (joins, mut joined) = mpsc::channel(1);
        let task = tokio::spawn(run(0, address, joins));
        let (mut station, _) = listener.accept().await.unwrap();
        let mut outlet = joined.recv().await.unwrap().outlet;
        assert!(outlet.send(Bytes::from_static(b"hello ")));
        assert!(outlet.send(Bytes::from_static(b"world")));
        drop((outlet, joined));
        let mut seen = String::new();
        station.read_to_string(&mut seen).await.unwrap();
        assert_eq!(seen, "hello world");
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_station_that_goes_away_is_connected_to_again() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (joins, mut joined) = mpsc::channel(1);
        tokio::spawn(run(0, address, joins));
        let mut outlets = Vec::new();
        for _ in 0..2 {
            let (station, _) = listener.accept().await.unwrap();
            outlets.push(joined.recv().await.unwrap().outlet);
            drop(station);
        }
    }
}
