//! What a turn says and does when checks are not believed, and when too few servers are usable.

use super::*;
use crate::config::model;
use crate::live::WorkerToken;
use crate::state::test_config::{backend, config, origin, server};
use tokio_util::sync::CancellationToken;

/// A backend `b` whose servers end their sessions when they go down.
struct Turns {
    snapshot: Arc<Snapshot>,
    servers: ServerIndex,
    token: WorkerToken,
}

impl Turns {
    fn new(count: usize, change: impl FnOnce(&mut model::Backend)) -> Self {
        let servers = (1..=count).map(|number| model::Server {
            shutdown_sessions_on_down: true,
            ..server(&format!("s{number}"))
        });
        let mut spec = backend("b", servers.collect());
        change(&mut spec);
        let snapshot = Snapshot::initial(&config(vec![spec]), &origin(Instant::now()));
        Self {
            servers: ServerIndex::of(&snapshot, &CancellationToken::new()),
            snapshot: Arc::new(snapshot),
            token: WorkerToken::new(0),
        }
    }

    fn uids(&self) -> Vec<u64> {
        let backend = self.snapshot.backends[0].as_ref().expect("it stays");
        backend.servers.iter().map(|one| one.live.uid).collect()
    }

    /// One turn in which the health of these servers is forced. The lines about the backend, and the positions of the
    /// servers whose sessions end.
    fn force(&mut self, of: &[usize], to: Forced) -> (Vec<String>, Vec<usize>) {
        let uids = self.uids();
        let base = Arc::clone(&self.snapshot);
        let mut batch = Batch::new(base, &self.servers, &self.token, Instant::now());
        for index in of {
            assert!(batch.force(uids[*index], to, Interface::Cli));
        }
        let (next, outcome) = batch.finish();
        self.snapshot = Arc::new(next.expect("a change"));
        let lines = outcome.lines.into_iter().map(|line| line.text);
        let lines = lines.filter(|text| !text.contains("Server b/"));
        let place = |uid: &u64| uids.iter().position(|one| one == uid).expect("one of them");
        (lines.collect(), outcome.down.iter().map(place).collect())
    }

    fn times_down(&self) -> u64 {
        let backend = self.snapshot.backends[0].as_ref().expect("it stays");
        backend.live.traffic.sum(|traffic| &traffic.chkdown)
    }
}

#[test]
fn checks_that_are_not_believed_end_no_session() {
    let mut turns = Turns::new(4, |spec| spec.fail_open_below = 50);
    assert_eq!(turns.force(&[0], Forced::Down), (vec![], vec![0]));
    let begins = "backend b fails open: 1 of 4 servers are up, less than 50 %. Checks are not \
                  believed, all are used.";
    let (lines, ended) = turns.force(&[1, 2], Forced::Down);
    assert_eq!((lines, ended), (vec![begins.to_owned()], vec![]));
    assert_eq!(turns.force(&[3], Forced::Down), (vec![], vec![]));
    assert_eq!(turns.force(&[0], Forced::Up), (vec![], vec![]));
    // Sessions that have begun meanwhile work, and a server that has left maintenance may be down again at once.
    let ends = "backend b fails open no longer: 2 of 4 servers are up.";
    let (lines, ended) = turns.force(&[3], Forced::Up);
    assert_eq!((lines, ended), (vec![ends.to_owned()], vec![]));
    assert_eq!(turns.times_down(), 0);
    // All at once: it never had none.
    let mut turns = Turns::new(3, |spec| spec.fail_open_below = 1);
    let (lines, ended) = turns.force(&[0, 1, 2], Forced::Down);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((ended, turns.times_down()), (vec![], 0));
}

#[test]
fn too_few_servers_are_told_of() {
    let mut turns = Turns::new(3, |spec| spec.min_servers = 2);
    let (lines, ended) = turns.force(&[0, 1], Forced::Down);
    let down = "backend b has no server available! 1 usable, min-servers 2.";
    assert_eq!((lines, ended), (vec![down.to_owned()], vec![0, 1]));
    assert_eq!(turns.times_down(), 1);
    let up = "backend b is UP again: 2 servers usable, min-servers 2.";
    assert_eq!(turns.force(&[1], Forced::Up), (vec![up.to_owned()], vec![]));
}
