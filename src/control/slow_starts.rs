//! Which servers have a slow start. Control thread.

use super::Control;
use super::batch::Batch;
use crate::state::{OperState, Snapshot};
use std::sync::Arc;
use std::time::Instant;

impl Control {
    /// Slow starts go on. HAProxy's `server_warmup` comes once a second too.
    pub(super) async fn warm_up(&mut self, base: Arc<Snapshot>, now: Instant) {
        let servers = base.backends.iter().flatten().flat_map(|it| &it.servers);
        let starting = servers.filter(|server| server.status.oper == OperState::Starting);
        let starting: Vec<u64> = starting.map(|server| server.live.uid).collect();
        if starting.is_empty() {
            return;
        }
        let mut batch = Batch::new(base, &self.servers, &self.parts.token, now);
        for uid in starting {
            batch.warm_up(uid);
        }
        let (snapshot, outcome) = batch.finish();
        if let Some(snapshot) = snapshot {
            self.publish(&Arc::new(snapshot));
        }
        self.follow(outcome).await;
    }
}
