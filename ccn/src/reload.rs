//! The configuration read again while the agent runs: what of it can change, changes without
//! touching the rest.
//!
//! Only the `[bgp]` section can. Everything else is said to need a restart, and nothing is changed
//! then, so that a reload is taken whole or not at all.

use std::path::PathBuf;

use bgp::{Reconfigured, Speaker};
use tracing::info;

use crate::api::error::{ApiError, ErrorCode};
use crate::config::Config;

/// Reads the configuration again and hands it to the speaker.
#[derive(Debug)]
pub struct Reloader {
    path: PathBuf,
    started_with: Config,
    speaker: Speaker,
    adopted: bool,
}

impl Reloader {
    /// For an agent that was started with this file; `adopted` as in
    /// [`BgpConfig::speaker`](crate::config::BgpConfig::speaker).
    #[must_use]
    pub fn new(path: PathBuf, started_with: Config, speaker: Speaker, adopted: bool) -> Self {
        Reloader {
            path,
            started_with,
            speaker,
            adopted,
        }
    }

    /// Takes what the file says now. Sessions whose terms stay the same do not notice.
    ///
    /// # Errors
    /// The file is refused, with field and reason; or it changes what only a restart can. Then
    /// nothing is changed.
    pub async fn reload(&self) -> Result<Reconfigured, ApiError> {
        let refused = |why: String| ApiError::new(ErrorCode::Refused, why);
        let path = self.path.clone();
        let reading = tokio::task::spawn_blocking(move || Config::read(&path));
        let config = reading
            .await
            .map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?
            .map_err(|error| refused(error.to_string()))?;
        if let Some(section) = self.needs_restart(&config) {
            return Err(refused(format!(
                "{}: {section} has changed, which needs a restart of the agent (no packet is lost \
                 by it); nothing was changed",
                self.path.display()
            )));
        }
        let mut speaker = config.bgp.speaker(self.adopted);
        if let Some(restart) = &mut speaker.graceful_restart {
            // The agent is not starting now.
            restart.restarting = false;
        }
        let summary = self
            .speaker
            .reconfigure(speaker)
            .await
            .map_err(|error| refused(format!("{}: bgp: {error}", self.path.display())))?;
        info!(?summary, "the configuration was read again");
        Ok(summary)
    }

    /// The first section that differs and cannot change under way.
    fn needs_restart(&self, config: &Config) -> Option<&'static str> {
        let before = &self.started_with;
        let rows = [
            ("name", before.name == config.name),
            ("group", before.group == config.group),
            ("admin_socket", before.admin_socket == config.admin_socket),
            ("[store]", before.store == config.store),
            ("[plane]", before.plane == config.plane),
            ("bgp.drain_ms", before.bgp.drain_ms == config.bgp.drain_ms),
            (
                "bgp.drain_on_stop",
                before.bgp.drain_on_stop == config.bgp.drain_on_stop,
            ),
            (
                "bgp.drain_settle_ms or bgp.drain_wait_ms",
                before.bgp.drain_terms() == config.bgp.drain_terms(),
            ),
        ];
        rows.into_iter()
            .find(|(_, same)| !same)
            .map(|(section, _)| section)
    }
}
