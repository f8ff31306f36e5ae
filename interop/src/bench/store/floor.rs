//! The floor: a client of etcd that does nothing with what it reads, hears or writes.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use ccn::config::{EtcdConfig, StoreConfig};
use ccn::store::etcd::connect_options;
use ccn::store::etcd::pages::{MOST_BYTES, PageSize, end_of};
use etcd_client::{Client, GetOptions, Txn, TxnOp, WatchOptions};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::Failure;
use crate::etcd::Etcd;

/// Records of a transaction: etcd takes 128 operations.
const TRANSACTION: usize = 128;
/// Transactions under way at once.
const AT_ONCE: usize = 8;
/// How long a watcher may take to hear what was put.
const HEARD: Duration = Duration::from_secs(60);

/// A key and its value.
pub type Record = (String, String);

/// The client. What it does runs on the thread that asks for it, in the namespace where it was made.
pub struct Minimal {
    runtime: Runtime,
    client: Client,
    config: EtcdConfig,
}

impl Minimal {
    /// Connects. To be called in the namespace of the members, or one from where they are reached.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn connect(etcd: &Etcd) -> Result<Minimal, Failure> {
        let section = etcd.section(Path::new("/unused"));
        let StoreConfig::Etcd(config) = section.try_into()? else {
            return Err("the section of an etcd names another store".into());
        };
        Minimal::with(config)
    }

    fn with(config: EtcdConfig) -> Result<Minimal, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let endpoints: Vec<String> = config.endpoints.iter().map(|e| e.as_str().into()).collect();
        let client = Client::connect(endpoints, Some(connect_options(&config)?));
        let client = runtime.block_on(client)?;
        Ok(Minimal {
            runtime,
            client,
            config,
        })
    }

    /// Writes records as fast as they are taken, in transactions.
    ///
    /// # Errors
    /// etcd refuses one.
    pub fn fill(&self, records: &[Record]) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let mut writing = JoinSet::new();
            for part in records.chunks(TRANSACTION) {
                while writing.len() >= AT_ONCE {
                    next(&mut writing).await?;
                }
                writing.spawn(write(self.client.clone(), part.to_vec()));
            }
            while !writing.is_empty() {
                next(&mut writing).await?;
            }
            Ok(())
        })
    }

    /// Writes records at a pace, in transactions that begin by the clock; how long the last was behind it.
    ///
    /// # Errors
    /// etcd refuses one.
    pub fn pace(&self, records: &[Record], rate: u32) -> Result<Duration, Failure> {
        let each = Duration::from_secs(1) / rate;
        self.runtime.block_on(async {
            let began = tokio::time::Instant::now();
            let (mut writing, mut due, mut late) = (JoinSet::new(), began, Duration::ZERO);
            for part in records.chunks(TRANSACTION) {
                tokio::time::sleep_until(due).await;
                while writing.len() >= AT_ONCE {
                    next(&mut writing).await?;
                }
                late = due.elapsed();
                writing.spawn(write(self.client.clone(), part.to_vec()));
                due += each * part.len() as u32;
            }
            while !writing.is_empty() {
                next(&mut writing).await?;
            }
            Ok(late)
        })
    }

    /// Reads all keys that begin so, page by page as the store of the product does; how many there are.
    ///
    /// # Errors
    /// etcd does not answer.
    pub fn range(&self, prefix: &str) -> Result<usize, Failure> {
        self.runtime.block_on(async {
            let mut client = self
                .client
                .kv_client()
                .max_decoding_message_size(MOST_BYTES);
            let (mut size, mut count) = (PageSize::new(), 0);
            let mut from = prefix.as_bytes().to_vec();
            let end = end_of(prefix);
            loop {
                let options = GetOptions::new().with_range(end.clone());
                let options = options.with_limit(size.records());
                let got = client.get(from, Some(options)).await?;
                let bytes = got.kvs().iter().map(|kv| kv.key().len() + kv.value().len());
                size.had(got.kvs().len(), bytes.sum());
                count += got.kvs().len();
                match got.kvs().last() {
                    Some(last) if got.more() => from = [last.key(), b"\0"].concat(),
                    _ => return Ok(count),
                }
            }
        })
    }

    /// Puts one key.
    ///
    /// # Errors
    /// etcd refuses it.
    pub fn put(&mut self, (key, value): &Record) -> Result<(), Failure> {
        let put = self.client.put(key.as_str(), value.as_str(), None);
        self.runtime.block_on(put)?;
        Ok(())
    }

    /// So many watchers of what begins so, each with a connection and a thread of its own.
    ///
    /// # Errors
    /// One cannot watch.
    pub fn watchers(&self, count: usize, prefix: &str) -> Result<Watchers, Failure> {
        let (said, heard) = mpsc::channel();
        for _ in 0..count {
            let (config, prefix, said) = (self.config.clone(), prefix.to_owned(), said.clone());
            // It ends when nobody hears it, or with etcd.
            std::thread::spawn(move || watch(config, &prefix, &said));
        }
        let mut watchers = Watchers { count, heard };
        // The first thing that each says is that it watches.
        watchers.hear(1)?;
        Ok(watchers)
    }
}

/// What watchers hear: how many events at once, and when; or why one does not watch.
type Said = Result<(usize, Instant), String>;

/// Watchers of one prefix.
pub struct Watchers {
    count: usize,
    heard: Receiver<Said>,
}

impl Watchers {
    /// Waits until all of them together have heard so many events each; when the last did.
    ///
    /// # Errors
    /// Not in time, or one does not watch any more.
    pub fn hear(&mut self, events: usize) -> Result<Instant, Failure> {
        let (mut left, mut last) = (events * self.count, None);
        while left > 0 {
            match self.heard.recv_timeout(HEARD) {
                Ok(Ok((count, when))) => {
                    left = left.saturating_sub(count);
                    last = last.max(Some(when));
                }
                Ok(Err(why)) => return Err(why.into()),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("watchers still wait for {left} events").into());
                }
                Err(RecvTimeoutError::Disconnected) => return Err("a watcher ended".into()),
            }
        }
        last.ok_or_else(|| "nothing to hear".into())
    }
}

fn watch(config: EtcdConfig, prefix: &str, said: &mpsc::Sender<Said>) {
    let watching = || -> Result<(), Failure> {
        let mut minimal = Minimal::with(config)?;
        let options = WatchOptions::new().with_prefix();
        let client = &mut minimal.client;
        minimal.runtime.block_on(async {
            let mut stream = client.watch(prefix, Some(options)).await?;
            // Nobody hears it any more: the end.
            while let Some(heard) = stream.message().await? {
                let count = if heard.created() {
                    1
                } else {
                    heard.events().len()
                };
                if said.send(Ok((count, Instant::now()))).is_err() {
                    break;
                }
            }
            Ok(())
        })
    };
    if let Err(error) = watching() {
        // As above.
        let _ = said.send(Err(format!("a watcher: {error}")));
    }
}

async fn write(client: Client, records: Vec<Record>) -> Result<(), etcd_client::Error> {
    let puts = records.into_iter();
    let puts = puts.map(|(key, value)| TxnOp::put(key, value, None));
    let txn = Txn::new().and_then(puts.collect::<Vec<_>>());
    client.kv_client().txn(txn).await.map(|_| ())
}

async fn next(writing: &mut JoinSet<Result<(), etcd_client::Error>>) -> Result<(), Failure> {
    match writing.join_next().await {
        Some(written) => Ok(written??),
        None => Ok(()),
    }
}
