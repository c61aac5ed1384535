//! Clients that stay until a later step of the script. They are served, or wait in a queue.

use super::Run;
use crate::client::{Client, Seen};
use crate::script::{Kind, Leave};

/// A client that stays.
pub(super) struct Held {
    bind: String,
    client: Client,
    stage: Stage,
}

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has sent nothing yet.
    Silent,
    /// It has sent its order, and has no answer yet.
    Sent,
    /// Its server has answered.
    Served,
}

impl Held {
    /// Reads the name of the server that serves it.
    fn served(&mut self) {
        match self.stage {
            Stage::Silent => self.client.hold(),
            Stage::Sent => self.client.answered(),
            Stage::Served => {}
        }
        self.stage = Stage::Served;
    }
}

impl Run<'_> {
    fn connect(&self, bind: &str) -> Client {
        Client::connect(&self.targets[bind], self.held.len())
    }

    fn stay(&mut self, bind: &str, client: Client, stage: Stage) {
        self.held.push(Held {
            bind: bind.to_owned(),
            client,
            stage,
        });
    }

    /// Clients that come one after another, and are served at once.
    pub(super) fn come(&mut self, bind: &str, count: usize) {
        for _ in 0..count {
            let mut client = self.connect(bind);
            client.hold();
            self.stay(bind, client, Stage::Served);
        }
    }

    /// Clients that wait. Each is in the queue of this row of `show stat` before the next one comes.
    pub(super) fn queue(&mut self, bind: &str, count: usize, row: &str, asks: bool) {
        for _ in 0..count {
            let mut client = self.connect(bind);
            let stage = if asks {
                client.ask();
                Stage::Sent
            } else {
                Stage::Silent
            };
            self.stay(bind, client, stage);
            let waiting = self.held.iter().filter(|it| it.stage != Stage::Served);
            self.program.wait_count(row, "qcur", waiting.count() as u64);
        }
    }

    /// Those that have waited longest are served now.
    pub(super) fn served(&mut self, count: usize) {
        let waiting = self.held.iter_mut();
        let waiting = waiting.filter(|it| it.stage != Stage::Served);
        waiting.take(count).for_each(Held::served);
    }

    /// The first ones end, one after another. Those that have waited are served before.
    pub(super) fn end(&mut self, count: usize) {
        for _ in 0..count {
            let mut held = self.held.remove(0);
            held.served();
            let Held { bind, client, .. } = held;
            let port = client.port;
            self.over(&bind, port, client.finish());
        }
    }

    /// Those that have waited longest leave, one after another.
    pub(super) fn leave(&mut self, count: usize, how: Leave) {
        for _ in 0..count {
            let Held { bind, client, .. } = self.longest();
            let port = client.port;
            let seen = match how {
                Leave::End => client.finish(),
                Leave::Reset => client.reset(),
            };
            self.over(&bind, port, seen);
        }
    }

    /// Those that have waited longest have waited for too long.
    pub(super) fn late(&mut self, count: usize) {
        let clients = (0..count).map(|_| self.longest().client);
        let clients = clients.collect();
        self.ended_by_the_program("late", clients);
    }

    /// Takes out the client that has waited longest.
    fn longest(&mut self) -> Held {
        let mut stages = self.held.iter().map(|it| it.stage);
        let first = stages.position(|stage| stage != Stage::Served);
        self.held.remove(first.expect("a client waits"))
    }

    /// Waits until the session of a client that has left is over.
    fn over(&mut self, bind: &str, port: u16, seen: Seen) {
        self.ended(bind, Kind::Idle, port, seen);
        self.program.wait_sessions(self.held.len());
    }
}
