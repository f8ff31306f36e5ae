//! What is refused: each with an error that names the field and the reason and a right exit code,
//! and nothing changed by it.

#![allow(
    clippy::print_stdout,
    reason = "a test says what it saw; the harness shows it when it fails"
)]

mod agents;
mod configuration;
mod orders;
mod preconditions;
mod records;
mod requests;

use std::error::Error;
use std::time::Duration;

use interop::enter::Lab;
use interop::process::Finished;
use interop::scene::Scene;
use interop::topology::KernelState;
use serde_json::Value;

type Failure = Box<dyn Error + Send + Sync>;

/// How long a refusal may take.
const SOON: Duration = Duration::from_secs(30);

/// A gateway with the small region, `web` linked with `office`, and no router.
fn linked(lab: &Lab) -> Result<Scene, Failure> {
    let scene = Scene::start_alone(lab, |_| {})?;
    scene.gateway.ccn(["link", "web", "--classic", "office"])?;
    scene.gateway.await_settled(SOON)?;
    Ok(scene)
}

/// All that a refused order must not change.
#[derive(Debug, PartialEq)]
struct World {
    generation: Value,
    acknowledged: Value,
    operations: Value,
    links: Value,
    routes: Value,
    quarantine: Value,
    records: String,
    kernel: KernelState,
}

impl World {
    fn of(scene: &mut Scene) -> Result<Self, Failure> {
        let gateway = &scene.gateway;
        // A record is answered for when it is stored, which may be before the kernel has what follows from it.
        let status = gateway.await_settled(SOON)?;
        Ok(Self {
            generation: status["generation"].clone(),
            acknowledged: status["acknowledged"].clone(),
            operations: status["plane"]["operations"].clone(),
            links: gateway.json(["links"])?,
            routes: gateway.json(["routes"])?,
            quarantine: gateway.json(["quarantine"])?,
            records: gateway.ccn(["export"])?,
            kernel: scene.kernel()?,
        })
    }
}

/// What a refusal must look like.
struct Refusal<'a> {
    /// The exit code.
    code: i32,
    /// What stderr must hold: the thing at fault, its field, the reason.
    names: &'a [&'a str],
}

impl Refusal<'_> {
    /// Fails unless the command was refused so, with nothing on stdout.
    #[track_caller]
    fn is(&self, what: &str, finished: &Finished) {
        let Finished {
            command,
            status,
            stdout,
            stderr,
        } = finished;
        println!("{what}: `{command}` ({status}): {}", stderr.trim());
        assert_eq!(
            status.code(),
            Some(self.code),
            "{what}: exit code; {stderr}"
        );
        for name in self.names {
            assert!(
                stderr.contains(name),
                "{what}: does not say {name:?}: {stderr}"
            );
        }
        assert_eq!(stdout, "", "{what}: stdout");
        assert!(!stderr.contains("panicked"), "{what}: {stderr}");
    }
}
