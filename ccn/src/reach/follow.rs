//! Reads the kernel whenever it says that something has changed, and tells the speaker what follows.
//!
//! The first change is acted upon at once; what comes while it is, and for a pause after, is acted
//! upon together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp::Speaker;
use netlink::{Link, Route, RouteFilter, Socket};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::Reach;

/// The least time from one look at the kernel to the next.
const PAUSE: Duration = Duration::from_millis(100);
/// A look that took long is followed by a pause of so many times that: tables may be large.
const REST: u32 = 10;
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// All links, and the routes of table `main`. Blocks for as long as the kernel takes.
///
/// # Errors
/// When the kernel does not answer.
pub fn look() -> Result<(Vec<Link>, Vec<Route>), netlink::Error> {
    let mut socket = Socket::open()?;
    let links = socket.links()?;
    let routes = socket.routes(&RouteFilter {
        table: Some(Route::MAIN),
        ..RouteFilter::default()
    })?;
    Ok((links, routes))
}

/// Tells the speaker what one look has shown.
pub async fn tell(reach: &mut Reach, seen: &(Vec<Link>, Vec<Route>), speaker: &Speaker) {
    let changes = reach.resolve(&seen.0, &seen.1);
    if changes.is_empty() {
        return;
    }
    info!(
        networks = changes.len(),
        "next hops: what the kernel reaches has changed"
    );
    if speaker.set_next_hops(changes).await.is_err() {
        warn!("the speaker has ended");
    }
}

/// Looks whenever it is woken, for ever.
pub async fn follow(mut reach: Reach, woken: Arc<Notify>, speaker: Speaker) {
    loop {
        woken.notified().await;
        let began = Instant::now();
        let pause = match tokio::task::spawn_blocking(look).await {
            Ok(Ok(seen)) => {
                tell(&mut reach, &seen, &speaker).await;
                PAUSE.max(began.elapsed() * REST)
            }
            Ok(Err(error)) => {
                warn!(%error, "the kernel's routes cannot be read");
                woken.notify_one();
                RETRY
            }
            // The agent is stopping.
            Err(_) => return,
        };
        tokio::time::sleep(pause).await;
    }
}
