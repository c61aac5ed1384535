//! The list of workloads: those of the comparison, and those of the emulated machine.

use super::{What, Workload};
use crate::subject::setting::{self, Balance};
use crate::subject::{BASE, Setting};

/// Short connections, 32 at once.
const RATE: &str = "--kind rate --connections 32";

/// The same from 32 addresses, for algorithms that look at it.
const FROM_MANY: &str = "--kind rate --connections 32 --sources 32";

/// Short connections with something in the configuration of rlb and of HAProxy that is not as in the other workloads.
const WITH: [(&str, Setting, &str); 9] = [
    ("short with leastconn 3", setting::leastconn(3), RATE),
    ("short with leastconn 100", setting::leastconn(100), RATE),
    ("short with leastconn 1000", setting::leastconn(1_000), RATE),
    (
        "short with source",
        setting::balance(Balance::Source),
        FROM_MANY,
    ),
    (
        "short with maglev",
        setting::balance(Balance::Consistent),
        FROM_MANY,
    ),
    ("short with ewma", setting::balance(Balance::OfTwo), RATE),
    (
        "short with full queue",
        setting::queue(SLOTS, setting::PLAIN.maxconn),
        "--kind rate --connections 64",
    ),
    (
        "short with PROXY v2",
        setting::PROXY_HEADER,
        "--kind rate --connections 32 --announce",
    ),
    ("short with no log", setting::NO_LOG, RATE),
];

/// Sessions that a server may have while others wait.
const SLOTS: u32 = 8;

/// Sessions that a proxy takes beyond those of the load.
const QUEUE_ROOM: u32 = 92;

/// Divides `operations` by `by` if the load is to be small.
fn fewer(small: bool, operations: u64, by: u64) -> u64 {
    if small { operations / by } else { operations }
}

fn rate(operations: u64) -> String {
    format!("{RATE} --operations {operations}")
}

fn ping(connections: u32, idle: u32, size: u32, operations: u64) -> String {
    format!(
        "--kind ping --connections {connections} --idle {idle} --size {size} --operations {operations}"
    )
}

/// `bytes` in one direction, spread over all streams.
fn bulk(streams: u64, direction: &str, bytes: u64) -> String {
    let size = bytes / streams;
    format!("--kind bulk --connections {streams} --direction {direction} --size {size}")
}

fn idle(connections: u32, warm: u64) -> String {
    format!("--kind idle --connections {connections} --warm {warm}")
}

/// Memory of `waiting` clients in a queue, each of which has sent `size` bytes; with `size` 0 they are silent.
fn queue(name: &'static str, waiting: u32, size: u32) -> Workload {
    let connections = waiting + SLOTS;
    let arguments = format!("--kind queue --connections {connections} --size {size}");
    Workload {
        setting: Some(setting::queue(SLOTS, connections + QUEUE_ROOM)),
        ..Workload::new(name, What::Waiting(waiting.into()), arguments)
    }
}

impl Workload {
    /// The workloads of the comparison; with `quick` small ones.
    pub fn all(quick: bool) -> Vec<Self> {
        let few = |operations| fewer(quick, operations, 8);
        let speed = |name, arguments| Self::new(name, What::Speed, arguments);
        let calls = |name, arguments| Self::new(name, What::Calls, arguments);
        // Valgrind takes three seconds a subject just to start.
        let user = |name, arguments: &str| Self {
            only: quick.then_some(&["rlb", BASE]),
            ..Self::new(name, What::User, arguments.into())
        };
        let memory = |name, arguments| Self::new(name, What::Memory, arguments);
        let pings = few(240_000);
        let bytes = few(4_000_000_000);
        let (held, used): (u32, u32) = if quick { (2_000, 200) } else { (9_000, 9_000) };
        let mut all = vec![
            speed("short connections", rate(few(40_000))),
            calls("short connections, calls", rate(few(8_000))),
            user("short connections, user space", RATE),
            speed("ping 64 x 64 B", ping(64, 0, 64, pings)),
            calls("ping 64 x 64 B, calls", ping(64, 0, 64, few(40_000))),
            user("ping 64 x 64 B, user space", "--kind ping --connections 64"),
            speed("ping 64 x 1 KB", ping(64, 0, 1024, pings)),
            speed("ping 1000 x 64 B", ping(1000, 0, 64, pings)),
            speed("ping 100 x 64 B + 1000 idle", ping(100, 1000, 64, pings)),
            speed("ping 1 x 64 B", ping(1, 0, 64, few(40_000))),
            speed("bulk 1 down", bulk(1, "down", bytes)),
            speed("bulk 1 up", bulk(1, "up", bytes)),
            speed("bulk 8 down", bulk(8, "down", bytes)),
            speed("bulk 8 up", bulk(8, "up", bytes)),
            Self {
                only: quick.then_some(&["rlb", BASE]),
                ..speed(
                    "bulk 8 down + 40 stalled",
                    format!("{} --stalled 40", bulk(8, "down", bytes)),
                )
            },
            memory("idle", idle(held, 0)),
            memory("idle after 1 MB", idle(used, 1_000_000)),
            queue("queued, silent", held, 0),
            queue("queued, with a request", held, 64),
            Self::new("integrity", What::Integrity, "--kind integrity".into()),
        ];
        all.extend(WITH.map(|(name, setting, load)| Self {
            setting: Some(setting),
            most: if quick { 1 } else { usize::MAX },
            ..speed(name, format!("{load} --operations {}", few(40_000)))
        }));
        if quick {
            for workload in &mut all {
                if workload.what != What::Speed {
                    workload.most = 1;
                }
                if workload.setting.is_some() {
                    workload.only = Some(&["rlb", BASE]);
                }
            }
        }
        all
    }

    /// The workloads of the emulated machine, sized for its speed: some 300 million instructions a second for
    /// load, proxy and servers together. `quick` halves them.
    pub fn emulated(quick: bool) -> Vec<Self> {
        let few = |operations| fewer(quick, operations, 2);
        let counted = |name, arguments| Self::new(name, What::Emulated, arguments);
        let calls = |name, arguments| Self::new(name, What::Calls, arguments);
        let moved = |name, streams, direction| Self {
            warm: Some(bulk(streams, direction, 16_000_000)),
            ..counted(name, bulk(streams, direction, few(200_000_000)))
        };
        let pings = few(10_000);
        let mut all = vec![
            Self {
                warm: Some(rate(200)),
                ..counted("short connections", rate(few(2_000)))
            },
            calls("short connections, calls", rate(400)),
            counted("ping 64 x 64 B", ping(64, 0, 64, pings)),
            calls("ping 64 x 64 B, calls", ping(64, 0, 64, 3_000)),
            counted("ping 64 x 1 KB", ping(64, 0, 1024, pings)),
            counted("ping 1000 x 64 B", ping(1000, 0, 64, pings)),
            counted("ping 100 x 64 B + 1000 idle", ping(100, 1000, 64, pings)),
            counted("ping 1 x 64 B", ping(1, 0, 64, few(5_000))),
            calls("ping 1 x 64 B, calls", ping(1, 0, 64, 1_000)),
            moved("bulk 1 down", 1, "down"),
            moved("bulk 1 up", 1, "up"),
            moved("bulk 8 down", 8, "down"),
            moved("bulk 8 up", 8, "up"),
        ];
        all.extend(WITH.map(|(name, setting, load)| {
            // Each server has had a connection before.
            let warm = 200 + u64::from(setting.servers);
            Self {
                setting: Some(setting),
                warm: Some(format!("{load} --operations {warm}")),
                ..counted(name, format!("{load} --operations {}", few(2_000)))
            }
        }));
        all.extend([
            queue("queued, silent", 10_000, 0),
            queue("queued, with a request", 10_000, 64),
        ]);
        if quick {
            for workload in all.iter_mut().filter(|it| it.setting.is_some()) {
                workload.only = Some(&["rlb", BASE]);
            }
        }
        all
    }
}
