//! Waiting for what a task or a thread is to do: looked at again and again, never guessed.

use std::future::Future;
use std::time::{Duration, Instant};

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until the condition holds; says what was seen if it does not.
pub(crate) async fn until<T: std::fmt::Debug, F: Future<Output = T>>(
    what: &str,
    mut look: impl FnMut() -> F,
    holds: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = look().await;
        if holds(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}: still {seen:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
