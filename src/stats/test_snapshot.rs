//! A snapshot for the tests of `stats` and `admin`.

use super::{Requests, Rows};
use crate::config::model::{Config, Stats};
use crate::live::GlobalLive;
use crate::state::{Origin, Snapshot, test_config};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A stats proxy and a `[[listen]]` called `postgres` with servers `node1` and so on.
pub(crate) fn config(servers: u32) -> Config {
    let servers = (1..=servers)
        .map(|id| crate::config::model::Server {
            id,
            ..test_config::server(&format!("node{id}"))
        })
        .collect();
    let mut config = test_config::config(vec![test_config::backend("postgres", servers)]);
    let mut frontend = test_config::frontend("postgres", 3);
    frontend.order = 1;
    config.frontends.push(frontend);
    config.stats = Some(Stats {
        id: 2,
        ..Stats::default()
    });
    config
}

/// A first snapshot of [`config`].
pub(crate) fn seed(servers: u32) -> Snapshot {
    snapshot(&config(servers))
}

/// A first snapshot of `config`.
pub(crate) fn snapshot(config: &Config) -> Snapshot {
    let now = Instant::now();
    let origin = Origin {
        global: Arc::new(GlobalLive::new(now, 2)),
        maxconn: 2000,
        shards: 2,
        now,
    };
    Snapshot::initial(config, &origin)
}

/// A whole table.
pub(crate) fn whole(mut table: super::Table) -> String {
    let mut text = String::new();
    loop {
        let chunk = table.chunk();
        if chunk.is_empty() {
            return text;
        }
        text.push_str(&chunk);
    }
}

/// Its rows, ten seconds after the start, with addresses and algorithms.
pub(crate) fn rows(snapshot: Snapshot) -> Rows {
    let now = snapshot.global.start + Duration::from_secs(10);
    Rows::new(Arc::new(snapshot), Arc::new(Requests::default()), now).with_legends(true)
}
