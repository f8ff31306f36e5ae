//! The command line: everything but the daemons is a question to the admin socket.

pub mod args;
pub mod client;
mod cluster;
mod decode;
mod drain;
mod link;
pub mod output;
mod peer;
mod reach;
mod record;
pub mod record_args;
mod region;
mod show;
mod straight;
mod traffic;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use serde_json::{Value, json};
use thiserror::Error;

use crate::agent::{self, AgentError};
use crate::api::openapi;
use crate::apiserver::{self, ServerError};
use crate::config::{ApiConfig, Config, ConfigError, StoreConfig};
use crate::record::Kind;
use crate::region::RegionError;
use crate::store::StoreError;
use args::{
    AgentArgs, ApiserverArgs, Cli, Command, GatewaysCommand, LogFormat, MrtCommand, PlaneCommand,
    RatesArgs, StoreCommand,
};
use client::{Client, ClientError};
use output::{Output, text};

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CliError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The agent could not start, or had to stop.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The API server could not start, or had to stop.
    #[error(transparent)]
    Apiserver(#[from] ServerError),
    /// The agent said no, or nothing.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A region file is refused.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was asked for could not be done.
    #[error("{0}")]
    Failed(String),
    /// What was asked for is under way, and what is waited for has not come to be.
    #[error("{0}")]
    NotYet(String),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Standard output, or the runtime.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl CliError {
    /// 1 refused or failed, 2 usage or configuration, 3 the agent cannot be reached, 4 accepted
    /// but not done in time.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Client(error) => error.exit_code(),
            CliError::Config(_) | CliError::Usage(_) => 2,
            CliError::NotYet(_) => 4,
            CliError::Agent(_)
            | CliError::Apiserver(_)
            | CliError::Region(_)
            | CliError::Store(_)
            | CliError::Failed(_)
            | CliError::Io(_) => 1,
        }
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut runtime = match cli.command {
        Command::Agent(_) | Command::Apiserver(_) => tokio::runtime::Builder::new_multi_thread(),
        // One request needs no more threads, and is sooner on its way without.
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let result = runtime
        .enable_all()
        .build()
        .map_err(CliError::Io)
        .and_then(|runtime| runtime.block_on(run(cli)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output went away: nothing to tell it.
        Err(CliError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Says on standard error what went wrong; every record at fault on a line of its own.
fn complain(error: &CliError) {
    use io::Write;
    let mut err = io::stderr().lock();
    // Nowhere is left to complain to when this fails.
    let _ = writeln!(err, "ccn: {error}");
    if let CliError::Client(ClientError::Api(error)) = error {
        for fault in error.faults.iter().skip(1) {
            let _ = writeln!(err, "ccn: {}: {}: {}", fault.key, fault.field, fault.reason);
        }
    }
}

async fn run(cli: Cli) -> Result<(), CliError> {
    let out = Output::new(cli.json);
    match cli.command {
        Command::Agent(args) => return run_agent(args, out).await,
        Command::Apiserver(args) => return run_apiserver(args, out).await,
        _ => {}
    }
    let client = Client::new(&cli.socket, &cli.servers).map_err(CliError::Usage)?;
    match cli.command {
        Command::Agent(_) | Command::Apiserver(_) => Ok(()),
        Command::Link(args) => link::link(args, &client, out).await,
        Command::Unlink(args) => link::unlink(args, &client, out).await,
        Command::Disable(args) => link::set_enabled(false, args, &client, out).await,
        Command::Confirm(args) => link::confirm(args, &client, out).await,
        Command::Undo(args) => link::undo(args, &client, out).await,
        Command::Enable(args) => link::set_enabled(true, args, &client, out).await,
        Command::Status => show::status(&client, out).await,
        Command::Links(RatesArgs { rates: false, .. }) => show::links(&client, out).await,
        Command::Links(args) => traffic::link_rates(&client, out, args.interval).await,
        Command::Vpcs(RatesArgs { rates: false, .. }) => show::vpcs(&client, out).await,
        Command::Vpcs(args) => traffic::vpc_rates(&client, out, args.interval).await,
        Command::Trace(args) => traffic::trace(&client, out, &args).await,
        Command::Drops => traffic::drops(&client, out).await,
        Command::Vms { vpc } => show::vms(&client, out, vpc.as_ref()).await,
        Command::Vpc { verb } => record::run(Kind::Vpc, verb, &client, out).await,
        Command::Vm { verb } => record::run(Kind::Vm, verb, &client, out).await,
        Command::Slb { verb } => record::run(Kind::Slb, verb, &client, out).await,
        Command::Ccsi { verb } => record::run(Kind::Ccsi, verb, &client, out).await,
        Command::Classic { verb } => record::run(Kind::Classic, verb, &client, out).await,
        Command::Gateways { verb: None } => show::gateways(&client, out).await,
        Command::Gateways {
            verb: Some(GatewaysCommand::Forget { name }),
        } => cluster::forget(&name, &client, out).await,
        Command::Peers => show::peers(&client, out).await,
        Command::Peer(args) => peer::peer(args, &client, out).await,
        Command::Drain(args) => drain::drain(args, &client, out).await,
        Command::Undrain(args) => drain::undrain(args, &client, out).await,
        Command::Reload => peer::reload(&client, out).await,
        Command::Routes => show::routes(&client, out).await,
        Command::Quarantine => show::quarantine(&client, out).await,
        Command::Limits => show::limits(&client, out).await,
        Command::Explain(args) => show::explain(&client, out, &args).await,
        Command::Doctor(args) => show::doctor(&client, out, args.sample).await,
        Command::Import {
            path,
            store_of: None,
        } => region::import(&client, out, &path).await,
        Command::Import {
            path,
            store_of: Some(config),
        } => straight::import(&Config::read(&config)?.store, out, &path).await,
        Command::Export { store_of: None } => region::export(&client).await,
        Command::Export {
            store_of: Some(config),
        } => straight::export(&Config::read(&config)?.store).await,
        Command::Store {
            command: StoreCommand::Follow,
        } => {
            let answer: Value = client.post("/v1/store/follow", &json!({})).await?;
            out.json(&answer)?;
            Ok(out.line("following the store as it is now; see `ccn status`")?)
        }
        Command::Fixture(args) => region::fixture(&args),
        Command::Openapi { agent } => {
            let server = match agent {
                true => openapi::Server::Agent,
                false => openapi::Server::ApiServer,
            };
            let text = serde_json::to_string_pretty(&openapi::document(server));
            Ok(output::raw(&text.map_err(io::Error::from)?)?)
        }
        Command::Decode(args) => decode::decode(&args),
        Command::Plane {
            command: PlaneCommand::Show,
        } => show::plane(&client, out).await,
        Command::Plane {
            command: PlaneCommand::Dump { config: None },
        } => show::lines(&client.get::<Vec<String>>("/v1/plane/dump").await?, out),
        Command::Plane {
            command: PlaneCommand::Dump {
                config: Some(config),
            },
        } => show::lines(&agent::dump_plane(&Config::read(&config)?)?, out),
        Command::Plane {
            command: PlaneCommand::Counters,
        } => show::counters(&client, out).await,
        Command::Plane {
            command: PlaneCommand::Remove { config },
        } => {
            let config = Config::read(&config)?;
            agent::remove_plane(&config)?;
            let told = agent::tell_removed(&config).await;
            let error = told.err().map(|error| error.to_string());
            out.json(&json!({ "removed": true, "error": error }))?;
            out.line("removed: no forwarding of ours is left in the kernel")?;
            if let Some(error) = error {
                out.line(format!(
                    "the cluster was not told, and goes on naming this gateway: {error}; tell it by this command again, \
                     or by `ccn gateways forget`"
                ))?;
            }
            Ok(())
        }
        Command::Mrt {
            command: MrtCommand::Dump { file },
        } => mrt_dump(&file, &client, out).await,
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "ccn", &mut io::stdout());
            Ok(())
        }
    }
}

async fn run_agent(args: AgentArgs, out: Output) -> Result<(), CliError> {
    let config = Config::read(&args.config)?;
    if args.check {
        if let StoreConfig::Etcd(etcd) = &config.store
            && let Some((field, reason)) = etcd.unreadable()
        {
            let config = args.config.display();
            return Err(CliError::Usage(format!(
                "{config}: store.{field}: {reason}"
            )));
        }
        out.line(format!("{}: fine", args.config.display()))?;
        out.json(&json!({ "ok": true }))?;
        return Ok(());
    }
    log(args.log_format);
    Ok(agent::run(config, args.config).await?)
}

async fn run_apiserver(args: ApiserverArgs, out: Output) -> Result<(), CliError> {
    let config = ApiConfig::read(&args.config)?;
    if args.check {
        apiserver::check(&config)
            .map_err(|error| CliError::Usage(format!("{}: {error}", args.config.display())))?;
        out.line(format!("{}: fine", args.config.display()))?;
        out.json(&json!({ "ok": true }))?;
        return Ok(());
    }
    log(args.log_format);
    Ok(apiserver::run(config, args.config).await?)
}

/// Has what happens written to standard error.
fn log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CCN_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

async fn mrt_dump(file: &Path, client: &Client, out: Output) -> Result<(), CliError> {
    // The agent's own directory is another one.
    let file = std::path::absolute(file)?;
    let dumped: Value = client
        .post("/v1/mrt/dump", &json!({ "path": file }))
        .await?;
    out.json(&dumped)?;
    out.line(format!(
        "{}: {} routes to {} prefixes",
        file.display(),
        text(&dumped, "/routes"),
        text(&dumped, "/prefixes")
    ))?;
    Ok(())
}
